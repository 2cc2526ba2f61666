"""A part of a sweep's row in a process of its own: `python -m timer1lib.runs.row JOB.json`, the same under every engine.

A job is plain JSON: {row, folder, store, params, until, project, cwd, cpus, storage, sweep}. `folder` and `store` are the
row's folder and the finished stages that rows share, on a disk that every node sees; with a `storage` (a URL) they are
the node's own scratch, and finished stages are brought from there and back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, read_json
from timer1lib.params.sections import Params
from timer1lib.processes import end_group, leave_with
from timer1lib.runfolder import RunFolder
from timer1lib.runs.engines.seam import Outcome
from timer1lib.runs.execute import NotebookFailed
from timer1lib.runs.runner import Project, run
from timer1lib.runs.stamps import Claimed, Store
from timer1lib.runs.storage import StoredStages, scratch, send_line
from timer1lib.workers.nodes import CORES_VARIABLE

JOB, RESULT, LOG = ".row.json", ".row-result.json", "run.log"
NODE_VARIABLE = "TIMER1_SWEEP_NODE"
"""The node that a row runs on, by the name its engine has for it."""
_POLL_SECONDS = 0.2
_LINE_SECONDS = 5.0


class RowProcess:
    """A job that runs as a child of this process, in a group of its own that ends with it."""

    def __init__(self, job: Mapping[str, Any], more: Mapping[str, str] | None = None) -> None:
        """`more`: environment of this row, such as the cards that it may see."""
        environment = {**os.environ, **(more or {})}
        if job["cpus"]:
            environment["OMP_NUM_THREADS"] = environment[CORES_VARIABLE] = str(job["cpus"])
        if not Path(job["project"]["notebooks"]).is_dir():
            raise Timer1Error(f"{job['project']['notebooks']}: no such folder on this node; every node needs the project there")
        self.folder = scratch(job, environment.get(NODE_VARIABLE, "")) if job["storage"] else Path(job["folder"])
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / RESULT).unlink(missing_ok=True)
        atomic_write_json(self.folder / JOB, {**job, "folder": str(self.folder), "parent": os.getpid()})
        with open(self.folder / LOG, "ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "timer1lib.runs.row", str(self.folder / JOB)],
                stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=environment, cwd=job["cwd"], start_new_session=True,
            )  # fmt: skip

    def poll(self) -> Outcome | None:
        """How it ended; None while it runs."""
        status = self.process.poll()
        if status is None:
            return None
        try:
            return Outcome(**read_json(self.folder / RESULT))
        except (Timer1Error, TypeError):
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            return Outcome(f"the row's process {how}; see {self.folder / LOG}", {}, lost=status < 0)

    def end(self) -> None:
        """Kill it, with all that it started; its kernel notices by itself."""
        end_group(self.process.pid)
        self.process.wait()


def run_here(job: Mapping[str, Any], more: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What a cluster's node does: the job as a child of this worker, which ends with it. Returns an `Outcome`'s fields."""
    try:
        process = RowProcess(job, more)
    except (Timer1Error, OSError) as error:
        return {"error": str(error), "stages": {}}
    told, line = time.monotonic(), ""
    try:
        while (outcome := process.poll()) is None:
            time.sleep(_POLL_SECONDS)
            if job["storage"] and time.monotonic() - told > _LINE_SECONDS:
                told, before, line = time.monotonic(), line, last_line(process.folder / LOG)
                if line != before:
                    send_line(job, line)
    finally:
        process.end()
    if job["storage"] and not outcome.lost:
        shutil.rmtree(process.folder, ignore_errors=True)
    return {"error": outcome.error, "stages": outcome.stages, "lost": outcome.lost, "claimed": outcome.claimed}


def last_line(log: Path) -> str:
    """The newest line of a row's log."""
    with contextlib.suppress(OSError), open(log, "rb") as stream:
        stream.seek(max(0, log.stat().st_size - 2000))
        return next(iter(stream.read().decode(errors="replace").splitlines()[-1:]), "").strip()
    return ""


def run_row(path: str) -> int:
    """One job in this process; what came of it is written beside it, as an `Outcome`'s fields."""
    job, out = read_json(path), Path(path).parent
    leave_with(int(job["parent"]))
    outcome: dict[str, Any] = {"error": None, "stages": {}}
    project = Project(*(Path(job["project"][name]) for name in ("root", "notebooks", "package")))
    manifest = RunFolder(out).manifest
    before = manifest.stat().st_mtime_ns if manifest.is_file() else 0
    try:
        store = StoredStages(out / ".store", job["storage"], job["sweep"]) if job["storage"] else Store(Path(job["store"]))
        result = run(Params.model_validate(job["params"]), until=job["until"], out=out, project=project, store=store, yes=True)
        outcome["stages"] = result.stages
    except Claimed:
        outcome["claimed"] = True
    except (Timer1Error, NotebookFailed) as error:
        outcome["error"] = str(error)
    except Exception as error:
        outcome["error"] = f"{type(error).__name__}: {error}"
    if not outcome["stages"]:  # those that stand, whatever came after them
        with contextlib.suppress(Timer1Error, OSError, KeyError):
            outcome["stages"] = read_json(manifest)["stages"] if manifest.stat().st_mtime_ns != before else {}
    if job["storage"]:
        try:
            StoredStages(out, job["storage"], job["sweep"]).send_row(out)
        except Exception as error:  # each file system has errors of its own
            outcome["error"] = outcome["error"] or f"{job['storage']}: {error}"
    atomic_write_json(out / RESULT, outcome)
    return 1 if outcome["error"] else 0


if __name__ == "__main__":
    sys.exit(run_row(sys.argv[1]))
