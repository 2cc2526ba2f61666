"""What a person sees while notebooks run: one live line in a terminal, few lines in a log."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

from timer1lib.progress import BEACON_VARIABLE, LOG_EVERY_SECONDS, clock

_BAR = 16
_REFRESH_SECONDS = 0.5


class Display:
    """Follows stages and cells, and a stage's own progress lines.

    A terminal line: `[####............] 04_grpo (4/7)  cell 5/11  GRPO: 30/60  0:40 elapsed, 0:41 left  reward 0.713`.
    """

    def __init__(self, total: int, beacon: Path, stream: TextIO | None = None) -> None:
        """`total` stages; `beacon` is the file where a kernel's `Progress` leaves its newest line."""
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._total, self._number = total, 0
        self._notebook, self._cell, self._cells = "", 0, 1
        self._text, self._last_log = "", float("-inf")
        self._beacon = beacon
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def environment(self) -> dict[str, str]:
        """What a kernel must know so that its progress is seen here at once."""
        return {BEACON_VARIABLE: str(self._beacon.resolve())} if self._terminal else {}

    def where(self) -> str:
        return f"cell {self._cell} of {self._cells}"

    def note(self, line: str) -> None:
        """A line that stays."""
        with self._lock:
            self._stream.write(("\r\x1b[K" if self._terminal else "") + line + "\n")
            self._stream.flush()

    def start(self, notebook: str, number: int, resumed: bool) -> None:
        self._notebook, self._number, self._cell, self._cells, self._text = notebook, number, 0, 1, ""
        self._beacon.unlink(missing_ok=True)
        if resumed:
            self.note(f"{notebook} ({number}/{self._total}): goes on where it was stopped")
        if self._terminal:
            self._stop.clear()
            self._thread = threading.Thread(target=self._redraw, daemon=True)
            self._thread.start()
        elif not resumed:
            self.note(f"{notebook} ({number}/{self._total}): started")

    def cell(self, number: int, total: int) -> None:
        self._cell, self._cells = number, total

    def output(self, text: str) -> None:
        """Text that a cell wrote; its last line is the newest progress."""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not lines:
            return
        self._text = lines[-1]
        now = time.monotonic()
        if not self._terminal and " elapsed, " in self._text and now - self._last_log >= LOG_EVERY_SECONDS:
            self._last_log = now
            self.note(f"{self._notebook} ({self._number}/{self._total})  {self.where()}  {self._text}")

    def finish(self, seconds: float | None) -> None:
        """End of a stage; `seconds` is None where it failed."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._beacon.unlink(missing_ok=True)
        if seconds is not None:
            self.note(f"{self._notebook} ({self._number}/{self._total}): done in {clock(seconds)}")
        elif self._terminal:
            self._stream.write("\r\x1b[K")

    def _redraw(self) -> None:
        while not self._stop.wait(_REFRESH_SECONDS):
            with contextlib.suppress(OSError):
                self._text = self._beacon.read_text().strip() or self._text
            filled = int(_BAR * (self._number - 1 + self._cell / (self._cells + 1)) / self._total)
            line = f"[{'#' * filled}{'.' * (_BAR - filled)}] {self._notebook} ({self._number}/{self._total})  {self.where()}"
            with self._lock:
                width = shutil.get_terminal_size().columns - 1
                self._stream.write("\r\x1b[K" + f"{line}  {self._text}"[:width])
                self._stream.flush()
