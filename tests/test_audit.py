"""Planted flaws, each of which the audit must find, and no other."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timer1lib.data.audit import AuditReport, audit_files, audit_results
from timer1lib.data.checks import Limits, source_key, video_key
from timer1lib.data.findings import CODES
from timer1lib.data.notes import Note, read_notes
from timer1lib.data.readers import ReadResult, read_annotations
from timer1lib.data.video_checks import VideoFolder
from timer1lib.errors import Timer1Error
from timer1lib.schema import Sample

CLEAN = {"id": "1", "video": "OHOFG.mp4", "query": "a person sits down", "duration": 30.0, "windows": [[3.0, 9.0]]}


def audit(folder: Path, *rows: dict[str, Any], **arguments: Any) -> AuditReport:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = audit_files([path], **arguments)
    rows_ = report.rows
    assert rows_["in"] == len(rows) == rows_["kept"] + rows_["repaired"] + rows_["dropped"]
    assert len(report.samples[str(path)]) == rows_["kept"] + rows_["repaired"]
    return report


def test_clean_rows_have_no_finding(tmp_path: Path) -> None:
    report = audit(tmp_path, CLEAN, {**CLEAN, "id": "2", "query": "a dog walks in", "windows": [[5.0, 20.0]]})
    assert report.findings == {}
    assert report.rows == {"in": 2, "kept": 2, "repaired": 0, "dropped": 0}


@pytest.mark.parametrize(
    ("change", "codes", "fate", "windows"),
    [
        ({"windows": [[3.0, 31.0]]}, ["past_end"], "repaired", [(3.0, 30.0)]),
        ({"windows": [[3.0, 30.01]]}, ["past_end"], "repaired", [(3.0, 30.0)]),
        ({"windows": [[3.0, 30.0 + 1e-9]]}, [], "kept", [(3.0, 30.0 + 1e-9)]),
        ({"windows": [[3.0, 30.0]]}, [], "kept", [(3.0, 30.0)]),
        ({"windows": [[31.0, 40.0]]}, ["past_end"], "dropped", None),
        ({"windows": [[9.0, 3.0]]}, ["reversed"], "repaired", [(3.0, 9.0)]),
        ({"windows": [[40.0, 3.0]]}, ["past_end", "reversed"], "repaired", [(3.0, 30.0)]),
        ({"windows": [[4.0, 4.0]]}, ["empty_window"], "dropped", None),
        ({"windows": [[4.0, 4.0], [5.0, 8.0]]}, ["empty_window"], "repaired", [(5.0, 8.0)]),
        ({"windows": [[-2.0, 4.0]]}, ["negative"], "repaired", [(0.0, 4.0)]),
        ({"windows": [[-2.0, -1.0]]}, ["negative"], "dropped", None),
        ({"windows": [[3.0, 31.0], [2.0, 40.0]]}, ["past_end", "past_end"], "repaired", [(3.0, 30.0), (2.0, 30.0)]),
        ({"windows": [[float("nan"), 4.0]]}, ["not_finite"], "dropped", None),
        ({"windows": [[3.0, float("inf")]]}, ["not_finite"], "dropped", None),
        ({"duration": float("inf")}, ["not_finite"], "dropped", None),
        ({"duration": 0.0}, ["bad_duration"], "dropped", None),
        ({"duration": -5.0}, ["bad_duration"], "dropped", None),
        ({"duration": None}, ["no_duration"], "kept", [(3.0, 9.0)]),
        ({"duration": "30"}, ["text_number"], "repaired", [(3.0, 9.0)]),
        ({"windows": [[3.0, 3.2]]}, ["short_window"], "kept", [(3.0, 3.2)]),
        ({"windows": [[0.0, 29.9]]}, ["whole_video"], "kept", [(0.0, 29.9)]),
        ({"query": ""}, ["bad_query"], "dropped", None),
        ({"query": " \n"}, ["bad_query"], "dropped", None),
        ({"query": "12 ?!"}, ["bad_query"], "dropped", None),
        ({"query": "N/A"}, ["bad_query"], "dropped", None),
        ({"query": "坐下"}, [], "kept", [(3.0, 9.0)]),
        ({"query": "the narrator explains the recipe"}, ["audio_query"], "kept", [(3.0, 9.0)]),
        ({"query": "two people talk to each other"}, [], "kept", [(3.0, 9.0)]),
        ({"video_start": 10.0, "video_end": 40.0}, [], "kept", [(3.0, 9.0)]),
        ({"video_start": 10.0, "video_end": 20.0}, ["bad_clip"], "dropped", None),
        ({"video_start": 20.0, "video_end": 10.0}, ["bad_clip"], "dropped", None),
        ({"options": ["a", "b"], "answer": "C"}, ["bad_answer"], "dropped", None),
        ({"windows": None}, ["missing_field"], "dropped", None),
        ({"windows": "x"}, ["unreadable"], "dropped", None),
    ],
)  # fmt: skip
def test_one_planted_flaw(tmp_path: Path, change: dict[str, Any], codes: list[str], fate: str, windows: Any) -> None:
    report = audit(tmp_path, {**CLEAN, **change})
    assert sorted(finding.code for finding in report.details) == codes
    assert report.rows[fate] == 1
    (samples,) = report.samples.values()
    assert [sample.windows for sample in samples] == ([] if windows is None else [windows])
    for finding in report.details:
        assert (finding.row, finding.line) == (1, 1)
        assert finding.repair in CODES[finding.code].allowed
    json.dumps(report.to_json(), allow_nan=False)
    assert str(report)


def test_treatments_decide_and_the_file_is_never_touched(tmp_path: Path) -> None:
    row = {**CLEAN, "windows": [[40.0, -3.0]]}
    kept = audit(tmp_path, row, treatments={"past_end": "keep", "reversed": "keep", "negative": "keep"})
    assert kept.rows["kept"] == 1
    assert next(iter(kept.samples.values()))[0].windows == [(40.0, -3.0)]
    dropped = audit(tmp_path, row, treatments={"past_end": "drop"})
    assert dropped.rows["dropped"] == 1
    assert dropped.dropped_by == {"past_end": 1}
    assert json.loads((tmp_path / "rows.jsonl").read_text()) == row
    before = read_annotations(tmp_path / "rows.jsonl")
    audit_results([before])
    assert before.samples[0].windows == [(40.0, -3.0)]


def test_every_change_is_listed(tmp_path: Path) -> None:
    report = audit(tmp_path, {**CLEAN, "windows": [[40.0, 3.0]]})
    assert [(c["code"], c["before"], c["after"]) for c in report.changes] == [
        ("reversed", [40.0, 3.0], [3.0, 40.0]),
        ("past_end", [3.0, 40.0], [3.0, 30.0]),
    ]


@pytest.mark.parametrize("treatments", [{"past_ende": "clip"}, {"past_end": "swap"}, {"not_finite": "keep"}, {"past_end": "x"}])
def test_a_wrong_treatment_is_named(tmp_path: Path, treatments: dict[str, str]) -> None:
    with pytest.raises(Timer1Error, match=next(iter(treatments))):
        audit(tmp_path, CLEAN, treatments=treatments)


def test_duplicates_conflicts_and_near_duplicates(tmp_path: Path) -> None:
    rows = [
        CLEAN,
        {**CLEAN, "id": "2"},
        {**CLEAN, "id": "3", "windows": [[12.0, 15.0]]},
        {**CLEAN, "id": "4", "query": "The person sits down."},
        {**CLEAN, "id": "5", "video": "other.mp4"},
        {**CLEAN, "id": "6", "query": "a person stands up", "windows": [[3.0, 9.0]]},
        {**CLEAN, "id": "6", "query": "someone laughs", "windows": [[20.0, 29.0]]},
    ]
    report = audit(tmp_path, *rows)
    assert [(f.code, f.id, f.repair) for f in report.details] == [
        ("duplicate", "2", "drop"), ("conflicting_windows", "3", "keep"), ("duplicate", "3", "keep"), ("near_duplicate", "4", "keep"),
        ("duplicate_id", "6", "clip"),
    ]  # fmt: skip
    assert report.rows == {"in": 7, "kept": 5, "repaired": 1, "dropped": 1}
    ids = [sample.id for sample in next(iter(report.samples.values()))]
    assert len(set(ids)) == len(ids)


def test_leakage_by_name_takes_rows_out_of_training(tmp_path: Path) -> None:
    train, test = tmp_path / "train.jsonl", tmp_path / "test.json"
    rows = [
        CLEAN,
        {**CLEAN, "id": "2", "query": "stands up", "windows": [[10.0, 12.0]]},
        {**CLEAN, "id": "3", "video": "AAAAA.mp4"},
    ]
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    test.write_text(json.dumps({"OHOFG": {"duration": 30, "timestamps": [[1, 4]], "sentences": ["the door opens"]}}))
    for order in ([train, test], [test, train]):
        report = audit_files(order)
        assert report.findings == {"leakage": 1}
        assert [sample.id for sample in report.samples[str(train)]] == ["3"]
        assert len(report.samples[str(test)]) == 1
        assert report.rows == {"in": 4, "kept": 2, "repaired": 0, "dropped": 2}
    kept = audit_files([train, test], treatments={"leakage": "keep"})
    assert kept.rows["dropped"] == 0


def test_leakage_inside_one_file_with_splits_and_numbered_names(tmp_path: Path) -> None:
    leak = audit(tmp_path, {**CLEAN, "split": "train"}, {**CLEAN, "split": "test", "query": "x y"})
    assert leak.findings == {"leakage": 1, "duplicate_id": 1} or leak.findings == {"leakage": 1}
    numbered = audit(
        tmp_path,
        {**CLEAN, "video": "train/00001.mp4", "split": "train"},
        {**CLEAN, "id": "2", "video": "test/00001.mp4", "split": "test"},
    )
    assert numbered.findings == {}


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("./data/tvg/KWZSA.mp4", "KWZSA", True), ("a/v_uqiMw7tQ1Cc.mp4", "v_uqiMw7tQ1Cc", True), ("s30-d52.avi", "x/s30-d52.mp4", True),
        ("train/000001.mp4", "test/000001.mp4", False), ("train/video_12.mp4", "test/video_12.mp4", False), ("1104/4882821564.mp4", "4882821564", True),
        ("A_60.0_210.0", "A_210.0_360.0", False),
    ],
)  # fmt: skip
def test_when_two_names_are_one_video(a: str, b: str, same: bool) -> None:
    assert (video_key(a) == video_key(b)) is same


def test_clips_of_one_source_are_a_remark_only(tmp_path: Path) -> None:
    assert (
        source_key("NUsG9BgSes0_60.0_210.0")
        == source_key("NUsG9BgSes0_210.0_360.0.mp4")
        == source_key("v_NUsG9BgSes0")
        == "NUsG9BgSes0"
    )
    rows = [
        {**CLEAN, "video": "NUsG9BgSes0_60.0_210.0", "split": "train"},
        {**CLEAN, "id": "2", "video": "NUsG9BgSes0_210.0_360.0", "split": "val"},
    ]
    report = audit(tmp_path, *rows)
    assert report.findings == {"shared_source": 1}
    assert report.rows["kept"] == 2


def fake_probe(seconds: float = 30.0) -> Any:
    def probe(path: Path) -> float:
        if path.stat().st_size == 0:
            raise Timer1Error(f"{path}: the video file is empty")
        return seconds

    return probe


def test_video_files_are_looked_up_probed_and_compared(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    (videos / "sub").mkdir(parents=True)
    (videos / "sub" / "OHOFG.mp4").write_bytes(b"film one")
    (videos / "COPY1.mp4").write_bytes(b"film one")
    (videos / "OTHER.mkv").write_bytes(b"film two")
    (videos / "EMPTY.mp4").write_bytes(b"")
    rows = [
        {**CLEAN, "video": "./published/sub/OHOFG.mp4", "split": "train"},
        {**CLEAN, "id": "2", "video": "COPY1", "split": "test", "query": "x y"},
        {**CLEAN, "id": "3", "video": "OTHER.mp4", "split": "test", "duration": 40.0},
        {**CLEAN, "id": "4", "video": "EMPTY.mp4", "split": "test"},
        {**CLEAN, "id": "5", "video": "GONE.mp4", "split": "test"},
        {**CLEAN, "id": "6", "video": "../../etc/passwd", "split": "test"},
        {**CLEAN, "id": "7", "video": "/etc/passwd", "split": "test"},
        {**CLEAN, "id": "8", "video": "OTHER.mkv", "split": "test", "duration": None, "query": "z w"},
    ]
    report = audit(tmp_path, *rows, videos=videos, probe=fake_probe())
    found = {(f.id, f.code) for f in report.details if f.severity != "warning" or f.code == "duration_mismatch"}
    assert found == {
        ("1", "leakage"),
        ("3", "duration_mismatch"),
        ("4", "undecodable"),
        ("5", "missing_video"),
        ("6", "outside_root"),
        ("7", "outside_root"),
        ("8", "no_duration"),
    }
    (samples,) = report.samples.values()
    assert [(s.id, s.video, s.duration) for s in samples] == [
        ("2", "COPY1.mp4", 30.0),
        ("3", "OTHER.mkv", 30.0),
        ("8", "OTHER.mkv", 30.0),
    ]


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(b"x")
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "a.mp4").symlink_to(tmp_path / "secret.mp4")
    with pytest.raises(Timer1Error, match="leaves"):
        VideoFolder(videos).find("a.mp4")
    with pytest.raises(Timer1Error, match="no such video folder"):
        VideoFolder(tmp_path / "none")


def test_a_clip_that_was_cut_out_already(tmp_path: Path) -> None:
    (tmp_path / "abc.mp4").write_bytes(b"x")
    row = {**CLEAN, "video": "abc.mp4", "video_start": 100.0, "video_end": 130.0}
    report = audit(
        tmp_path,
        row,
        {**row, "id": "2", "query": "other words", "video_start": 0.0, "video_end": 30.0},
        videos=tmp_path,
        probe=fake_probe(),
    )
    first, second = next(iter(report.samples.values()))
    assert (first.video_start, first.video_end) == (None, None)
    assert (second.video_start, second.video_end) == (0.0, 30.0)
    assert report.findings == {"duration_mismatch": 1}


def test_published_test_rows_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text(
        json.dumps({**CLEAN, "windows": [[9.0, 31.0]]})
        + "\n"
        + json.dumps({**CLEAN, "id": "2", "query": "x y", "windows": [[3.0, 3.0]]})
        + "\n"
    )
    report = audit_results([read_annotations(path)], as_published=[str(path)])
    assert report.findings == {"past_end": 1, "empty_window": 1}
    assert [sample.windows for sample in report.samples[str(path)]] == [[(9.0, 31.0)], [(3.0, 3.0)]]


def audit_samples(splits: dict[str, list[Sample]], **how: Any) -> AuditReport:
    results = []
    for split, samples in splits.items():
        numbers = list(range(1, len(samples) + 1))
        results.append(ReadResult(split, "timer1", list(samples), [], len(samples), numbers, numbers))
    return audit_results(results, **how)


def test_notes_become_repairs(tmp_path: Path) -> None:
    (tmp_path / "notes.jsonl").write_text(
        '{"id": "1", "label": "wrong label", "text": "late", "window": [4.5, 8]}\n{"id": "2", "label": "wrong_label", "text": ""}\n'
        '{"id": "3", "label": "ambiguous", "text": "twice"}\n{"id": "4", "label": "note", "text": "nice"}\n{"id": "9", "label": "ambiguous", "text": ""}\n{"torn'
    )
    notes = read_notes(tmp_path / "notes.jsonl")
    assert notes[0] == Note("1", "wrong_label", "late", (4.5, 8.0))
    samples = [
        Sample(str(i), "v.mp4", f"query {word}", 30.0, [(1.0, 5.0)]) for i, word in enumerate(["a b", "c d", "e f", "g h"], 1)
    ]
    report = audit_samples({"train": samples}, notes=notes)
    assert report.findings["wrong_label"] == 2
    assert [(s.id, s.windows) for s in report.samples["train"]] == [("1", [(4.5, 8.0)]), ("4", [(1.0, 5.0)])]
    assert report.unknown_notes == ["9"]
    kept = audit_samples({"train": samples}, notes=notes, treatments={"wrong_label": "keep", "ambiguous": "keep"})
    assert kept.rows["kept"] == 4


_TIME = st.one_of(st.floats(-50, 50), st.sampled_from([0.0, 30.0, float("nan"), float("inf")]))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(_TIME, _TIME), min_size=1, max_size=3),
            st.sampled_from([None, 30.0, 0.0, float("nan")]),
            st.text(max_size=6),
        ),
        max_size=6,
    )
)
def test_after_repairs_every_window_lies_in_its_video(rows: list[Any]) -> None:
    samples = [Sample(str(i), "v.mp4", query, duration, list(windows)) for i, (windows, duration, query) in enumerate(rows)]
    report = audit_samples({"train": samples})
    assert report.rows["in"] == len(rows) == report.rows["kept"] + report.rows["repaired"] + report.rows["dropped"]
    for sample in report.samples["train"]:
        for start, end in sample.windows:
            assert 0 <= start < end
            assert end <= (sample.duration or 60.0) + 1e-3
    again = audit_samples({"train": report.samples["train"]})
    # Rows are compared as published, so two that only their repairs made alike are found by the next audit.
    assert again.rows["repaired"] == 0
    assert set(again.to_json()["dropped_by"]) <= {"duplicate"}


def film(path: Path, seed: int, size: int, quality: int, seconds: int = 6) -> None:
    """Coarse random shapes that drift, at 8 frames a second; the seed is what is shown."""
    scene = np.random.default_rng(seed).integers(0, 256, (9, 40, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": str(quality)})
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for i in range(seconds * 8):
            view = scene[:, i // 3 : i // 3 + 9]
            pixels = np.ascontiguousarray(view.repeat(size // 9, 0).repeat(size // 9, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def test_one_film_encoded_twice_is_leakage_and_another_film_is_not(tmp_path: Path) -> None:
    film(tmp_path / "AAAAA.mp4", 1, 144, 18)
    film(tmp_path / "BBBBB.mkv", 1, 108, 34)
    film(tmp_path / "CCCCC.mp4", 2, 144, 18)
    common = {**CLEAN, "duration": 6.0, "windows": [[1.0, 3.0]]}
    rows = [
        {**common, "video": "AAAAA.mp4", "split": "train"}, {**common, "id": "2", "video": "BBBBB.mkv", "split": "test"},
        {**common, "id": "3", "video": "CCCCC.mp4", "split": "test"},
    ]  # fmt: skip
    report = audit(tmp_path, *rows, videos=tmp_path)
    assert [(f.code, f.id) for f in report.details] == [("leakage", "1")]
    assert "BBBBB" in report.details[0].message
    bytes_only = audit(tmp_path, *rows, videos=tmp_path, limits=Limits(compare_pictures=False))
    assert bytes_only.findings == {}


DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the published files (../shared/data) are not on this machine")


@real
def test_the_flaws_of_the_released_files() -> None:
    names = ("timerft_train_2k5.json", "tvgbench.json", "charades_sta_test.json")
    timerft, tvgbench, charades = paths = [str(DATA / "annotations" / name) for name in names]
    report = audit_files(paths, treatments={"leakage": "keep"})
    counts = Counter((finding.file, finding.code) for finding in report.details)
    rows = {entry["file"]: [entry[key] for key in ("in", "kept", "repaired", "dropped")] for entry in report.files}
    assert counts[timerft, "past_end"] == 34
    assert any(f.file == timerft and "14220" in f.message for f in report.details)
    assert rows[timerft] == [2500, 2466, 34, 0]
    codes = ("past_end", "empty_window", "missing_field", "conflicting_windows")
    assert [counts[tvgbench, code] for code in codes] == [27, 11, 168, 1]
    assert rows[tvgbench] == [800, 762, 27, 11]
    assert counts[charades, "past_end"] == 562
    # The two files of Time-R1 share no video; TVGBench takes videos of Charades-STA's test.
    leaks = [f.message for f in report.details if f.code == "leakage"]
    assert len(leaks) > 100
    assert not any("timerft" in message for message in leaks)
    activitynet = audit_files([DATA / "annotations" / "activitynet_captions_val2.json"])
    assert activitynet.findings["past_end"] == 1
    assert activitynet.rows["in"] == 17031


@real
def test_real_video_files_and_a_renamed_copy(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    shutil.copytree(DATA / "videos", videos)
    shutil.copy(videos / "OHOFG.mp4", videos / "RENAMED.mp4")
    (videos / "CUT.mp4").write_bytes((videos / "OHOFG.mp4").read_bytes()[:200_000])
    rows = [
        {**CLEAN, "split": "train", "duration": 35.04}, {**CLEAN, "id": "2", "video": "RENAMED.mp4", "split": "test", "duration": 35.04},
        {**CLEAN, "id": "3", "video": "CUT.mp4", "split": "test"}, {**CLEAN, "id": "4", "video": "av1_video.mkv", "split": "test", "duration": 60.0},
    ]  # fmt: skip
    report = audit(tmp_path, *rows, videos=videos)
    codes = {(f.id, f.code) for f in report.details}
    assert {("1", "leakage"), ("3", "undecodable"), ("4", "duration_mismatch")} <= codes


def many_videos(folder: Path, count: int) -> Path:
    """A file of annotations with a small video for each row; every fifth is a copy of another split's, encoded again."""
    from fractions import Fraction

    from make_videos import write_video

    rows = []
    for i in range(count):
        copied = i % 5 == 4
        steps = range(0, 1000 + 40 * (i - copied), 40)
        write_video(folder / f"{i}.mp4", steps, Fraction(1, 1000), gop=6 if copied else 12, size=(32, 256))
        rows.append({**CLEAN, "id": str(i), "video": f"{i}.mp4", "query": f"thing {i} moves", "windows": [[0.1, 0.5]]})
        rows[-1] |= {"duration": None, "split": "test" if copied else "train"}
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rows.jsonl"


def test_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    from timer1lib.clock import Sampling
    from timer1lib.inference.clock_report import max_clock_error
    from timer1lib.video import decoders

    monkeypatch.setattr(decoders, "FEW", 4)
    path = many_videos(tmp_path, 10)
    (tmp_path / "3.mp4").write_bytes((tmp_path / "3.mp4").read_bytes()[:700])
    one, two = (audit_files([path], videos=tmp_path, workers=workers).to_json() for workers in (0, 2))
    assert one == two
    assert one["findings"]["undecodable"] == 1
    assert "videos checked: 10/10" in capfd.readouterr().err
    samples = [Sample(str(i), f"{i}.mp4", "q", 1.0) for i in range(10)]
    asked = (samples, tmp_path, Sampling("frames", frames=4, factor=28), "assets/tiny-qwen3-vl")
    clocks = [max_clock_error(*asked, workers=workers) for workers in (0, 2)]
    assert clocks[0] == clocks[1]
    assert set(clocks[0]["failed"]) == {"3"}
    assert sum(clocks[0]["decoders"].values()) == 9


def test_a_decoder_that_hangs_is_ended_named_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from timer1lib.video import decoders

    path = many_videos(tmp_path, 5)
    (tmp_path / "sitecustomize.py").write_text(
        "import time\nfrom timer1lib.video import probe\nreal = probe._timeline\n"
        "probe._timeline = lambda path, *rest: time.sleep(1e6) if path.endswith('2.mp4') else real(path, *rest)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(decoders, "FEW", 1)
    monkeypatch.setattr(decoders, "PATIENCE_S", 3.0)
    report = audit_files([path], videos=tmp_path, workers=2)
    assert [(f.id, f.code) for f in report.details if f.code == "undecodable"] == [("2", "undecodable")]
    assert "2.mp4: its decoder gave no answer in 3 s" in next(f.message for f in report.details if f.code == "undecodable")
    assert report.dropped_by == {"undecodable": 1, "leakage": 1}  # the others were looked at, pictures and all


def test_where_deep_keeps_its_verdicts_can_be_said(tmp_path: Path) -> None:
    import subprocess
    import sys

    path = many_videos(tmp_path, 1)
    cache = tmp_path / "mine"
    command = [sys.executable, "-m", "timer1lib.cli", "audit", str(path), "--videos", str(tmp_path), "--deep", "--workers", "1"]
    done = subprocess.run([*command, "--cache", str(cache)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((cache / "checked").glob("*/*.entry"))) == 1
