"""Work beside the thread that answers clicks, and the scripts of the widgets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
HERE = Path(__file__).parent


def script(*names: str) -> str:
    """One script for anywidget of several files, which stand in this folder and share their names; there is no bundler."""
    return "\n".join((HERE / f"{name}.js").read_text(encoding="utf-8") for name in names)


class Aside:
    """One thread; what it made is handed over in the loop that answers the browser.

    A widget's state is not made for two threads: a change while another thread holds the sync is lost.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._loop: asyncio.AbstractEventLoop | None = None

    def do(self, work: Callable[[], T], done: Callable[[T], None]) -> Future[T]:
        """`work()` in the thread, then `done` of its result in the loop; in the thread itself where no loop runs: a script."""
        with contextlib.suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()

        def both() -> T:
            made = work()
            if self._loop is None or self._loop.is_closed():
                done(made)
            else:
                self._loop.call_soon_threadsafe(done, made)
            return made

        return self._thread.submit(both)
