"""`timer1 rehearse`: every recipe runs whole, small, before a card is rented, and touches nothing of the real one."""

from __future__ import annotations

import ast
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from timer1lib.params.load import load_params  # noqa: E402
from timer1lib.progress import RUNNER_VARIABLE  # noqa: E402
from timer1lib.rehearsal import Rehearsal, rehearse  # noqa: E402
from timer1lib.runs import runner  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "params").glob("*.yaml"))


def execute_here(source: Path, target: Path, failed: Path, parameters: Mapping[str, Any], cwd: Path, *_: Any) -> None:
    """A notebook's code cells in this very process: what a kernel does, without its start and its imports."""
    from huggingface_hub import constants
    from IPython.core.formatters import DisplayFormatter

    show = DisplayFormatter().format
    notebook, names = json.loads(source.read_text()), {"__name__": "__main__", "display": show}
    before = constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE
    constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = os.environ["HF_HUB_CACHE"], True
    try:
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                tree = ast.parse("".join(cell["source"]))
                last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
                exec(compile(tree, source.name, "exec"), names)
                if last is not None:
                    show(eval(compile(ast.Expression(last.value), source.name, "eval"), names))
                names |= parameters if "parameters" in cell["metadata"].get("tags", []) else {}
    finally:
        constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = before
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(notebook))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "execute", execute_here)
    monkeypatch.setenv(RUNNER_VARIABLE, str(os.getpid()))
    monkeypatch.chdir(ROOT)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_rehearses(path: Path, tmp_path: Path, here: None) -> None:
    t = time.time()
    done = rehearse(load_params(path), out=tmp_path / "run", rows=3)
    print(path.name, time.time() - t, {k: round(v["seconds"], 1) for k, v in done.stages.items()})
    assert isinstance(done, Rehearsal)
