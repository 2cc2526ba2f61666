"""What a person sees while notebooks run: one live line in a terminal, few lines in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from timer1lib.progress import BEACON_VARIABLE, LOG_EVERY_SECONDS, clock

_BAR = 16


class Display:
    """Follows stages and cells, and a stage's own progress lines.

    A terminal line: `[####............] 04_grpo (4/7)  cell 5 of 11  GRPO: 30/60  0:40 elapsed, 0:41 left  reward 0.713`.
    """

    def __init__(self, total: int, beacon: Path, stream: TextIO | None = None) -> None:
        """`total` stages; `beacon` is the file where a kernel's `Progress` leaves its newest line."""
        self._console = Console(file=stream or sys.stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._terminal = self._console.is_terminal
        self._live: Live | None = None
        self._total, self._number = total, 0
        self._notebook, self._cell, self._cells = "", 0, 1
        self._text, self._last_log = "", float("-inf")
        self._beacon = beacon

    def environment(self) -> dict[str, str]:
        """What a kernel must know so that its progress is seen here at once."""
        return {BEACON_VARIABLE: str(self._beacon.resolve())} if self._terminal else {}

    def where(self) -> str:
        return f"cell {self._cell} of {self._cells}"

    def note(self, line: str) -> None:
        """A line that stays."""
        self._console.print(line)

    def start(self, notebook: str, number: int, resumed: bool) -> None:
        self._notebook, self._number, self._cell, self._cells, self._text = notebook, number, 0, 1, ""
        self._beacon.unlink(missing_ok=True)
        if resumed:
            self.note(f"{notebook} ({number}/{self._total}): goes on where it was stopped")
        if self._terminal:
            self._live = Live(console=self._console, get_renderable=self._line, refresh_per_second=2, transient=True)
            self._live.start()
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
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._beacon.unlink(missing_ok=True)
        if seconds is not None:
            self.note(f"{self._notebook} ({self._number}/{self._total}): done in {clock(seconds)}")

    def _line(self) -> Text:
        with contextlib.suppress(OSError):
            self._text = self._beacon.read_text().strip() or self._text
        filled = int(_BAR * (self._number - 1 + self._cell / (self._cells + 1)) / self._total)
        line = f"[{'#' * filled}{'.' * (_BAR - filled)}] {self._notebook} ({self._number}/{self._total})  {self.where()}"
        return Text(f"{line}  {self._text}", no_wrap=True, overflow="ellipsis", end="")
