"""Sweeps on stub notebooks: reading, sharing, failing rows, going on."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from stub_project import BODIES, make_project

from timer1lib.errors import Timer1Error
from timer1lib.evaluation.pooled import means_table
from timer1lib.files import atomic_write_json
from timer1lib.params.sections import Params
from timer1lib.runs import sweep as sweep_module
from timer1lib.runs.forecast import Forecast
from timer1lib.runs.graph import STAGES, find_stage
from timer1lib.runs.runner import Planned, Project, run
from timer1lib.runs.stamps import Store
from timer1lib.runs.sweep import sweep
from timer1lib.runs.sweepfile import read_sweep, variant_pairs

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = sorted((ROOT / "params" / "sweeps").glob("*.yaml"))


def write_sweep(folder: Path, **tree: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.yaml").write_text("name: base\nshared: {frames: 8}\n")
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"name": "s", "base": "base.yaml", **tree}))
    return path


def test_rows_times_grid_times_seeds(tmp_path: Path) -> None:
    rows = [{"name": "a", "set": {"shared.frames": 4}}, {"name": "b"}]
    path = write_sweep(tmp_path, rows=rows, grid={"shared.fps": [1.0, 2.0]}, set={"shared.workers": 0})
    _, found = read_sweep(path, ["shared.cache_gb=1.5"], seeds=[3, 4])
    assert [row.name for row in found] == [f"{v}.fps={f}.s{s}" for v in "ab" for f in ("1.0", "2.0") for s in (3, 4)]
    assert [row.params.shared.frames for row in found] == [4] * 4 + [8] * 4
    assert [row.params.shared.fps for row in found] == [1.0, 1.0, 2.0, 2.0] * 2
    assert [row.params.shared.seed for row in found] == [3, 4] * 4
    assert {row.params.shared.workers for row in found} == {0}
    assert {row.params.shared.cache_gb for row in found} == {1.5}


@pytest.mark.parametrize(
    "text", ["name: s\nseeds: [" + "9" * 5000 + "]", "name: s\nset: " + "[" * 5000, "name: s\nset: {a: 2024-13-45}"]
)
def test_a_sweep_file_that_cannot_be_read_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(Timer1Error) as caught:
        read_sweep(tmp_path / "s.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_row_may_stand_at_some_points_of_the_grid_alone(tmp_path: Path) -> None:
    grid = {"curate.train_videos": [15, 600], "curate.phrasings": [2, 12]}
    corners = [{"curate.train_videos": size, "curate.phrasings": wording} for size, wording in ((15, 2), (600, 12))]
    rows = [{"name": "rl"}, {"name": "alone", "set": {"sft.enabled": False}, "at": corners}]
    _, made = read_sweep(write_sweep(tmp_path, rows=rows, grid=grid, seeds=[0, 1]))
    points = [(row.way, row.at["curate.train_videos"], row.at["curate.phrasings"], row.seed) for row in made]
    everywhere = [("rl", size, wording, seed) for wording in (2, 12) for size in (15, 600) for seed in (0, 1)]
    assert points == everywhere + [("alone", size, wording, seed) for size, wording in ((15, 2), (600, 12)) for seed in (0, 1)]
    assert made[-1].name == "alone.phrasings=12.train_videos=600.s1"
    assert (made[-1].params.curate.train_videos, made[-1].params.curate.phrasings) == (600, 12)
    pairs = [["rl/base", "rl"], ["rl", "alone/base"]]
    spec, made = read_sweep(write_sweep(tmp_path, rows=rows, grid=grid, pairs=pairs))
    names = [f"rl.phrasings={wording}.train_videos={size}" for wording in (2, 12) for size in (15, 600)]
    both = [(name, name.replace("rl", "alone") + "/base") for name in (names[0], names[3])]
    found = variant_pairs(spec.pairs, made)
    assert found == [(f"{name}/base", name) for name in names] + both, "named at every point where both stand"
    rows[1]["at"] = [{"curate.train_videos": 15}]
    with pytest.raises(Timer1Error, match=r"row 'alone': at .*train_videos.* is no point of the grid"):
        read_sweep(write_sweep(tmp_path, rows=rows, grid=grid))


def test_a_sweep_says_first_how_long_it_will_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = counting_project(tmp_path / "p")
    rows = [{"name": "a"}, {"name": "b", "set": {"sft.steps": 7}}]

    monkeypatch.setattr(sweep_module, "_LOG_EVERY_SECONDS", 0.0)
    said: list[str] = []

    def first_line(**tree: object) -> str:
        stream = io.StringIO()
        sweep(write_sweep(tmp_path, until="02", **tree), out=tmp_path / "out", project=project, stream=stream, jobs=1)
        said[:] = stream.getvalue().splitlines()
        return said[0]

    assert first_line(rows=rows[:1]) == "1 rows, 1 to run; none has finished yet that would tell how long they take"
    assert first_line(rows=rows[:1], minutes=30) == "1 rows, all of them finished"
    for stage, seconds in (("01_curate", 3600), ("02_sft", 7200)):
        path = tmp_path / "out" / "a" / "stages" / f"{stage}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": seconds}))
    # b shares a's 01 and needs a 02 of its own; c needs both
    rows.append({"name": "c", "set": {"shared.frames": 9}})
    told = "3 rows, 2 to run: about 5.0 hours with 1 at a time, by what finished stages took"
    assert first_line(rows=rows, minutes=30) == told
    shown = [line for line in said if " elapsed, " in line]
    assert re.match(r"0/3 rows, 0:0\d elapsed, about (5:00:00|4:59:5\d) left \| ", shown[0]), shown[0]
    (tmp_path / "out" / "a" / "stages" / "02_sft.json").unlink()
    shutil.rmtree(tmp_path / "out" / "b")
    shutil.rmtree(tmp_path / "out" / "c")
    assert first_line(rows=rows, minutes=30).endswith("3 to run: about 1.5 hours with 1 at a time, at 30 minutes a row")


def test_what_is_left_of_a_sweep_by_hand(tmp_path: Path) -> None:
    """Three rows up to 02, which share 01 but for the last; a's 01 took 10 s in the plan."""
    rows = [{"name": "a"}, {"name": "b", "set": {"sft.steps": 7}}, {"name": "c", "set": {"shared.frames": 9}}]
    _, made = read_sweep(write_sweep(tmp_path, rows=rows))
    names = [STAGES[0].notebook, STAGES[1].notebook]
    plans = [[Planned(name, "new", None) for name in names] for _ in made]
    assert Forecast(made, plans, None).work([0]) is None
    assert Forecast(made, plans, 2).work([0, 1, 2]) == 360
    plans[0][0] = Planned(names[0], "", 10.0)
    found = Forecast(made, plans, None)
    assert found.work([0, 1, 2]) is None, "nobody knows what 02 takes"
    found.ended(0, {names[0]: {"how": "unchanged", "seconds": 0.0}, names[1]: {"how": "ran", "seconds": 50.0}})
    assert found.work([0]) == 0
    assert found.work([1]) == 50
    assert found.work([2]) == 60
    assert found.work([1, 2]) == 110
    assert found.work([2], slice(0, 1)) == 10
    found.ended(2, {names[0]: {"how": "ran", "seconds": 30.0}})
    assert found.work([2]) == 50
    found.ended(1, {names[0]: {"how": "reused", "seconds": 0.1}, names[1]: {"how": "ran", "seconds": 70.0}})
    assert found.work([1, 2]) == 60  # what 02 took, 50 and 70, on average


def test_a_seed_that_a_row_sets_is_its_seed(tmp_path: Path) -> None:
    _, found = read_sweep(write_sweep(tmp_path, grid={"shared.seed": [3, 5]}))
    assert [(row.seed, row.params.shared.seed) for row in found] == [(3, 3), (5, 5)]


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (
            {"rows": [{"name": "x", "set": {"shared.framse": 4}}]},
            ["row 'x'", "unknown parameter 'shared.framse'", "did you mean 'shared.frames'"],
        ),
        ({"rows": [{"name": "x", "set": {"shared.frames": 1}}]}, ["row 'x'", "shared.frames"]),
        ({"rows": [{"name": "x"}, {"name": "x"}]}, ["two rows are named 'x'"]),
        ({"row": []}, ["unknown parameter 'row'", "did you mean 'rows'"]),
        ({"base": "nowhere.yaml"}, ["nowhere.yaml", "no such params file"]),
        ({"rows": [{"name": "../x"}]}, ["rows.0.name"]),
        ({"rows": []}, ["rows is empty"]),
        ({"grid": {"shared.frames": []}}, ["grid 'shared.frames' has no value"]),
        ({"set": {"grpo.bogus": 1}}, ["unknown parameter 'grpo.bogus'"]),
        ({"set": {"bogus": 1}}, ["unknown parameter 'bogus'"]),
        ({"set": {"grpo": {"beta": 0.1}}}, ["row 'all'", "'grpo' is a section", "grpo.KEY"]),
        ({"set": {"name.x": 1}}, ["row 'all'", "'name' is not a section"]),
        ({"set": {"name": "x"}}, ["name cannot be set"]),
        ({"set": {"shared.seed": 1}, "seeds": [1, 2]}, ["shared.seed cannot be set"]),
        ({"rows": [{"name": "x", "st": {}}]}, ["unknown parameter 'rows.0.st'"]),
        ({"seeds": [2**32]}, ["shared.seed", "4294967295"]),
        ({"seeds": [-1]}, ["shared.seed"]),
        ({"name": ""}, ["name"]),
        ({"set": {"shared.model": "assets/gone"}}, ["shared.model", "config.json"]),
        ({"set": {"grpo.rewards": "speed"}}, ["grpo.rewards", "unknown reward 'speed'"]),
    ],
)
def test_mistakes_are_found_before_anything_runs(tmp_path: Path, tree: dict[str, object], words: list[str]) -> None:
    with pytest.raises(Timer1Error) as caught:
        sweep(write_sweep(tmp_path, **tree), out=tmp_path / "out")
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "out").exists()


def counting_project(root: Path) -> Project:
    """A project whose stages leave a mark outside the run whenever they execute."""
    mark = f"open({str(root / 'marks.txt')!r}, 'a').write"
    bodies = {name: f"{body}\n{mark}('{name}\\n')" for name, body in BODIES.items()}
    bodies["sft"] += "\nif frames == 5: raise ValueError('five frames')"
    return make_project(root, bodies)


def test_shared_stages_run_once_and_a_failed_row_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = counting_project(tmp_path / "p")
    # Rows a and b are the same but for their name; c fails in 02.
    rows = [{"name": "a"}, {"name": "c", "set": {"shared.frames": 5}}, {"name": "b"}]
    path = write_sweep(tmp_path, rows=rows, until="02")
    stream, noted = io.StringIO(), []

    def note(path: Path, value: dict[str, Any]) -> None:
        if "unfinished" in value:
            noted.append((sorted((row["name"] for row in value["rows"]), key="acb".index), value["unfinished"]))
        atomic_write_json(path, value)

    monkeypatch.setattr(sweep_module, "atomic_write_json", note)
    result = sweep(path, out=tmp_path / "out", project=project, stream=stream, jobs=1)
    assert [row["error"] is None for row in result.rows] == [True, False, True]
    assert "02_sft, cell 3: ValueError: five frames" in result.rows[1]["error"]
    assert result.failed[0]["name"] == "c"
    assert "failed  c: 02_sft" in result.text()
    marks = (project.root / "marks.txt").read_text().split()
    assert marks.count("curate") == 2, "01 runs for a, is shared with b, and runs for c, whose frames differ"
    assert {name: stage["how"] for name, stage in result.rows[2]["stages"].items()} == {"01_curate": "reused", "02_sft": "reused"}
    for row in "ab":
        assert (tmp_path / "out" / row / "checkpoints" / "sft" / "model.bin").read_text() == "sft of seed 0\n"
    written = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert written["rows"][1]["error"]
    assert noted == [(["a"], 2), (["a", "c"], 1), (["a", "c", "b"], 0)], "what has ended can be read while the rest runs"
    assert "unfinished" not in written
    assert [row["run"] for row in written["rows"]] == ["a", "c", "b"], "a moved sweep names its rows rightly"
    # Again: nothing that finished runs again, and the failed row is tried again.
    again = sweep(path, out=tmp_path / "out", project=project, stream=io.StringIO(), jobs=3)
    assert (project.root / "marks.txt").read_text().split() == marks + ["sft"]
    assert [row["stages"].get("01_curate", {}).get("how") for row in (again.rows[0], again.rows[2])] == ["unchanged"] * 2


def test_a_folder_that_is_no_sweep_is_left_alone(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, rows=[{"name": "a"}], until="02")
    for mine in (tmp_path / "mine", tmp_path / "rows" / "a"):
        mine.mkdir(parents=True)
        (mine / "thesis.txt").write_text("mine")
        out = tmp_path / mine.relative_to(tmp_path).parts[0]
        with pytest.raises(Timer1Error, match=r"holds '(thesis.txt|a)' and no run of timer1's"):
            sweep(path, out=out, project=make_project(tmp_path / f"p{mine.name}"), stream=io.StringIO())
        assert [found.name for found in mine.iterdir()] == ["thesis.txt"]


def test_a_damaged_entry_of_the_store_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_runs_runner import in_process

    monkeypatch.setattr("timer1lib.runs.runner.execute", in_process)
    project, store = make_project(tmp_path / "p"), Store(tmp_path / "store")
    first = run(Params(), project=project, store=store, out=tmp_path / "a", until="02", report=False)
    key = first.stages["02_sft"]["key"]
    entry = store.find(find_stage("sft"), key)
    assert entry is not None
    (entry.root / "checkpoints" / "sft" / "model.bin").write_text("damaged")
    assert store.find(find_stage("sft"), key) is None
    second = run(Params(), project=project, store=store, out=tmp_path / "b", until="02", report=False)
    assert [stage["how"] for stage in second.stages.values()] == ["reused", "ran"]
    assert (tmp_path / "a" / "checkpoints" / "sft" / "model.bin").read_text() == "sft of seed 0\n"


def test_means_over_seeds(tmp_path: Path) -> None:
    rows = []
    for seed, value in enumerate((50.0, 54.0)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / "metrics.json").write_text(json.dumps({"splits": {"test_id": {"base": {"mIoU": 1.0}, "sft": {"mIoU": value}}}}))
        rows.append({"variant": "v", "run": str(folder), "error": None})
    rows.append({"variant": "w", "run": str(tmp_path / "none"), "error": "failed"})
    # Mean 52, sample standard deviation sqrt((2^2 + 2^2) / 1) = 2.83; the last checkpoint is SFT's.
    assert str(means_table(rows)).splitlines()[-1].split() == ["test_id", "v", "sft", "52.0", "+-2.8"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_sweeps_are_valid(path: Path) -> None:
    spec, rows = read_sweep(path)
    assert spec.name == path.stem
    assert spec.about
    assert len(rows) >= 2
    parameters = [row.params.model_dump(exclude={"name"}) for row in rows]
    assert all(a != b for i, a in enumerate(parameters) for b in parameters[:i]), "two rows are the same run"
