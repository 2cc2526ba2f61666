"""Run All without the runner: a finished stage is shown, another one is refused, and what is made is what the runner makes."""

from __future__ import annotations

import contextlib
import json
import linecache
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from timer1lib.errors import Timer1Error
from timer1lib.params.cells import notebooks
from timer1lib.params.sections import SECTIONS, Params
from timer1lib.runs.graph import find_stage
from timer1lib.runs.keys import stage_parameters
from timer1lib.runs.runner import run
from timer1lib.stages import open_stage

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Params:
    """A run of seconds."""
    return Params.model_validate(
        {
            "shared": {"frames": 4, "workers": 0, "threads": 1, "cache_dir": str(tmp_path_factory.mktemp("cache"))},
            "curate": {
                "train_videos": 6, "test_videos": 1, "ood_videos": 1, "questions": 1, "cold_start_n": 4, "check_clock": False,
            },
            "sft": {"steps": 1, "batch_size": 2, "samples": 2},
            "difficulty": {"rule": "uniform", "n": 4, "low": 0.0, "rollouts": 0},
            "grpo": {
                "epochs": 1, "steps_per_epoch": 1, "prompts_per_step": 1, "num_generations": 2, "max_completion_length": 8,
                "log_rollouts_every": 1,
            },
            "evaluate": {"checkpoints": "grpo", "splits": "test_id", "max_new_tokens": 4, "perturb": "", "resamples": 100},
        }
    )  # fmt: skip


def run_all(root: Path, section: str, params: Params, **changes: Any) -> dict[str, Any]:
    """The cells of the real notebook one after the other, its parameters replaced, as a person's Run All does it."""
    path = ROOT / "notebooks" / f"{notebooks()[section]}.ipynb"
    names: dict[str, Any] = {"display": lambda *_: None, "__name__": "__main__"}
    with contextlib.chdir(ROOT):
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "code":
                source, place = "".join(cell["source"]), f"<{section}, {cell['id']}>"
                linecache.cache[place] = (len(source), None, source.splitlines(keepends=True), place)  # as IPython does
                exec(compile(source, place, "exec"), names)
                if "parameters" in cell["metadata"].get("tags", []):
                    given = stage_parameters(params, find_stage(section)) if section in SECTIONS else {}
                    names |= {"run_dir": str(root), **given, **changes}
    return names


def tree(root: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }


@pytest.fixture(scope="module")
def made(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """01 to 05 by hand."""
    root = tmp_path_factory.mktemp("run") / "by-hand"
    for section in list(SECTIONS)[:5]:
        names = run_all(root, section, params)
        assert names["stage"].finished
    return root


def test_the_runner_skips_what_was_made_by_hand(params: Params, made: Path) -> None:
    assert (made / "checkpoints" / "grpo" / "model.safetensors").is_file()
    assert not any((made / ".work").iterdir())
    result = run(params, until="05", out=made, report=False)
    assert [stage["how"] for stage in result.stages.values()] == ["unchanged"] * 5


def test_run_all_on_a_finished_stage_shows_it_and_writes_nothing(params: Params, made: Path) -> None:
    before = tree(made)
    for section in list(SECTIONS)[:5]:
        names = run_all(made, section, params)
        if section in ("sft", "grpo"):
            assert [row["step"] for row in names["log"]] == [1]
        if section == "evaluate":
            assert names["metrics"] == json.loads((made / "metrics.json").read_text())
        assert tree(made) == before, section


def test_an_idea_is_tried_beside_the_run_and_never_in_it(params: Params, made: Path) -> None:
    """08 on that run: both variants trained and compared, the same one not twice, and the run's bytes as they were."""
    run(params, until="05", out=made, report=False)  # writes params.yaml, and runs nothing
    before = tree(made)
    given: dict[str, Any] = {"steps": 1, "samples": 3, "split": "test_id", "seeds": "0, 1"}
    names = run_all(made, "idea", params, **given)
    assert tree(made) == before
    beside = made.with_name("by-hand_idea")
    assert sorted(json.loads((beside / "idea.json").read_text())) == ["default_s0", "default_s1", "edge_s0", "edge_s1"]
    logs = sorted(beside.glob("trainings/*/logs/grpo.jsonl"))
    assert len(logs) == 4
    order = [[row["id"] for row in map(json.loads, (log.parent / "rollouts.jsonl").read_text().splitlines())] for log in logs]
    assert order[0] == order[2]
    assert order[1] == order[3], "the same samples in the same order, whatever the reward"
    table = names["idea"].difference(names["trial"], "default", "edge")
    asked = len(names["trial"].samples)
    scores = [json.loads(line) for line in (beside / "predictions" / "edge_s0.test_id.jsonl").read_text().splitlines()]
    assert len(scores) == asked
    assert f"{asked} questions of test_id, 1 steps, 2 seeds" in table.title
    written = yaml.safe_load((beside / "edge.yaml").read_text())
    assert written["grpo"]["rewards"].endswith("ideas/edge.py:edge:1.0, format:1.0")
    assert Params.model_validate(written).shared.frames == params.shared.frames
    stood = {log: log.stat().st_mtime_ns for log in logs}
    run_all(made, "idea", params, **given)
    assert {log: log.stat().st_mtime_ns for log in sorted(beside.glob("trainings/*/logs/grpo.jsonl"))} == stood
    with pytest.raises(Timer1Error, match="variant 'other_s0' has not been trained"):
        names["idea"].difference(names["trial"], "default", "other")
    there = names["trial"].run.video_root
    there.rename(there.with_name("elsewhere"))
    with pytest.raises(Timer1Error, match="none of the run's videos is there; bring them back"):
        names["idea"].train(names["trial"], "late")
    there.with_name("elsewhere").rename(there)


def test_other_settings_are_refused_and_replace_with_overwrite(params: Params, made: Path) -> None:
    before = tree(made)
    with pytest.raises(
        Timer1Error, match=r"04_grpo is finished in .*: params \(beta\)\. Set overwrite = True .*run_dir"
    ) as caught:
        run_all(made, "grpo", params, beta=0.3)
    assert "\n" not in str(caught.value)
    assert tree(made) == before
    given = {**stage_parameters(params, find_stage("grpo")), "beta": 0.3}
    opened = open_stage("grpo", {"run_dir": str(made), **given, "overwrite": True})
    opened.run.log("grpo").parent.mkdir(parents=True)
    opened.run.log("grpo").write_text('{"epoch": 9}\n')  # and here its kernel ends
    assert {name: what for name, what in tree(made).items() if not name.startswith(".work")} == before
    run_all(made, "grpo", params, beta=0.3, overwrite=True)
    stamp = json.loads((made / "stages" / "04_grpo.json").read_text())
    assert stamp["parts"]["params"]["beta"] == 0.3
    # what was replaced is kept, and stands again for the runner of the old parameters
    result = run(params, until="05", out=made, report=False)
    assert [stage["how"] for stage in result.stages.values()] == ["unchanged"] * 3 + ["brought back", "unchanged"]
    after = tree(made)
    assert all(after[name] == what for name, what in before.items() if name.startswith(("checkpoints", "logs", "data")))


def test_one_writer_a_folder_notebooks_included(params: Params, tmp_path: Path) -> None:
    given = json.dumps({"run_dir": str(tmp_path / "r"), **stage_parameters(params, find_stage("curate"))})
    code = "import json, sys; from timer1lib.stages import open_stage\n"
    code += "open_stage('curate', json.loads(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", code, given], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    named = rf"another timer1 \(process {holder.pid}, notebook 01_curate\) works in this folder"
    try:
        with pytest.raises(Timer1Error, match=named):
            open_stage("sft", {"run_dir": str(tmp_path / "r")})
        with pytest.raises(Timer1Error, match=named):
            run(params, until="01", out=tmp_path / "r", report=False)
    finally:
        holder.kill()
        holder.wait()
    assert os.listdir(tmp_path / "r" / ".work")
    assert not open_stage("curate", json.loads(given)).finished


def test_a_folder_of_something_else_is_left_alone(params: Params, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(Timer1Error, match="holds 'data' and no run of timer1's"):
        open_stage("curate", {"run_dir": str(tmp_path), **stage_parameters(params, find_stage("curate"))})
    assert tree(tmp_path) == before
    assert not (tmp_path / ".runner.lock").exists()
