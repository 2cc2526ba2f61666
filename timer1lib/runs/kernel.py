"""One runner a run folder, and a notebook kernel that never outlives its runner.

A runner that is killed must leave nobody behind that still writes into the run's folder. The kernel
(`python -m timer1lib.runs.kernel -f CONNECTION_FILE`) holds a lock on the folder for as long as it lives, and watches
its parent; the next runner waits for that lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from timer1lib.processes import leave_with
from timer1lib.progress import RUNNER_VARIABLE, leave_with

LOCK_VARIABLE = "TIMER1_KERNEL_LOCK"
KERNEL_LOCK = ".kernel.lock"
_RUNNER_LOCK = ".runner.lock"
_HOLDER = ".runner.pid"
_POLL_SECONDS = 0.2
_ORPHAN_SECONDS = 60.0
_DYING_SECONDS = 1.0
"""How long a runner whose sweep was killed may take to notice."""


def main() -> None:
    runner = int(os.environ.get(RUNNER_VARIABLE, "0"))
    path = os.environ.get(LOCK_VARIABLE, "")
    held = _hold(Path(path), wait=True) if path else None
    if runner:
        leave_with(runner)
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()
    if held is not None:
        held.close()


def _hold(path: Path, *, wait: bool) -> IO[str]:
    """Lock a file for this process alone, until it ends.

    A record lock, and not filelock's: that one is inherited by forked workers, of which one may hang on and would then
    hold the folder in a dead kernel's place.

    Raises:
        OSError: without `wait`, another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = open(path, "w")  # noqa: SIM115 - held for the life of the process
    try:
        fcntl.lockf(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        raise
    return stream


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Hold a run folder for this process; the lock goes with the process, however it ends.

    Raises:
        Timer1Error: another runner holds the folder, or a killed runner's kernel does not end.
    """
    from filelock import FileLock, Timeout

    from timer1lib.errors import Timer1Error

    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / _RUNNER_LOCK, timeout=_DYING_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        with contextlib.suppress(OSError):
            holder = (root / _HOLDER).read_text().strip()
            raise Timer1Error(f"{root}: another timer1 (process {holder}) works in this folder") from None
        raise Timer1Error(f"{root}: another timer1 works in this folder") from None
    try:
        (root / _HOLDER).write_text(str(os.getpid()))
        _wait_for_orphan(root)
        yield
    finally:
        lock.release()


def _wait_for_orphan(root: Path) -> None:
    from timer1lib.errors import Timer1Error

    deadline = time.monotonic() + _ORPHAN_SECONDS
    while True:
        try:
            _hold(root / KERNEL_LOCK, wait=False).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise Timer1Error(f"{root}: the kernel of an earlier run still works in this folder; end it first") from None
            time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    main()
