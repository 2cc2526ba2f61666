"""Processes that never outlive the one which started them, whatever signal ended it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from timer1lib.errors import Timer1Error

POLL_SECONDS = 0.2


def leave_with(parent: int) -> None:
    """End this process, at once and from now on, when `parent` is no longer its parent; its own workers go with it."""
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    end_group(os.getpid())
    os._exit(1)


def end_group(leader: int) -> None:
    """Kill a process and what it started, where it leads a group of its own, as every kernel does; else nothing."""
    with contextlib.suppress(OSError):
        if leader != os.getpid() or os.getpgrp() == leader:
            os.killpg(leader, signal.SIGKILL)


@contextlib.contextmanager
def worker_processes(count: int, what: str) -> Iterator[ProcessPoolExecutor]:
    """`count` processes that end with this one and hold none of its standard output, which a pipe's reader waits for.

    Where one of them was killed a Timer1Error names `what` they were doing.
    """
    # Not a fork server, whose children have it as their parent.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    try:
        with ProcessPoolExecutor(count, context, _begin, (os.getpid(),)) as pool:
            yield pool
    except BrokenProcessPool:
        raise Timer1Error(f"{what}: one of {count} processes was killed (out of memory?); what is done is kept") from None


def _begin(parent: int) -> None:
    leave_with(parent)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
