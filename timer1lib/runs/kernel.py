"""One runner a run folder, and a notebook kernel that never outlives its runner.

A runner that is killed must leave nobody behind that still writes into the run's folder. The kernel
(`python -m timer1lib.runs.kernel -f CONNECTION_FILE`) holds a lock on the folder for as long as it lives, and watches
its parent; the next runner waits for that lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from timer1lib.errors import Timer1Error
from timer1lib.processes import leave_with
from timer1lib.progress import RUNNER_VARIABLE

LOCK_VARIABLE = "TIMER1_KERNEL_LOCK"
KERNEL_LOCK = ".kernel.lock"
RANKS_LOCK = ".ranks.lock"
"""Held by every rank that works for a run: it may outlive its kernel for a moment."""
RUNNER_LOCK = ".runner.lock"
_POLL_SECONDS = 0.2
_ORPHAN_SECONDS = 60.0
_DYING_SECONDS = 1.0
"""How long a runner whose sweep was killed may take to notice."""


def main() -> None:
    runner = int(os.environ.get(RUNNER_VARIABLE, "0"))
    path = os.environ.get(LOCK_VARIABLE, "")
    held = _hold(Path(path)) if path else None
    if runner:
        leave_with(runner)
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()
    if held is not None:
        held.close()


def _hold(path: Path, seconds: float = float("inf")) -> IO[str]:
    """Lock a file for this process alone, until it ends, waiting for up to so many seconds.

    A record lock, and not filelock's: that one is inherited by forked workers, of which one may hang on and would then
    hold the folder in a dead process's place. BlockingIOError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = open(path, "a+")  # noqa: SIM115 - held for the life of the process
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return stream
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN) or time.monotonic() >= deadline:
                stream.close()
                raise
        time.sleep(_POLL_SECONDS / 4)


class Held:
    """A run folder that this process alone writes into; the lock goes with the process, however it ends."""

    def __init__(self, root: Path, who: str) -> None:
        """Lock `root`; a Timer1Error where another runner or notebook holds it, or a killed runner's kernel does not end."""
        self.root = root
        path = root / RUNNER_LOCK
        try:
            self._stream = _hold(path, _DYING_SECONDS)
        except BlockingIOError:
            holder = path.read_text().strip() or "unknown"
            raise Timer1Error(f"{root}: another timer1 ({holder}) works in this folder; end it first") from None
        try:
            self._stream.truncate(0)
            self._stream.write(f"process {os.getpid()}, {who}")
            self._stream.flush()
            _hold(root / KERNEL_LOCK, _ORPHAN_SECONDS).close()
            _hold(root / RANKS_LOCK, _ORPHAN_SECONDS).close()
        except BaseException as error:
            self.release()
            if isinstance(error, BlockingIOError):
                raise Timer1Error(f"{root}: the kernel of an earlier run still works in this folder; end it first") from None
            raise

    def release(self) -> None:
        self._stream.close()

    def check(self) -> None:
        """Fail, naming the folder, where somebody has removed it meanwhile."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self._stream.fileno()), os.stat(self.root / RUNNER_LOCK)):
                return
        raise Timer1Error(f"{self.root}: this run's folder was removed or replaced while it ran; what it held is gone")


@contextlib.contextmanager
def exclusive(root: Path, who: str = "timer1 run") -> Iterator[Held]:
    """Hold a run folder for this process: see `Held`."""
    held = Held(root, who)
    try:
        yield held
    finally:
        held.release()


if __name__ == "__main__":
    main()
