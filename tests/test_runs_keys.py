"""What a stage's key depends on, and what it does not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from timer1lib.params.sections import Params
from timer1lib.runfolder import owner
from timer1lib.runs.closure import closure, code_hash
from timer1lib.runs.graph import STAGES, find_stage, upstream
from timer1lib.runs.keys import changed_parts, input_files, notebook_hash


def package(root: Path, **files: str) -> Path:
    folder = root / "timer1lib"
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    return folder


def test_closure_follows_every_kind_of_import(tmp_path: Path) -> None:
    folder = package(
        tmp_path,
        stages__sft="import json\nfrom timer1lib.training import sft as train\ndef f():\n    import timer1lib.late\n",
        training__sft="from .common import x\nfrom timer1lib import leaf\nfrom timer1lib.params.sections import Params\n",
        training__common="x = 1\n",
        leaf="",
        late="from timer1lib.late_too import name\n",
        late_too="name = 1\n",
        unused="",
        params__model="from timer1lib.unused import x\n",
    )
    found = {path.relative_to(folder).as_posix() for path in closure(folder, "stages.sft") if path.name != "__init__.py"}
    assert found == {"stages/sft.py", "training/sft.py", "training/common.py", "leaf.py", "late.py", "late_too.py"}


def test_only_meaning_changes_a_code_hash(tmp_path: Path) -> None:
    folder = package(tmp_path, stages__sft="from timer1lib.leaf import f\n", leaf="def f():\n    return 1\n", other="y = 1\n")
    before = code_hash(folder, "stages.sft")
    (folder / "leaf.py").write_text('"""Words."""\n\n\ndef f():\n    """More."""\n    return 1  # why\n')
    (folder / "other.py").write_text("y = 2\n")
    assert code_hash(folder, "stages.sft") == before
    (folder / "leaf.py").write_text("def f():\n    return 2\n")
    assert code_hash(folder, "stages.sft") != before


def notebook(path: Path, *sources: str, output: str = "", prose: str = "a") -> Path:
    code = [{"cell_type": "code", "metadata": {}, "source": [s], "outputs": [output]} for s in sources]
    code[0]["metadata"] = {"tags": ["parameters"]}
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown", "metadata": {}, "source": prose}, *code]}))
    return path


def test_outputs_prose_and_default_parameters_do_not_change_a_notebook(tmp_path: Path) -> None:
    path = tmp_path / "n.ipynb"
    before = notebook_hash(notebook(path, "seed = 0", "train()"))
    assert notebook_hash(notebook(path, "seed = 1", "train()", output="x", prose="b")) == before
    assert notebook_hash(notebook(path, "seed = 0", "train(2)")) != before


def test_input_files_are_known_by_content(tmp_path: Path) -> None:
    data = tmp_path / "a.json"
    data.write_text("1")
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("w")
    parameters = {
        "files": f"Name={data}, {tmp_path}/none.json",
        "model": str(model),
        "cache_dir": str(tmp_path),
        "template": "brief",
        "n": 3,
    }
    before = input_files(parameters)
    assert set(before) == {"files", "model", "cache_dir"}
    digest = hashlib.sha256(b"1").hexdigest()
    assert before["files"] == [f"Name=a.json sha256:{digest}", f"{tmp_path}/none.json"]
    (model / "weights").write_text("v")
    assert input_files(parameters)["model"] != before["model"]
    data.write_text("22")
    assert input_files(parameters)["files"] != before["files"]


def test_what_changed_is_said() -> None:
    old = {"params": {"a": 1, "b": 2}, "code": "x", "inputs": {}}
    assert changed_parts(old, old) == ""
    assert changed_parts(old, {"params": {"a": 1, "b": 3}, "code": "y", "inputs": {}}) == "params (b), code"


def test_difficulty_of_the_base_does_not_depend_on_sft() -> None:
    base = Params.model_validate({"difficulty": {"difficulty_model": "base"}})
    assert upstream("difficulty", base) == ("curate",)
    assert upstream("difficulty", Params()) == ("curate", "sft")


def test_owners() -> None:
    owners = {
        "data/train.jsonl": "curate",
        "data/difficulty.jsonl": "difficulty",
        "data/selection.json": "difficulty",
        "data/filter_epoch2.jsonl": "grpo",
        "checkpoints/sft/model.safetensors": "sft",
        "work/grpo/epoch1/checkpoint-20/optimizer.pt": "grpo",
        "predictions/swap/base.test_id.jsonl": "evaluate",
        "metrics.json": "evaluate",
        "notes.jsonl": None,
        "report.html": None,
        "notebooks/01_curate.ipynb": None,
        "stages/01_curate.json": None,
        "something/else.txt": None,
        "data/.hidden": None,
    }
    assert {name: owner(name) for name in owners} == owners


def test_stages_have_many_names() -> None:
    assert {find_stage(text).number for text in ("4", "04", "grpo", "04_grpo")} == {4}
    assert [stage.number for stage in STAGES] == list(range(1, 8))
