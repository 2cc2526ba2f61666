"""One row of a sweep in a process of its own: `python -m timer1lib.runs.row SPEC.json`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, read_json
from timer1lib.params.sections import Params
from timer1lib.runs.execute import NotebookFailed
from timer1lib.runs.kernel import leave_with
from timer1lib.runs.runner import Project, run
from timer1lib.runs.store import Store


def main(path: str) -> int:
    """Run a row; what came of it is written to the spec's `result` file: {error, stages}."""
    spec = read_json(path)
    leave_with(int(spec["parent"]))
    outcome: dict[str, Any] = {"error": None, "stages": {}}
    project = Project(*(Path(spec["project"][name]) for name in ("root", "notebooks", "package")))
    try:
        params = Params.model_validate(spec["params"])
        store = Store(Path(spec["store"]))
        done = run(params, until=spec["until"], out=spec["out"], project=project, store=store, report=spec["report"])
        outcome["stages"] = done.stages
    except (Timer1Error, NotebookFailed) as error:
        outcome["error"] = str(error)
    except Exception as error:
        outcome["error"] = f"{type(error).__name__}: {error}"
    atomic_write_json(spec["result"], outcome)
    return 1 if outcome["error"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
