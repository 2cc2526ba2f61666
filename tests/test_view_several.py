"""Several runs or files of predictions in one view, the ways through their samples, and what is kept of it."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from view_run import make_run, rival, write_video

from timer1lib.errors import Timer1Error
from timer1lib.files import read_json
from timer1lib.runfolder import RunFolder
from timer1lib.spans import iou
from timer1lib.stages.inspect import notes
from timer1lib.view.exports import csv_text
from timer1lib.view.inspector import Inspector
from timer1lib.view.items import load_items, load_rollouts, load_several, styles
from timer1lib.view.open import prepare, run_from_predictions


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    root = tmp_path_factory.mktemp("runs")
    first = make_run(root / "first", samples=9, videos=3)
    return [first, rival(first, root / "second")]


@pytest.fixture
def view(runs: list[RunFolder], tmp_path: Path) -> Inspector:
    return Inspector(runs[0], load_several(runs), runs[0].root / "cache", compare=("first/grpo", "second/grpo"))


def sent(widget: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], list[bytes]]]:
    """What a widget sends, in a script: a browser test that ran before in this process leaves a loop that seems to run."""
    monkeypatch.setattr("timer1lib.view.aside.asyncio.get_running_loop", lambda: (_ for _ in ()).throw(RuntimeError()))
    found: list[tuple[dict[str, Any], list[bytes]]] = []
    monkeypatch.setattr(type(widget), "send", lambda self, content, buffers=None: found.append((content, buffers or [])))
    return found


def test_every_checkpoint_of_both_runs_is_a_row_with_a_colour_of_its_own(runs: list[RunFolder]) -> None:
    items = load_several(runs)
    names = ["first/base", "first/sft", "first/grpo", "second/base", "second/sft", "second/grpo"]
    assert {tuple(row.label for row in item.rows) for item in items} == {tuple(names)}
    assert len({row.style.colour for row in items[0].rows}) == 6
    alone = {row.label: row.style for row in load_items(runs[0])[0].rows}
    assert [row.style for row in items[0].rows][:3] == list(alone.values())
    second = {p.id: p.span for p in runs[1].read_predictions("grpo", "test_id")}
    assert items[1].rows[5].span == second["s001"] == items[1].sample.window


def test_a_colour_does_not_depend_on_what_is_chosen(runs: list[RunFolder]) -> None:
    whole = {row.label: row.style for row in load_several(runs)[0].rows}
    some = {row.label: row.style for row in load_several(runs, checkpoints=["sft", "grpo"])[0].rows}
    assert list(some) == ["first/sft", "first/grpo", "second/sft", "second/grpo"]
    assert all(whole[name] == style for name, style in some.items())
    many = styles([f"p{i}" for i in range(15)])
    assert len({(style.colour, style.pattern) for style in many.values()}) == 15


def test_a_run_that_lacks_something_says_so(runs: list[RunFolder], tmp_path: Path) -> None:
    third = rival(runs[0], tmp_path / "third")
    third.predictions("grpo", "test_ood").unlink()
    items = load_several([runs[0], third])
    assert next(item.rows[5].error for item in items if item.split == "test_ood") == "not in the predictions"
    third.write_samples("test_id", third.read_samples("test_id")[1:])
    moved = third.read_samples("test_ood")
    moved[0].windows = [(0.5, 1.5)]
    third.write_samples("test_ood", moved)
    items = load_several([runs[0], third])
    assert [row.error for row in items[0].rows][3:] == ["not in this run"] * 3
    assert ["truth differs" in item.tags for item in items if item.split == "test_ood"] == [True, False, False]
    with pytest.raises(Timer1Error, match="first: no predictions of checkpoints grpo2"):
        load_several([runs[0], third], checkpoints=["grpo2"])


def test_ways_through_the_samples(view: Inspector) -> None:
    """Worst by the second row's IoU; changed and worse by the difference of both, in the table's order."""
    scrubber = view.scrubber
    values = {item.key: (item.iou(item.rows[2]), item.iou(item.rows[5])) for item in view.items}
    scrubber.select(min(values, key=lambda key: values[key][1]))
    worst = [scrubber.shown.key]  # type: ignore[union-attr]
    for _ in range(8):
        scrubber.move(1, "worst")
        worst.append(scrubber.shown.key)  # type: ignore[union-attr]
    assert [values[key][1] for key in worst] == sorted(value for _, value in values.values())
    for how, wanted in (("changed", lambda d: abs(d) > 0.1), ("worse", lambda d: d < -0.1)):
        keys = [key for key, (a, b) in values.items() if wanted(b - a)]
        scrubber.select(view.items[0].key)
        seen = [view.items[0].key] if view.items[0].key in keys else []
        for _ in range(9):
            scrubber.move(1, how)
            if scrubber.shown.key not in seen and scrubber.shown.key in keys:  # type: ignore[union-attr]
                seen.append(scrubber.shown.key)  # type: ignore[union-attr]
        assert seen == keys, how
    view.table.compare = [5, 2]  # the other way round, what got worse got better
    assert view.scatter is not None
    assert (view.scatter.x_label, view.scatter.y_label) == ("IoU of second/grpo", "IoU of first/grpo")
    assert scrubber.pair == (5, 2)


def test_one_checkpoint_has_no_scatter(runs: list[RunFolder]) -> None:
    assert Inspector(runs[0], load_items(runs[0], checkpoints=["sft"]), runs[0].root / "cache").scatter is None


def test_views_are_kept_with_the_run(view: Inspector, runs: list[RunFolder]) -> None:
    view.table._handle_custom_msg({"type": "view", "name": "lost", "hash": "#sample=test_id/s001&sort=difference"}, [])
    assert read_json(runs[0].views) == {"lost": "#sample=test_id/s001&sort=difference"}
    again = Inspector(runs[0], view.items, runs[0].root / "cache")
    assert again.table.views == {"lost": "#sample=test_id/s001&sort=difference"}
    again.table._handle_custom_msg({"type": "view", "name": "lost", "hash": ""}, [])
    assert read_json(runs[0].views) == {}
    runs[0].views.write_text("[")
    assert Inspector(runs[0], view.items, runs[0].root / "cache").table.views == {}
    runs[0].views.unlink()


def test_the_csv_has_every_number_in_full(runs: list[RunFolder]) -> None:
    items = load_several(runs)
    rows = list(csv.DictReader(io.StringIO(csv_text(items))))
    assert [row["id"] for row in rows] == [item.sample.id for item in items]
    answer = {p.id: p for p in runs[1].read_predictions("sft", "test_id")}["s002"]
    assert float(rows[2]["second/sft_start"]) == answer.start
    assert float(rows[2]["second/sft_iou"]) == iou(answer.span, items[2].sample.window)
    assert rows[2]["windows"] == "{:g}-{:g}".format(*items[2].sample.window)


def test_the_table_writes_what_it_shows(view: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    found = sent(view.table, monkeypatch)
    for kind in ("csv", "label-studio", "fiftyone"):
        view.table._handle_custom_msg({"type": "export", "format": kind, "keys": ["test_id/s001", "nope"]}, [])
    view._aside._thread.shutdown(wait=True)
    files = {content["name"]: buffers[0] for content, buffers in found if content["type"] == "file"}
    assert files["samples.csv"].decode().splitlines()[1].startswith("s001,test_id,")
    (task,) = json.loads(files["label-studio.json"])
    assert [p["model_version"] for p in task["predictions"]] == [row.label for row in view.items[1].rows if row.span]
    assert list(json.loads(files["labels.json"])["labels"]) == ["clip_1"]


def test_the_timeline_as_it_is_shown_and_a_segment_are_files(runs: list[RunFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    view = Inspector(runs[0], load_items(runs[0]), runs[0].root / "cache")
    found = sent(view.scrubber, monkeypatch)
    key = view.items[0].key
    message = {"key": key, "start": 2.0, "end": 6.0}
    view.scrubber._handle_custom_msg({"type": "svg", "edits": {"grpo:0": [3.0, 4.0]}, **message}, [])
    view.scrubber._handle_custom_msg({"type": "clip", "row": "truth", **message}, [])
    view.scrubber._handle_custom_msg({"type": "clip", "row": "truth", **message, "start": 99.0, "end": 100.0}, [])
    view.scrubber._aside._thread.shutdown(wait=True)
    (svg, clip), (last, _) = [one for one in found if one[0]["type"] == "file"], found[-1]
    root = ET.fromstring(svg[1][0])
    titles = [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}title")]
    assert "grpo: 3.00–4.00 s" in titles
    assert clip[0]["name"] == "s000-truth-2.00-6.00.mp4"
    with av.open(io.BytesIO(clip[1][0])) as container:
        assert sum(1 for _ in container.decode(video=0)) == 40
    assert last["text"].startswith("not saved: ")


def test_a_samples_rollouts_over_training_are_all_there(runs: list[RunFolder]) -> None:
    """Also with a table of the last groups only; best reward first, as they stand in the table."""
    logged = [json.loads(line) for line in runs[0].log("rollouts").read_text().splitlines()]
    items = load_rollouts(runs[0], limit=3)
    assert [item.step for item in items] == [40, 40, 40]
    history = items[0].history
    assert [group.step for group in history] == [1, 10, 20, 40]
    first = next(row for row in logged if row["id"] == items[0].sample.id)
    assert [reward for _, reward in history[0].ticks] == sorted(first["rewards"], reverse=True)
    assert history[0].ticks[-1] == (None, 0.0)
    assert history[-1].key == items[0].key
    assert load_rollouts(runs[0])[0].history[0].key == load_rollouts(runs[0])[0].key


def test_notes_are_listed_with_what_01_will_do(runs: list[RunFolder], tmp_path: Path) -> None:
    view = Inspector(runs[0], load_items(runs[0]), runs[0].root / "cache")
    view.scrubber.save("wrong_label", "x", (1.0, 2.0))
    assert "changed only with curate.repair_test" in view.scrubber.saved["message"]
    runs[0].notes.write_text(runs[0].notes.read_text() + '{"id": "t1", "label": "wrong_label", "window": [1, 2]}\n')
    listed = notes(runs[0]).set_index("id")["in 01"].to_dict()
    assert listed == {
        "s000": "listed; a test set changes only with repair_test",
        "t1": "its window is taken (on_wrong_label)",
    }
    runs[0].notes.unlink()


def test_a_copy_for_several_runs_stands_beside_the_one_for_one(runs: list[RunFolder]) -> None:
    alone, both = prepare(runs[0].root), prepare([runs[0].root, runs[1].root])
    assert (alone.name, both.name) == ("06_inspect_open.ipynb", "06_inspect_open_second.ipynb")
    assert f'runs: str = "{runs[1].root}"' in both.read_text().replace('\\"', '"')
    with pytest.raises(Timer1Error, match="twice"):
        prepare([runs[0].root, runs[0].root])


def test_several_files_of_predictions_are_checkpoints_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "AAA.mp4", 4.0, (1.0, 2.0), (200, 0, 0))
    (tmp_path / "test.json").write_text(
        json.dumps({"AAA": {"duration": 4.0, "timestamps": [[1.0, 2.0]], "sentences": ["a disc"]}})
    )
    files = []
    for name, end in (("x/a.jsonl", 2.0), ("y/a.jsonl", 3.0), ("b.jsonl", 1.5)):
        files.append(tmp_path / name)
        files[-1].parent.mkdir(exist_ok=True)
        files[-1].write_text(json.dumps({"video": "AAA", "query": "a disc", "start": 1.0, "end": end}) + "\n")
    run = run_from_predictions(files, tmp_path / "test.json", tmp_path / "videos", tmp_path / "run")
    assert load_items(run)[0].ious() == {"b": 0.5, "x-a": 1.0, "y-a": 0.5}
    run_from_predictions(files[:1], tmp_path / "test.json", tmp_path / "videos", tmp_path / "run")
    assert list(load_items(run)[0].ious()) == ["a"]
