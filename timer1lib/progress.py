"""Progress of long work: one bar in a terminal, one line in a notebook, few lines in a log, always with the time left."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from itertools import count
from typing import Any, TextIO

LOG_EVERY_SECONDS = 15.0
_POLL_SECONDS = 0.2
RELAY: Callable[[dict[str, Any]], None] | None = None
"""Set in a rank: takes the state of its progress, which the notebook's kernel shows (`Progress.mirror`) in its place."""
_NUMBERS = count()
BEACON_VARIABLE = "TIMER1_PROGRESS"
"""Names a file that always holds the newest line, so that a runner in a terminal can show a kernel's progress live."""
RUNNER_VARIABLE = "TIMER1_RUNNER_PID"
"""Set in kernels that a runner started: their cells' outputs are kept, and read by nobody while they run."""


class Progress:
    """Counts steps and says what, k of n, the time left and the last numbers.

    In a terminal and in JupyterLab one line is redrawn; elsewhere (papermill, a log file) a line is written at the
    start, at most every `LOG_EVERY_SECONDS`, and at the end.
    """

    def __init__(self, label: str, total: int, stream: TextIO | None = None, done: int = 0) -> None:
        """`total` steps, of which `done` were done before; without a `stream` the line goes where a person looks."""
        self.label, self.total, self.done = label, total, done
        self._already = done
        self._started = time.monotonic()
        self._numbers = ""
        self._beacon, self._last_beacon = os.environ.get(BEACON_VARIABLE), float("-inf")
        self._last_line = float("-inf")
        kernel = stream is None and in_kernel()
        # stdout in a kernel: notebooks show stderr in red, as if something were wrong
        self._stream = stream or (sys.stdout if kernel else sys.stderr)
        self._id = next(_NUMBERS)
        self._live: _Bar | _Cell | None = None
        if kernel and RUNNER_VARIABLE not in os.environ:
            self._live = _Cell()
        elif self._stream.isatty():
            self._live = _Bar(self._stream, label, total, done)

    def update(self, n: int = 1, **numbers: float | str) -> None:
        """`n` more steps are done; `numbers` are shown behind the time left."""
        self.done += n
        if numbers:
            self._numbers = "  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items())
        self._show()

    def mirror(self, done: int, numbers: str) -> None:
        """Show another process's progress: its steps and numbers, as it gave them to `RELAY`."""
        if (done, numbers) != (self.done, self._numbers):
            self.done, self._numbers = done, numbers
            self._show()

    def _show(self) -> None:
        now = time.monotonic()
        if RELAY is not None:
            if now - self._last_line >= 0.2 or self.done >= self.total:
                self._last_line = now
                state = {"id": self._id, "label": self.label, "total": self.total, "already": self._already}
                RELAY({**state, "done": self.done, "numbers": self._numbers})
            return
        interval = 0.2 if self._live else LOG_EVERY_SECONDS
        if now - self._last_line >= interval or self.done >= self.total:
            self._last_line = now
            if self._live:
                self._live.show(self._text(now), self.done, self._numbers)
            else:
                self._stream.write(self._text(now) + "\n")
                self._stream.flush()
        if self._beacon and now - self._last_beacon >= 0.5:
            self._last_beacon = now
            with contextlib.suppress(OSError), open(self._beacon, "w") as stream:
                stream.write(self._text(now))

    def _text(self, now: float) -> str:
        elapsed = now - self._started
        fresh = self.done - self._already
        left = elapsed / fresh * (self.total - self.done) if fresh else 0.0
        text = f"{self.label}: {self.done}/{self.total}  {clock(elapsed)} elapsed, {clock(left)} left"
        return f"{text}  {self._numbers}" if self._numbers else text


class _Bar:
    """A terminal's line, which tqdm draws, no wider than the terminal is."""

    def __init__(self, stream: TextIO, label: str, total: int, done: int) -> None:
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # no thread of its own: processes are forked while a bar is shown
        columns, rows = shutil.get_terminal_size()  # tqdm draws nothing where a terminal says that it has no size
        line = "{desc}: [{bar:20}] {n_fmt}/{total_fmt}  {elapsed} elapsed, {remaining} left{postfix}"
        look = {"bar_format": line, "ascii": ".#", "ncols": columns - 1, "nrows": rows}
        self._bar = tqdm(desc=label, total=total, initial=done, file=stream, mininterval=0, miniters=1, **look)

    def show(self, text: str, done: int, numbers: str) -> None:
        self._bar.set_postfix_str(numbers, refresh=False)
        self._bar.update(done - self._bar.n)
        if self._bar.total <= done:
            self._bar.close()


class _Cell:
    """One line below a notebook's cell that is replaced in place: plain text, which leaves no widget in the file."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str, done: int, numbers: str) -> None:
        from IPython.display import display

        content = {"text/plain": text}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


def in_kernel() -> bool:
    """Whether this process runs a notebook's cells."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def quiet_libraries() -> None:
    """Switch off the bars of the hub, transformers and datasets, and what they tell about us, as they are imported.

    In a notebook what is logged stands below the cell in plain text: stderr is shown in red, as if something were wrong.

    A person who wants them sets HF_HUB_DISABLE_PROGRESS_BARS=0.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    # torch remarks on torchao's classes as it is imported, in red
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    if in_kernel() and not (root := logging.getLogger()).handlers:
        logging.captureWarnings(True)
        plain = logging.StreamHandler(sys.stdout)
        plain.setFormatter(logging.Formatter("note: %(message)s"))
        root.addHandler(plain)


def clock(seconds: float) -> str:
    """`75.2` -> `1:15`; with hours where there are any."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
