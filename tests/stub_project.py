"""Small stand-ins for the seven notebooks, so that the runner can be tried in seconds."""

from __future__ import annotations

import json
from pathlib import Path

from timer1lib.params.cells import cell_source, with_cell
from timer1lib.params.sections import NOTEBOOKS, SECTIONS, Params
from timer1lib.runs.runner import Project

BODIES = {
    "curate": """
from pathlib import Path
run = Path(run_dir); (run / "data").mkdir(parents=True, exist_ok=True)
(run / "data" / "train.jsonl").write_text(f"seed {seed}\\n")
""",
    "sft": """
from pathlib import Path
from timer1lib.runfolder import RunFolder
run = RunFolder(Path(run_dir), "sft"); run.checkpoint("sft").mkdir(parents=True, exist_ok=True)
(run.checkpoint("sft") / "model.bin").write_text("sft of " + run.data("train").read_text())
""",
    "difficulty": """
from pathlib import Path
run = Path(run_dir)
(run / "data" / "selected.jsonl").write_text("{}\\n")
""",
    # Appends one line a step, as a training would, and goes on where a kill left it: 20 steps, a number a step.
    "grpo": """
import os, time
from pathlib import Path
from timer1lib.runfolder import RunFolder
run = RunFolder(Path(run_dir), "grpo"); log = run.log("grpo"); log.parent.mkdir(parents=True, exist_ok=True)
done = len(log.read_text().splitlines()) if log.exists() else 0
with open(run.root.parent / "pids.txt", "a") as stream: stream.write(f"{os.getpid()} from {done}\\n")
for step in range(done, 20):
    time.sleep(float(os.environ.get("STUB_STEP_SECONDS", "0")))
    with open(log, "a") as stream: stream.write(f"{step * step}\\n")
""",
    "evaluate": """
import json
from pathlib import Path
run = Path(run_dir)
total = sum(map(int, (run / "logs" / "grpo.jsonl").read_text().split()))
(run / "metrics.json").write_text(json.dumps({"splits": {"test_id": {"grpo": {"mIoU": total / 100}, "base": {"mIoU": 1.0}}}}))
""",
    "inspect": "looked = True",
    "compare": "compared = True",
}


def make_project(root: Path, bodies: dict[str, str] | None = None) -> Project:
    """A project folder with stub notebooks and an empty package; `bodies` replaces some notebooks' code."""
    notebooks, package = root / "notebooks", root / "timer1lib"
    notebooks.mkdir(parents=True)
    (package / "stages").mkdir(parents=True)
    (package / "stages" / "__init__.py").write_text("")
    for section, name in zip(SECTIONS, NOTEBOOKS, strict=True):
        (package / "stages" / f"{section}.py").write_text("X = 1\n")
        write_notebook(notebooks / f"{name}.ipynb", section, {**BODIES, **(bodies or {})}[section])
    return Project(root, notebooks, package)


def write_notebook(path: Path, section: str, body: str) -> None:
    cell = {"cell_type": "code", "id": "body", "execution_count": None, "metadata": {}, "outputs": [], "source": body.strip()}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": KERNEL}, "cells": [cell]}
    path.write_text(json.dumps(with_cell(notebook, cell_source(Params(), section))))


KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
