"""One runner a run folder, and no orphan of a killed one beside it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from timer1lib.errors import Timer1Error

KERNEL_LOCK = ".kernel.lock"
_RUNNER_LOCK = ".runner.lock"
_ORPHAN_SECONDS = 60.0
_DYING_SECONDS = 1.0
"""How long a runner whose sweep was killed may take to notice."""


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Hold a run folder for this process; the lock goes with the process, however it ends.

    Raises:
        Timer1Error: another runner holds the folder, or a killed runner's kernel does not end.
    """
    root.mkdir(parents=True, exist_ok=True)
    with open(root / _RUNNER_LOCK, "a+") as stream:
        deadline = time.monotonic() + _DYING_SECONDS
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    stream.seek(0)
                    holder = stream.read().strip() or "unknown"
                    raise Timer1Error(f"{root}: another timer1 (process {holder}) works in this folder") from None
                time.sleep(0.1)
        stream.seek(0)
        stream.truncate()
        stream.write(str(os.getpid()))
        stream.flush()
        _wait_for_orphan(root)
        yield


def _wait_for_orphan(root: Path) -> None:
    deadline = time.monotonic() + _ORPHAN_SECONDS
    with open(root / KERNEL_LOCK, "w") as stream:
        while True:
            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise Timer1Error(f"{root}: the kernel of an earlier run still works in this folder; end it first") from None
                time.sleep(0.2)
