"""Progress of long work: a bar in a terminal, few lines in a log, always with the time left."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TextIO

LOG_EVERY_SECONDS = 15.0
BEACON_VARIABLE = "TIMER1_PROGRESS"
"""Names a file that always holds the newest line, so that a runner in a terminal can show a kernel's progress live."""


class Progress:
    """Counts steps and says what, k of n, the time left and the last numbers.

    In a terminal one line is redrawn; elsewhere (papermill, a log file) a line is written at the start, at most
    every `LOG_EVERY_SECONDS`, and at the end.
    """

    def __init__(self, label: str, total: int, stream: TextIO | None = None, done: int = 0) -> None:
        self.label, self.total, self.done = label, total, done
        self._already = done
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._started = time.monotonic()
        self._last_line = float("-inf")
        self._numbers = ""
        self._beacon, self._last_beacon = os.environ.get(BEACON_VARIABLE), float("-inf")

    def update(self, n: int = 1, **numbers: float | str) -> None:
        self.done += n
        if numbers:
            self._numbers = "  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items())
        now = time.monotonic()
        interval = 0.2 if self._terminal else LOG_EVERY_SECONDS
        if now - self._last_line >= interval or self.done >= self.total:
            self._last_line = now
            self._write(now)
        if self._beacon and now - self._last_beacon >= 0.5:
            self._last_beacon = now
            with contextlib.suppress(OSError), open(self._beacon, "w") as stream:
                stream.write(self._text(now))

    def _text(self, now: float) -> str:
        elapsed = now - self._started
        fresh = self.done - self._already
        left = elapsed / fresh * (self.total - self.done) if fresh else 0.0
        text = f"{self.label}: {self.done}/{self.total}  {clock(elapsed)} elapsed, {clock(left)} left"
        if self._numbers:
            text += f"  {self._numbers}"
        return text

    def _write(self, now: float) -> None:
        text = self._text(now)
        if self._terminal:
            filled = int(20 * self.done / max(1, self.total))
            end = "\n" if self.done >= self.total else ""
            self._stream.write(f"\r\x1b[K[{'#' * filled}{'.' * (20 - filled)}] {text}{end}")
        else:
            self._stream.write(text + "\n")
        self._stream.flush()


def clock(seconds: float) -> str:
    """`75.2` -> `1:15`; with hours where there are any."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
