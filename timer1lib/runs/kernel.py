"""A notebook kernel that never outlives its runner: `python -m timer1lib.runs.kernel -f CONNECTION_FILE`.

A runner that is killed must leave nobody behind that still writes into the run's folder. The kernel holds a lock on
the folder for as long as it lives, and watches its parent; the next runner waits for that lock.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path
from typing import IO

from timer1lib.progress import RUNNER_VARIABLE

LOCK_VARIABLE = "TIMER1_KERNEL_LOCK"
_POLL_SECONDS = 0.2


def main() -> None:
    runner = int(os.environ.get(RUNNER_VARIABLE, "0"))
    held = _hold(os.environ.get(LOCK_VARIABLE, ""))
    if runner:
        leave_with(runner)
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()
    if held is not None:
        held.close()


def _hold(path: str) -> IO[str] | None:
    """Lock the file for this process. Record locks are not inherited by forked workers, which may hang on."""
    if not path:
        return None
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    stream = open(path, "w")  # noqa: SIM115 - held for the life of the process
    fcntl.lockf(stream, fcntl.LOCK_EX)
    return stream


def leave_with(parent: int) -> None:
    """End this process, at once and from now on, when `parent` is no longer its parent."""
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
