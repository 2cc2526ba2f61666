"""What leaves finished stages standing: another place, another speed, another metric, figure, column or reader."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stub_project import make_project
from test_runs_runner import how, in_process

from timer1lib.files import read_json
from timer1lib.params import CANNOT_CHANGE_RESULTS, SHARED_READ
from timer1lib.params.sections import SECTIONS, Params, SharedParams
from timer1lib.runfolder import RunFolder
from timer1lib.runs.closure import closure
from timer1lib.runs.display import Display
from timer1lib.runs.graph import find_stage
from timer1lib.runs.keys import folder_hash, input_files, key_parts, stage_key
from timer1lib.runs.runner import Project, RunResult, run

ROOT = Path(__file__).resolve().parent.parent
UNCHANGED = ["unchanged"] * 7


def finish(project: Project, params: Params | None = None, **options: Any) -> RunResult:
    display = Display(7, project.root / "beacon", io.StringIO())
    return run(params or Params(), project=project, report=False, display=display, **options)


def stubbed(
    source: Path, target: Path, failed: Path, parameters: dict[str, Any], cwd: Path, lock: Path, display: Display
) -> None:
    """Stands in for papermill under the real notebooks: each stage leaves one file, always the same."""
    left = {
        "01_curate": "data/train.jsonl",
        "02_sft": "checkpoints/sft/model.bin",
        "03_difficulty": "data/selected.jsonl",
        "04_grpo": "checkpoints/grpo/model.bin",
        "05_evaluate": "predictions/base.test.jsonl",
    }
    if source.stem in left:
        path = cwd / str(parameters["run_dir"]) / left[source.stem]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source.stem)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("{}")


def library(root: Path) -> Project:
    """A copy of this library and its notebooks."""
    kept = shutil.ignore_patterns("__pycache__", "*.failed.ipynb")
    for name in ("timer1lib", "notebooks"):
        shutil.copytree(ROOT / name, root / name, ignore=kept)
    return Project(root, root / "notebooks", root / "timer1lib")


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_a_metric_a_column_a_figure_and_a_reader_train_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timer1lib.runs.runner.execute", stubbed)
    project = library(tmp_path / "copy")
    package = project.package
    assert how(finish(project)) == ["ran"] * 7
    assert how(finish(project)) == UNCHANGED
    # metrics, tables and their columns, figures, the report: whatever stands in evaluation/ and view/
    more = [path for name in ("evaluation", "view") for path in sorted((package / name).rglob("*.py"))]
    assert len(more) > 5
    for path in more:
        append(path, "\n\ndef one_more(values: list[float]) -> float:\n    return max(values)\n")
    results = how(finish(project))
    assert results[:4] == ["unchanged"] * 4
    assert results[4:] == ["ran"] * 3
    (package / "data" / "readers" / "mine.py").write_text("MINE = {}\n")
    append(
        package / "data" / "readers" / "__init__.py", "\nfrom timer1lib.data.readers.mine import MINE\n\nFORMATS.update(MINE)\n"
    )
    assert how(finish(project)) == ["ran", *["unchanged"] * 6]
    # and it can fail: another learning rule of GRPO is GRPO's, and another prompt is everybody's
    append(package / "training" / "grpo.py", "\n\nNEW = 1\n")
    assert how(finish(project))[:4] == ["unchanged", "unchanged", "unchanged", "ran"]
    append(package / "models" / "inputs.py", "\n\nNEW = 1\n")
    assert how(finish(project))[1:5] == ["ran"] * 4


@pytest.mark.parametrize("stage", ["sft", "difficulty", "grpo"])
def test_what_trains_reaches_no_evaluation_and_no_view(stage: str) -> None:
    package = ROOT / "timer1lib"
    files = {path.relative_to(package).as_posix() for path in closure(package, f"stages.{stage}")}
    assert f"stages/{stage}.py" in files
    assert {name for name in files if name.startswith(("evaluation/", "view/", "runs/"))} == set()
    others = {"training/pretrain.py", "training/lessons.py", "training/estimate.py", "data/readers/__init__.py"}
    assert not files & others
    if stage != "grpo":
        assert {name for name in files if "grpo" in name} == set()


def test_places_and_speed_run_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timer1lib.runs.runner.execute", in_process)
    project = make_project(tmp_path / "p")
    assert how(finish(project)) == ["ran"] * 7
    faster = {"workers": 7, "cache_gb": 1.5, "cache_dir": str(tmp_path / "elsewhere"), "processes": 2, "parallel": "fsdp2"}
    assert {*faster, "report_to"} == CANNOT_CHANGE_RESULTS  # a tracker must be installed to be named
    assert how(finish(project, Params.model_validate({"shared": faster}))) == UNCHANGED
    # Threads and the device change the last bits of sums: all that computes with a model runs again, and only that.
    for change in ({"threads": 3}, {"device": "cpu"}):
        seen = how(finish(project, Params.model_validate({"shared": change})))
        assert seen == ["unchanged", "ran", "ran", "ran", "ran", "unchanged", "unchanged"]


def test_a_copied_run_and_a_moved_project_skip_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timer1lib.runs.runner.execute", in_process)
    project = make_project(tmp_path / "p")
    assert how(finish(project)) == ["ran"] * 7
    other = tmp_path / "far" / "away"
    shutil.copytree(project.root / "outputs" / "tiny", other, copy_function=shutil.copy)  # with new modification times
    assert how(finish(project, out=other)) == UNCHANGED
    shutil.copytree(project.root / "outputs" / "tiny", project.root / "outputs" / "second", copy_function=shutil.copy)
    assert how(finish(project, Params(name="second"))) == UNCHANGED
    moved = tmp_path / "moved"
    shutil.move(project.root, moved)
    assert how(finish(Project(moved, moved / "notebooks", moved / "timer1lib"))) == UNCHANGED
    for path in (moved / "outputs").rglob("*.json"):
        assert str(tmp_path) not in path.read_text(), path


SMALL = """
import json, sys
from pathlib import Path
from timer1lib.params.sections import Params
from timer1lib.runs.runner import run
from timer1lib.runfolder import RunFolder
here = Path.cwd()
shared = {"workers": 0, "frames": 4, "model": str(Path(sys.argv[1]) / "assets" / "tiny-qwen3-vl"), "cache_dir": sys.argv[2]}
curate = {"train_videos": 2, "test_videos": 1, "ood_videos": 0, "questions": 0, "check_clock": False}
done = run(Params.model_validate({"name": "small", "shared": shared, "curate": curate}), until="01")
folder = RunFolder(done.root)
videos = [str(folder.video(sample).resolve()) for sample in folder.read_samples("train")]
print(json.dumps({"how": [s["how"] for s in done.stages.values()], "videos": videos}))
"""


def small_run(root: Path, model_root: Path, cache: str = "outputs/.cache") -> dict[str, Any]:
    """01 with the real notebook in a kernel, in a process that knows only the project's own copy of the library."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", SMALL, str(model_root), cache]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    value: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return value


def test_a_world_that_was_moved_with_its_project_is_found_there(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    library(first)
    (first / "params").mkdir()
    before = small_run(first, ROOT)
    assert before["how"] == ["ran"]
    assert all(video.startswith(str(first.resolve())) for video in before["videos"])
    assert not Path(read_json(first / "outputs" / "small" / "data" / "videos.json")["root"]).is_absolute()
    shutil.move(first, second)
    # The model at another place is the same model.
    shutil.copytree(ROOT / "assets" / "tiny-qwen3-vl", second / "assets" / "tiny-qwen3-vl")
    after = small_run(second, second)
    assert after["how"] == ["unchanged"]
    assert [Path(video).relative_to(second.resolve()) for video in after["videos"]] == [
        Path(video).relative_to(first.resolve()) for video in before["videos"]
    ]
    assert all(Path(video).is_file() for video in after["videos"])
    # A cache that moved alone is found by the run's own parameters.
    shutil.move(second / "outputs" / ".cache", second / "cache")
    again = small_run(second, second, "cache")
    assert again["how"] == ["unchanged"]
    assert all(Path(video).is_file() and video.startswith(str(second.resolve() / "cache")) for video in again["videos"])


def test_the_folder_of_the_videos_is_kept_relative_or_as_it_was_named(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    inside, outside = project.root / "data" / "videos", tmp_path / "disk"
    inside.mkdir(parents=True)
    outside.mkdir()
    folder = RunFolder(project.root / "outputs" / "x")
    folder.set_video_root(inside)
    assert read_json(folder.data("videos.json")) == {"root": "data/videos"}
    assert folder.video_root == inside.resolve()
    folder.set_video_root(outside)
    assert folder.video_root == outside.resolve()
    outside.rename(tmp_path / "new disk")
    folder.params.write_text(f"curate: {{videos: '{tmp_path / 'new disk'}'}}\nshared: {{cache_dir: c}}\n")
    assert folder.video_root == tmp_path / "new disk"


def key(params: Params, name: str, tmp_path: Path) -> str:
    stage = find_stage(name)
    notebook = ROOT / "notebooks" / f"{stage.notebook}.ipynb"
    return stage_key(key_parts(params, stage, notebook, ROOT / "timer1lib", {}, tmp_path / "notes.jsonl"))


def test_a_file_at_another_place_gives_the_same_key(tmp_path: Path) -> None:
    def params(folder: Path) -> Params:
        files = f"{folder}/train.jsonl"
        section = {
            "source": "files",
            "train_files": files,
            "test_files": f"Mine={folder}/test.jsonl",
            "videos": str(folder / "videos"),
        }
        return Params.model_validate({"curate": section, "shared": {"model": str(folder / "model")}})

    first = tmp_path / "first"
    for name in ("videos/a.mp4", "model/config.json", "train.jsonl", "test.jsonl"):
        (first / name).parent.mkdir(parents=True, exist_ok=True)
        (first / name).write_text(name)
    shutil.copytree(first, tmp_path / "second", copy_function=shutil.copy)
    before = key(params(first), "curate", tmp_path)
    assert key(params(tmp_path / "second"), "curate", tmp_path) == before
    (tmp_path / "second" / "videos" / "a.mp4").write_text("videos/b.mp4")
    assert key(params(tmp_path / "second"), "curate", tmp_path) != before
    renamed = params(first).model_copy(
        update={"curate": params(first).curate.model_copy(update={"train_files": str(first / "test.jsonl")})}
    )
    assert key(renamed, "curate", tmp_path) != before


def test_a_stage_that_is_switched_off_depends_on_nothing_else(tmp_path: Path) -> None:
    off = {"enabled": False}
    one = Params.model_validate({"sft": off, "grpo": off})
    two = Params.model_validate(
        {"sft": {**off, "steps": 3}, "grpo": {**off, "beta": 0.5}, "difficulty": {"n": 3}, "shared": {"seed": 4}}
    )
    for name in ("sft", "grpo", "difficulty"):
        assert key(one, name, tmp_path) == key(two, name, tmp_path)
        assert key(one, name, tmp_path) != key(Params(), name, tmp_path)


def test_a_large_folder_is_known_by_names_sizes_and_ends_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timer1lib.runs.keys.CONTENT_LIMIT", 10)
    first, size = tmp_path / "first", 300_000

    def write(folder: Path, at: int | None, name: str = "a.mp4") -> str:
        folder.mkdir(exist_ok=True)
        content = bytearray(size)
        if at is not None:
            content[at] = 1
        (folder / name).write_bytes(content)
        return folder_hash(folder)

    plain = write(first, None)
    shutil.copytree(first, tmp_path / "copy", copy_function=shutil.copy)
    assert folder_hash(tmp_path / "copy") == plain
    assert write(tmp_path / "start", 10) != plain
    assert write(tmp_path / "end", size - 10) != plain
    assert write(tmp_path / "renamed", None, "b.mp4") != plain
    assert write(tmp_path / "middle", size // 2) == plain  # that is the price


def test_another_run_that_07_compares_with_is_known_by_what_it_holds(tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "predictions").mkdir(parents=True)
    (other / "metrics.json").write_text("{}")
    params = Params.model_validate({"compare": {"runs": str(other)}})
    before = key(params, "compare", tmp_path)
    (other / "stages").mkdir()
    (other / "stages" / "07_compare.json").write_text("{}")
    assert key(params, "compare", tmp_path) == before
    (other / "predictions" / "base.test.jsonl").write_text("{}\n")
    assert key(params, "compare", tmp_path) != before


def test_every_shared_parameter_is_read_and_a_stage_sees_its_own_alone(tmp_path: Path) -> None:
    from timer1lib.stages import open_stage

    assert set(SHARED_READ) == set(SECTIONS)
    assert frozenset().union(*SHARED_READ.values()) == set(SharedParams.model_fields)
    stage = open_stage("inspect", {"run_dir": str(tmp_path / "r"), "fps": 3.0})
    assert set(stage.shared.model_dump()) == SHARED_READ["inspect"]
    with pytest.raises(AttributeError, match="fps"):
        _ = stage.shared.fps


def test_comments_on_the_world_redraw_nothing(tmp_path: Path) -> None:
    from timer1lib.runs.closure import code_hash

    package = library(tmp_path / "copy").package
    before = code_hash(package, "world.splits", inside="world")
    for path in (package / "world").glob("*.py"):
        text = path.read_text()
        path.write_text("# drawn by hand\n" + re.sub(r'    """(?=[A-Z])', '    """In other words: ', text, count=1))
    append(package / "schema.py", "\n\nNEW = 1\n")
    assert code_hash(package, "world.splits", inside="world") == before
    append(package / "world" / "render.py", "\n\nNEW = 1\n")
    assert code_hash(package, "world.splits", inside="world") != before


def test_stamps_of_an_older_layout_read_as_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timer1lib.runs.runner.execute", in_process)
    project = make_project(tmp_path / "p")
    finish(project, until="03")
    stages = project.root / "outputs" / "tiny" / "stages"
    old = read_json(stages / "01_curate.json")
    old["parts"] = {"params": {"cache_dir": "outputs/.cache"}, "inputs": {"/old/place": "digest"}, "notebook": 3}
    (stages / "01_curate.json").write_text(json.dumps(old))
    (stages / "02_sft.json").write_text(json.dumps({**old, "parts": None}))
    (stages / "03_difficulty.json").write_text(json.dumps({"key": "k", "parts": "text", "outputs": {}}))
    assert how(finish(project, until="03")) == ["ran"] * 3


def test_inputs_are_said_by_name_and_content_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert input_files({"x": f"{tmp_path}/a.txt"}) == {"x": [f"a.txt sha256:{empty}"]}
