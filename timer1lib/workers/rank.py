"""One rank of a job: joins the others, does the work, and leaves one line where it fails.

Runs in a fork of `workers.server`, or as `python -m timer1lib.workers.rank JOB_FOLDER` under torchrun, accelerate or srun.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import logging
import os
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

from timer1lib import progress
from timer1lib.errors import Timer1Error
from timer1lib.files import append_jsonl, atomic_write_json, read_json
from timer1lib.processes import leave_with
from timer1lib.workers.team import team

FAILED = 1
_PATIENCE = timedelta(hours=2)
"""How long a rank waits for another one; a rank that died ends the group long before."""


def main(folder: Path) -> int:
    """Do the job of a folder as the rank that the environment names; returns the exit status."""
    faulthandler.enable()  # a crash in a library says where
    job = read_json(folder / "job.json")
    os.chdir(job["cwd"])
    lock = hold_run(Path(job["lock"]))
    logging.getLogger("timer1lib").addHandler(_Relay(folder / f"log.{team.rank}.jsonl"))
    progress.RELAY = _Shown(folder / "progress.json") if team.first else (lambda state: None)
    try:
        _join(job, folder)
        importlib.import_module(job["package"]).perform(job)
        team.wait()
    except BaseException as error:
        leave_error(folder, team.rank, error)
        return FAILED
    finally:
        lock.close()
    return 0


def hold_run(path: Path) -> Any:
    """Say that a process of this run still lives: whoever takes the run's folder next waits for it."""
    import fcntl

    stream = open(path, "a+")  # noqa: SIM115 - held for the life of the process
    with contextlib.suppress(OSError):  # some shared folders have no locks
        fcntl.lockf(stream, fcntl.LOCK_SH)
    return stream


def leave_error(folder: Path, rank: int, error: BaseException) -> None:
    """The error's line for the kernel, which removes the folder when it has read it."""
    traceback.print_exception(error)
    kind, known = type(error).__name__, isinstance(error, Timer1Error)
    text = " ".join(str(error).split()) or kind
    try:
        path = folder / f"error.{rank}.json"
        atomic_write_json(path, {"rank": rank, "known": known, "text": text if known else f"{kind}: {text}"})
    except OSError:
        traceback.print_exc()


def _join(job: dict[str, Any], folder: Path) -> None:
    """Set this rank's threads and device, and meet the others."""
    import torch

    if job["threads"]:
        torch.set_num_threads(job["threads"])
    if team.size != (wanted := job["processes"] * job["nodes"]):
        raise Timer1Error(f"{job['config'] or 'the launcher'}: {team.size} of {wanted} ranks were started; set as many there")
    on_gpu = job["device"] != "cpu" and torch.cuda.is_available()
    if team.size == 1:
        return
    import torch.distributed

    dist: Any = torch.distributed
    options: dict[str, Any] = {}
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        options["device_id"] = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    else:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    if "MASTER_PORT" not in os.environ:  # one machine: no port that somebody else could take
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
        options |= {"store": dist.FileStore(str(folder / "meeting"), team.size), "rank": team.rank, "world_size": team.size}
    elif job["nodes"] > 1:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        # one after the other all jobs of a run meet here: a late rank of the last one must not meet this one's
        seconds = float(os.environ.get("TIMER1_PATIENCE", "300"))
        try:
            meeting = dist.TCPStore(host, port, team.size, team.first, timedelta(seconds=seconds))
        except dist.DistError as error:
            machines = f"{job['nodes']} machines did not meet at {host}:{port} in {seconds:.0f} s"
            raise Timer1Error(
                f"{machines}: start `timer1 work` on each of the others, with this address ({error})"[:300]
            ) from None
        options |= {"store": dist.PrefixStore(job["id"], meeting), "rank": team.rank, "world_size": team.size}
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=_PATIENCE, **options)


class _Shown:
    """Leaves rank 0's newest progress for the kernel."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, state: dict[str, Any]) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(state))
        os.replace(fresh, self._path)


class _Relay(logging.Handler):
    """Leaves what our own modules log for the kernel."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        append_jsonl(self._path, [{"name": record.name, "level": record.levelno, "text": record.getMessage()}])


if __name__ == "__main__":
    leave_with(os.getppid())
    sys.exit(main(Path(sys.argv[1])))
