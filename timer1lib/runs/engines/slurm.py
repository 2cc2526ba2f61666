"""Rows as Slurm jobs, by submitit; its own executor on this machine (`--address local`) tries a sweep without Slurm."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timer1lib.errors import Timer1Error, shown
from timer1lib.files import atomic_write_json, read_json
from timer1lib.runs.engines.seam import Outcome, Resources
from timer1lib.runs.row import run_here

MOST_JOBS = 100
"""Jobs in the queue at a time where --jobs says nothing."""
_POLL_SECONDS = 0.5
_LOST = ("NODE_FAIL", "PREEMPTED", "REVOKED", "BOOT_FAIL", "INTERRUPTED")
"""States of a job that was ended for no fault of its own."""
_MINUTES = 24 * 60
_LEAVE_SECONDS = 60.0


class SlurmEngine:
    """See `Engine`. Its folder is `.slurm` in the sweep's, which must lie on a disk that all nodes share."""

    def __init__(self, resources: Resources, jobs: int | None, address: str, options: Mapping[str, Any], root: Path) -> None:
        """A Timer1Error where there is no Slurm, or submitit knows no such option. Cancels what a killed sweep left."""
        import submitit

        if address not in ("", "local"):
            raise Timer1Error(f"--address {shown(address)}: of Slurm there is the one of this machine, or local to try without")
        if not address and not shutil.which("sbatch"):
            raise Timer1Error("--engine slurm: no sbatch here; start it where jobs are submitted, or try it with --address local")
        self._local, self._folder = bool(address), root / ".slurm"
        self._jobs = jobs or ((os.cpu_count() or 1) if address else MOST_JOBS)
        gpus = (0.0 if address else 1.0) if resources.gpus is None else resources.gpus
        if gpus != int(gpus):
            raise Timer1Error(f"gpus: {gpus:g}: Slurm gives whole cards")
        given = (
            {"cpus_per_task": resources.cpus or 1, "gpus_per_node": int(gpus)} if gpus else {"cpus_per_task": resources.cpus or 1}
        )
        self._executor = submitit.AutoExecutor(self._folder, cluster="local" if address else "slurm")
        named = {f"slurm_{name}": value for name, value in options.items() if name != "time"}
        try:
            self._executor.update_parameters(timeout_min=int(options.get("time", _MINUTES)), **given, **named)
        except (NameError, TypeError, ValueError) as error:
            raise Timer1Error(f"slurm options of the sweep file: {' '.join(str(error).split())[:300]}") from None
        self._cpus = resources.cpus or 1
        self._running: dict[str, Any] = {}
        self._cancel_left()

    def places(self) -> int:
        return self._jobs

    def start(self, name: str, job: Mapping[str, Any]) -> None:
        self._running[name] = self._executor.submit(run_here, {**job, "cpus": self._cpus})
        self._note()

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        deadline = time.monotonic() + seconds
        while not (ended := [(name, job) for name, job in self._running.items() if job.done()]):
            if time.monotonic() >= deadline:
                return []
            time.sleep(_POLL_SECONDS)
        for name, _ in ended:
            del self._running[name]
        self._note()
        return [(name, self._outcome(job)) for name, job in ended]

    def close(self) -> None:
        for job in self._running.values():
            job.cancel(check=False)
        self._running.clear()
        self._note()

    def _outcome(self, job: Any) -> Outcome:
        from submitit.core.utils import FailedJobError, UncompletedJobError

        try:
            return Outcome(**job.result())
        except FailedJobError as error:
            return Outcome(f"job {job.job_id}: {' '.join(str(error).split())[-300:]}", {})
        except UncompletedJobError:
            state = str(job.state)
            lost = self._local or any(state.startswith(name) for name in _LOST)
            return Outcome(f"Slurm ended the row's job {job.job_id}: {state}; see {job.paths.stderr}", {}, lost=lost)

    def _note(self) -> None:
        """Keep the jobs' ids: they outlive a sweep that is killed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        atomic_write_json(self._folder / "jobs.json", [job.job_id for job in self._running.values()])

    def _cancel_left(self) -> None:
        """End the jobs of a sweep that was killed, and wait until they have left its rows' folders."""
        with contextlib.suppress(Timer1Error, OSError, ValueError, TypeError):
            left = [str(int(name)) for name in read_json(self._folder / "jobs.json")]
            end, deadline = self._end_here if self._local else self._end_there, time.monotonic() + _LEAVE_SECONDS
            while left and end(left) and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)

    @staticmethod
    def _end_here(left: list[str]) -> bool:
        """Whether one still runs; there a job's id is its process."""
        alive = False
        for name in left:
            with contextlib.suppress(OSError):
                if b"submitit" in Path(f"/proc/{name}/cmdline").read_bytes():
                    os.kill(int(name), signal.SIGINT)
                    alive = True
        return alive

    @staticmethod
    def _end_there(left: list[str]) -> bool:
        subprocess.run(["scancel", *left], capture_output=True, check=False, timeout=60)
        asked = subprocess.run(["squeue", "-h", "-j", ",".join(left)], capture_output=True, check=False, timeout=60)
        return bool(asked.stdout.strip())
