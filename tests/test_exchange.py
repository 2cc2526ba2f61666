"""Windows to Label Studio and FiftyOne and back as notes; the files of both tools are written by hand here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from view_run import make_run

from timer1lib.data.exchange import Labelled, fiftyone, frames_of, label_studio, read_labels, seconds_of
from timer1lib.data.notes import read_notes
from timer1lib.errors import Timer1Error
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Sample
from timer1lib.view.exports import exchange


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("run"), samples=6, videos=2)


def rows() -> list[Labelled]:
    one = Sample("a", "deep/x.mp4", "a disc", 20.0, [(2.0, 5.0)])
    clip = Sample("b", "y.mp4", "a square", 10.0, [(1.0, 2.0)], video_start=30.0, video_end=40.0)
    return [Labelled(one, "train", 25.0, {"grpo": [(2.4, 6.0)]}), Labelled(clip, "train", 10.0)]


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_frames_are_counted_from_one_and_both_ends_are_inside() -> None:
    assert frames_of((2.0, 5.0), 0.0, 25.0) == (51, 125)
    assert seconds_of(51, 125, 0.0, 25.0) == (2.0, 5.0)
    assert frames_of((1.0, 2.0), 30.0, 10.0) == (311, 320)  # frames of the file, not of the clip
    assert seconds_of(311, 320, 30.0, 10.0) == pytest.approx((1.0, 2.0))
    assert frames_of((2.0, 2.001), 0.0, 25.0) == (51, 51)


def test_a_task_has_the_truth_as_its_annotation_and_answers_as_predictions() -> None:
    first, second = label_studio(rows())
    assert first["data"]["timer1_id"] == "a"
    assert first["data"]["fps"] == 25.0
    assert first["data"]["video"] == "/data/local-files/?d=deep/x.mp4"
    (truth,) = first["annotations"][0]["result"]
    assert (truth["type"], truth["value"]) == (
        "timelinelabels", {"ranges": [{"start": 51, "end": 125}], "timelinelabels": ["event"]},
    )  # fmt: skip
    assert first["predictions"][0]["model_version"] == "grpo"
    assert first["predictions"][0]["result"][0]["value"]["ranges"] == [{"start": 61, "end": 150}]
    assert second["annotations"][0]["result"][0]["value"]["ranges"] == [{"start": 311, "end": 320}]


def test_detections_are_in_seconds_of_the_file_and_say_whose_they_are() -> None:
    labels = fiftyone(rows())["labels"]
    assert sorted(labels) == ["deep/x", "y"]
    assert [(d["timestamps"], d["attributes"]["by"]) for d in labels["deep/x"]] == [([2.0, 5.0], "truth"), ([2.4, 6.0], "grpo")]
    assert labels["y"][0]["timestamps"] == [31.0, 32.0]
    assert labels["y"][0]["label"] == "a square"


def test_what_nobody_changed_is_no_note(tmp_path: Path) -> None:
    assert read_labels(write(tmp_path / "l.json", label_studio(rows())), rows()) == []
    assert read_labels(write(tmp_path / "f.json", fiftyone(rows())), rows()) == []


def result(start: int, end: int) -> dict[str, Any]:
    value = {"ranges": [{"start": start, "end": end}], "timelinelabels": ["event"]}
    return {"from_name": "windows", "to_name": "video", "type": "timelinelabels", "value": value}


def test_label_studios_export_becomes_notes(tmp_path: Path) -> None:
    """The last annotation that was not cancelled counts; a task that nobody opened says nothing."""
    tasks = [
        {"data": {"timer1_id": "a", "fps": 25.0}, "annotations": [
            {"result": [result(1, 25)]}, {"result": [result(76, 150)]}, {"was_cancelled": True, "result": [result(1, 2)]}]},
        {"data": {"timer1_id": "b", "fps": 10.0}, "annotations": []},
    ]  # fmt: skip
    (note,) = read_labels(write(tmp_path / "x.json", tasks), rows())
    assert (note.id, note.label, note.window) == ("a", "wrong_label", (3.0, 6.0))
    tasks[1]["annotations"] = [{"result": [result(311, 320), result(351, 360)]}]  # type: ignore[index]
    assert read_labels(write(tmp_path / "x.json", tasks), rows())[1].text == ("from Label Studio: 2 windows, 1 to 2 s, 5 to 6 s")
    small = [{"timer1_id": "b", "fps": 10.0, "windows": [{"ranges": [{"start": 331, "end": 340}], "timelinelabels": ["event"]}]}]
    assert [note.window for note in read_labels(write(tmp_path / "min.json", small), rows())] == [(3.0, 4.0)]
    none = [{"data": {"timer1_id": "a", "fps": 25.0}, "annotations": [{"result": []}]}]
    (gone,) = read_labels(write(tmp_path / "none.json", none), rows())
    assert (gone.label, gone.window) == ("wrong_label", None)


def test_fiftyones_files_become_notes(tmp_path: Path) -> None:
    """Its labels.json in frames (its default), and the samples of a data set with their field."""
    attributes = {"by": "truth", "timer1_id": "a"}
    labels = {"classes": ["a disc"], "labels": {"x": [{"label": 0, "support": [26, 100], "attributes": attributes}], "z": None}}
    (note,) = read_labels(write(tmp_path / "labels.json", labels), rows())
    assert (note.id, note.window) == ("a", (1.0, 4.0))
    detection = {"_cls": "TemporalDetection", "label": "a square", "support": [321, 330], "timer1_id": "b", "by": "truth"}
    wrong = {**detection, "by": "grpo", "support": [1, 2]}
    field = {"_cls": "TemporalDetections", "detections": [detection, wrong]}
    samples = {"samples": [{"filepath": "/v/y.mp4", "windows": field}]}
    (note,) = read_labels(write(tmp_path / "samples.json", samples), rows())
    assert (note.id, note.window) == ("b", (2.0, 3.0))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"rows": []}, "neither tasks of Label Studio"),
        ([], "name none of the 2 samples"),
        ([{"data": {"timer1_id": "a"}, "annotations": [{"result": [{"value": {"ranges": [{"start": "x"}]}}]}]}], "not an export"),
        ({"labels": {"x": [{"label": 0, "timestamps": 3, "attributes": {"timer1_id": "a"}}]}}, "not an export"),
    ],
)
def test_another_file_is_refused_by_its_name(tmp_path: Path, value: Any, said: str) -> None:
    with pytest.raises(Timer1Error, match=said) as error:
        read_labels(write(tmp_path / "theirs.json", value), rows())
    assert "theirs.json" in str(error.value)


def test_a_run_goes_out_and_comes_back(run: RunFolder, tmp_path: Path) -> None:
    """Also a test sample: its note is kept and listed; the answer says that the test set stays."""
    out = tmp_path / "tasks.json"
    assert "6 samples for label-studio" in exchange(run.root, out, None, "label-studio", "train,test_id")
    tasks = json.loads(out.read_text())
    for task in tasks:
        if task["data"]["timer1_id"] in ("t0", "s001"):
            task["annotations"][0]["result"] = [result(11, 20)]
    write(out, tasks)
    assert "notes on 2 samples whose windows were changed; 1 are of test sets" in exchange(run.root, None, out)
    assert {note.id: note.window for note in read_notes(run.notes)} == {"t0": (1.0, 2.0), "s001": (1.0, 2.0)}
    for bad in (
        {"to": None, "read": None},
        {"to": out, "read": out},
        {"to": out, "read": None, "tool": "cvat"},
        {"to": out, "read": None, "splits": "nope"},
    ):
        with pytest.raises(Timer1Error):
            exchange(run.root, **bad)  # type: ignore[arg-type]
