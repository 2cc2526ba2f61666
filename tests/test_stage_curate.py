"""01 as a notebook runs it, on annotation files and on a stand-in for the world."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from timer1lib.data.readers import ReadResult
from timer1lib.errors import Timer1Error
from timer1lib.files import project_root, read_json, read_jsonl
from timer1lib.params.load import validated
from timer1lib.params.sections import CurateParams, SharedParams
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Sample
from timer1lib.stages import Stage, curate, evaluate, open_stage


def film(path: Path, seconds: float, shade: int) -> None:
    """A small mp4 at 8 frames a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 56
        stream.pix_fmt = "yuv420p"
        for i in range(round(seconds * 8)):
            pixels = np.full((56, 56, 3), (shade + i) % 256, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def stage(folder: Path, **params: Any) -> Stage[CurateParams]:
    model = str(project_root() / "assets" / "tiny-qwen3-vl")
    shared = SharedParams(cache_dir=str(folder / "cache"), model=model, frames=8, workers=0)
    return Stage("curate", RunFolder(folder / "run"), shared, validated(CurateParams, params, "params.yaml"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for i in range(4):
        film(folder / "videos" / f"AAAA{i}.mp4", 10.0, 30 * i)
    row = {"query": "the door opens", "duration": 10.0, "windows": [[2.0, 5.0]]}
    train = [
        {**row, "id": "a", "video": "AAAA0"},
        {**row, "id": "b", "video": "AAAA1", "windows": [[6.0, 14.0]]},
        {**row, "id": "c", "video": "AAAA2"},
        {**row, "id": "d", "video": "GONE0"},
        {**row, "id": "e", "video": "AAAA0", "query": ""},
    ]
    test = [{**row, "id": "t1", "video": "AAAA2", "windows": [[2.0, 11.0]]}, {**row, "id": "t2", "video": "AAAA3"}]
    for name, rows in (("train", train), ("bench", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def files(data: Path, **change: Any) -> dict[str, Any]:
    paths = {
        "train_files": str(data / "train.jsonl"),
        "test_files": f"charades={data / 'bench.jsonl'}",
        "videos": str(data / "videos"),
    }
    return {"source": "files", **paths, "cold_start_times": "exact", **change}


def test_files_are_audited_repaired_and_written(tmp_path: Path, data: Path) -> None:
    opened = stage(tmp_path, **files(data))
    sources = curate.gather(opened)
    report = curate.audit(opened, sources)
    assert report.rows == {"in": 7, "kept": 3, "repaired": 1, "dropped": 3}
    splits = curate.write_splits(opened, sources, report)
    run = opened.run
    assert [(s.id, s.video, s.windows) for s in run.read_samples("train")] == [
        ("a", "AAAA0.mp4", [(2.0, 5.0)]), ("b", "AAAA1.mp4", [(6.0, 10.0)]),
    ]  # fmt: skip
    assert [s.windows for s in run.read_samples("charades")] == [[(2.0, 11.0)], [(2.0, 5.0)]]
    assert run.splits() == {"train": {"kind": "grounding", "n": 2}, "charades": {"kind": "grounding", "n": 2}}
    assert all(run.video(s).is_file() for rows in splits.values() for s in rows)
    audit = read_json(run.data("audit.json"))
    assert audit["rows"] == report.rows
    assert audit["dropped_by"] == {"leakage": 1, "missing_video": 1, "bad_query": 1}
    quality = curate.quality(opened, splits)
    assert quality["charades"]["bias"]["n"] == 2
    assert read_json(run.data("quality.json")) == quality
    told = curate.cold_start(opened, splits["train"])
    assert told["rows"] == 2
    rows = list(read_jsonl(run.data("cold_start")))
    assert rows[1]["completion"] == "<think>seen from 6.0 to 10.0</think><answer>6.0 to 10.0</answer>"


def test_a_part_of_what_is_trained_on_can_be_asked_about_too(tmp_path: Path, data: Path) -> None:
    opened = stage(tmp_path, **files(data, seen_videos=1))
    sources = curate.gather(opened)
    splits = curate.write_splits(opened, sources, curate.audit(opened, sources))
    assert list(splits) == ["train", "charades"]
    assert [s.id for s in opened.run.read_samples("seen")] == ["a"]
    assert [s.id for s in opened.run.read_samples("train")] == ["a", "b"], "it is taken from nothing"
    assert opened.run.splits()["seen"] == {"kind": "grounding", "n": 1}
    assert list(evaluate.splits(open_stage("evaluate", {"run_dir": str(opened.run.root)}))) == ["charades", "seen"]
    clash = stage(tmp_path / "b", **files(data, seen_videos=1, test_files=f"seen={data / 'bench.jsonl'}"))
    sources = curate.gather(clash)
    with pytest.raises(Timer1Error, match="a test set has that name"):
        curate.write_splits(clash, sources, curate.audit(clash, sources))


def test_a_run_that_only_tests_has_no_training_pool(tmp_path: Path, data: Path) -> None:
    opened = stage(tmp_path, **files(data, train_files="none", cold_start="template"))
    sources = curate.gather(opened)
    splits = curate.write_splits(opened, sources, curate.audit(opened, sources))
    assert list(splits) == ["charades"]
    assert [s.id for s in splits["charades"]] == ["t1", "t2"]
    assert curate.quality(opened, splits)["charades"]["n"] == 2
    assert curate.cold_start(opened, splits.get("train", []))["rows"] == 0


def test_test_sets_can_be_repaired_too(tmp_path: Path, data: Path) -> None:
    opened = stage(tmp_path, **files(data, repair_test=True, on_leakage="keep"))
    sources = curate.gather(opened)
    splits = curate.write_splits(opened, sources, curate.audit(opened, sources))
    assert [s.windows for s in splits["charades"]] == [[(2.0, 10.0)], [(2.0, 5.0)]]
    assert [s.id for s in splits["train"]] == ["a", "b", "c"]


@pytest.mark.parametrize("treatment", ["drop", "keep"])
def test_rows_about_damaged_videos_are_left_out(tmp_path: Path, data: Path, treatment: str) -> None:
    """Training rows go; test rows stay as published, and their video gives an error in place of frames."""
    shutil.copytree(data / "videos", tmp_path / "videos")
    for name in ("AAAA1.mp4", "AAAA3.mp4"):
        path = tmp_path / "videos" / name
        with av.open(str(path)) as container:
            middle = [packet.pos for packet in container.demux(video=0) if packet.size][20]
        raw = bytearray(path.read_bytes())
        raw[middle : middle + 300] = bytes(300)
        path.write_bytes(raw)
    opened = stage(tmp_path, **files(data, videos=str(tmp_path / "videos"), on_damaged=treatment))
    sources = curate.gather(opened)
    report = curate.audit(opened, sources)
    assert report.findings["damaged"] == 2
    splits = curate.write_splits(opened, sources, report)
    assert [s.id for s in splits["train"]] == (["a"] if treatment == "drop" else ["a", "b"])
    assert [s.id for s in splits["charades"]] == ["t1", "t2"]
    assert opened.run.video(splits["charades"][0]).is_file()
    if treatment == "drop":
        with pytest.raises(Timer1Error, match=r"damaged video.*AAAA3"):
            opened.run.video(splits["charades"][1])
    else:
        assert opened.run.video(splits["charades"][1]).is_file()
    assert curate.clock(opened, splits)["decoders"] == {"decord": len({s.video for rows in splits.values() for s in rows})}
    shallow = stage(tmp_path / "b", **files(data, videos=str(tmp_path / "videos"), deep_check=False))
    assert "damaged" not in curate.audit(shallow, curate.gather(shallow)).findings


def test_notes_of_an_inspection_are_read_back(tmp_path: Path, data: Path) -> None:
    opened = stage(tmp_path, **files(data))
    opened.run.root.mkdir(parents=True)
    opened.run.notes.write_text(
        '{"id": "a", "label": "wrong_label", "text": "", "window": [3.0, 4.5]}\n{"id": "b", "label": "ambiguous", "text": "twice"}\n'
    )
    sources = curate.gather(opened)
    splits = curate.write_splits(opened, sources, curate.audit(opened, sources))
    assert [(s.id, s.windows) for s in splits["train"]] == [("a", [(3.0, 4.5)])]


@pytest.mark.parametrize("repair_test", [False, True])
def test_a_note_on_a_test_sample_changes_no_test_set_unless_asked(tmp_path: Path, repair_test: bool) -> None:
    """In the world too, whose test rows are otherwise treated like training rows."""
    opened = stage(tmp_path, repair_test=repair_test, source="world")
    opened.run.root.mkdir(parents=True)
    window = '"label": "wrong_label", "text": "see 7-9", "window": [3.0, 4.5]'
    opened.run.notes.write_text(
        f'{{"id": "a", {window}}}\n{{"id": "t", {window}}}\n{{"id": "u", "label": "ambiguous", "text": ""}}\n'
    )
    kept = {"train": ["a"], "test_id": ["t", "u"]}
    results = [
        ReadResult(name, "timer1", [Sample(i, f"{i}.mp4", f"a disc {i} appears", 10.0, [(1.0, 5.0)]) for i in ids], [], len(ids),
                   list(range(1, len(ids) + 1)), list(range(1, len(ids) + 1)))
        for name, ids in kept.items()
    ]  # fmt: skip
    report = curate.audit(opened, curate.Sources(results, {name: name for name in kept}, None))
    assert report.samples["train"][0].windows == [(3.0, 4.5)]
    given = [(s.id, s.windows) for s in report.samples["test_id"]]
    assert given == ([("t", [(3.0, 4.5)])] if repair_test else [("t", [(1.0, 5.0)]), ("u", [(1.0, 5.0)])])
    audit = read_json(opened.run.data("audit.json"))
    assert audit["rows"] == (
        {"in": 3, "kept": 0, "repaired": 2, "dropped": 1} if repair_test else {"in": 3, "kept": 2, "repaired": 1, "dropped": 0}
    )
    told = [row["message"] for row in audit["details"] if row["id"] in ("t", "u") and row["code"] in ("wrong_label", "ambiguous")]
    assert len(told) == 2
    assert all(("listed only" in message) is not repair_test for message in told)


def test_told_times_are_ones_the_model_was_told(tmp_path: Path, data: Path) -> None:
    opened = stage(tmp_path, **files(data, cold_start_times="told"))
    sources = curate.gather(opened)
    splits = curate.write_splits(opened, sources, curate.audit(opened, sources))
    curate.cold_start(opened, splits["train"])
    # 8 frames from 0 to the last one, 9.875 s; two a patch: 0.7, 3.5, 6.3, 9.2 s (frames nearest to the grid, 8 a second).
    step = 9.875 / 7
    grid = [round(round(k * step * 8) / 8, 3) for k in range(8)]
    patches = [(grid[i] + grid[i + 1]) / 2 for i in range(0, 8, 2)]
    inside = [t for t in patches if 2.0 - (patches[1] - patches[0]) / 4 <= t < 5.0 + (patches[1] - patches[0]) / 4]
    text = next(iter(read_jsonl(opened.run.data("cold_start"))))["completion"]
    told = [float(word) for word in text.split("<answer>")[1].removesuffix("</answer>").split(" to ")]
    assert told == pytest.approx([inside[0], inside[-1]], abs=0.06)
    clock = curate.clock(opened, splits)
    assert clock["samples"] == 4
    assert clock["max_error_s"] == pytest.approx(step / 2, abs=0.15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_files": ""}, "train_files"), ({"videos": "no/such"}, "no such folder"), ({"train_files": "no/such.json"}, "no such file"),
        ({"hub_test": "a/b"}, "id:split"), ({"format": "tvgbensch"}, "did you mean"), ({"videos": "", "check_videos": False}, "curate.videos"),
        ({"cold_start": "annotations"}, "cold_start_file"), ({"train_files": "{bench}", "on_leakage": "drop"}, "no row of split 'train'"),
    ],
)  # fmt: skip
def test_what_a_person_gets_wrong_is_named(tmp_path: Path, data: Path, change: dict[str, Any], message: str) -> None:
    change = {
        name: value.format(bench=data / "bench2.jsonl") if isinstance(value, str) else value for name, value in change.items()
    }
    (data / "bench2.jsonl").write_text((data / "bench.jsonl").read_text())

    def run_all() -> None:
        opened = stage(tmp_path, **files(data, **change))
        sources = curate.gather(opened)
        splits = curate.write_splits(opened, sources, curate.audit(opened, sources))
        curate.cold_start(opened, splits["train"])

    with pytest.raises(Timer1Error, match=message):
        run_all()


def test_the_world_is_built_once_for_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from timer1lib.world import splits as world

    asked = []

    def build(out_dir: Path, **settings: Any) -> dict[str, list[Sample]]:
        asked.append((out_dir, settings))
        film(Path(out_dir) / "train" / "1.mp4", 4.0, 0)
        film(Path(out_dir) / "test" / "1.mp4", 4.0, 90)
        return {
            "train": [Sample("1", "train/1.mp4", "a door opens", 4.0, [(1.0, 3.0)])],
            "test_id": [Sample("2", "test/1.mp4", "a door opens", 4.0, [(1.0, 3.0)])],
        }

    monkeypatch.setattr(world, "build_splits", build)
    first, second = stage(tmp_path / "x"), stage(tmp_path / "x", on_past_end="keep", train_videos=3, phrasings=12)
    others = [stage(tmp_path / "x", **change) for change in ({"world_seed": 1}, {"look_alikes": 0.5}, {"pairs": 9})]
    sources = curate.gather(first)
    report = curate.audit(first, sources)
    assert report.rows == {"in": 2, "kept": 2, "repaired": 0, "dropped": 0}
    assert set(curate.write_splits(first, sources, report)) == {"train", "test_id"}
    curate.gather(second)
    for other in others:
        curate.gather(other)
    assert asked[0][0] == asked[1][0]  # the same films, fewer of them, asked about in other words
    assert len({folder for folder, _ in asked}) == 4
    assert asked[0][1]["train_videos"] == 600
