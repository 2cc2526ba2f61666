"""What the parts of the fault campaign share: the tally, command lines, processes, results (see faults.py)."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

BAD = ("crashed", "hung", "wrong", "lost")
EXAMPLES = 6
TOKEN = "TIMER1_FAULT_CAMPAIGN"
"""An environment variable that every process of a job inherits, so that none of them can hide."""


@dataclass(slots=True)
class Tally:
    """What came out of one part of the campaign."""

    part: str
    seed: str = ""
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    about: Counter[str] = field(default_factory=Counter)
    """What the bad ones were about: {outcome + kind of fault: count}."""

    def add(self, outcome: str, kind: str, what: str = "") -> None:
        """Count one try: `right`, `refused` or one of `BAD`."""
        self.counts["tried"] += 1
        self.also(outcome, kind, what)

    def also(self, outcome: str, kind: str, what: str = "") -> None:
        """Count an outcome of something that was tried already."""
        self.counts[outcome] += 1
        if outcome in BAD:
            self.about[f"{outcome}: {kind}"] += 1
            found = self.examples.setdefault(f"{outcome}: {kind}", [])
            if len(found) < EXAMPLES:
                found.append(" ".join(what.split())[:300])

    def join(self, other: Tally) -> None:
        """Count what another tally counted too."""
        self.counts += other.counts
        self.about += other.about
        for kind, found in other.examples.items():
            self.examples[kind] = [*self.examples.get(kind, []), *found][:EXAMPLES]

    @property
    def bad(self) -> int:
        return sum(self.counts[name] for name in BAD)

    def to_json(self) -> dict[str, Any]:
        plain = {"part": self.part, "seed": self.seed, "seconds": round(self.seconds, 1), "notes": self.notes}
        return {**plain, "counts": dict(self.counts), "about": dict(self.about), "examples": self.examples}

    def row(self) -> list[str]:
        keys = ("tried", "right", "refused", *BAD)
        return [self.part, *(f"{self.counts[key]:,}" for key in keys), f"{self.seconds:.0f} s"]


@dataclass(slots=True)
class Bench:
    """Where a campaign works and how much of it there is."""

    folder: Path
    seed: int = 0
    jobs: int = 2
    small: bool = False

    def rng(self, part: str) -> random.Random:
        return random.Random(f"{self.seed}/{part}")

    def new(self, name: str) -> Path:
        """An empty folder of this name."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupt what this (main) thread does after so many seconds.

    Raises:
        TimeoutError: it took longer.
    """

    def ring(_number: int, _frame: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command line left: exit status (None where it was stopped), its two outputs, and the seconds it took."""

    status: int | None
    out: str
    err: str
    seconds: float = 0.0

    @property
    def lines(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.strip()]

    def fault(self, *words: str) -> tuple[str, str] | None:
        """(outcome, why) where this is no success and no clean refusal that holds one of the words."""
        if self.status is None:
            return "hung", f"after {self.seconds:.0f} s"
        if "Traceback" in self.err or "fault of timer1's own" in self.err:
            return "crashed", self.lines[-1] if self.lines else ""
        if self.status not in (0, 2):
            return "crashed", f"exit {self.status}: {' '.join(self.lines[-1:])}"
        if self.status == 2 and len(self.lines) != 1:
            return "crashed", f"{len(self.lines)} lines: {' | '.join(self.lines[-3:])}"
        if self.status == 2 and words and not any(word in self.err for word in words):
            return "crashed", f"names none of {words}: {self.lines[0]}"
        return None


def here(arguments: Sequence[str], seconds: float = 60.0) -> Outcome:
    """A `timer1` command line in this process: quick, for the thousands that only read."""
    from timer1lib.cli import main

    out, err = io.StringIO(), io.StringIO()
    begun = time.monotonic()
    status: int | None
    try:
        with time_limit(seconds), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(list(arguments))
    except TimeoutError:
        status = None
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException as error:
        status = 1
        err.write(f"Traceback: {error!r}")
    return Outcome(status, out.getvalue(), err.getvalue(), time.monotonic() - begun)


# -------------------------------------------------------------------------------------------------------------- processes

TIMER1 = [sys.executable, "-m", "timer1lib.cli"]
Event = tuple[str, str, str]
"""Outcome, kind of fault, what happened: what `Tally.add` takes."""


class Job:
    """A command line in a process group of its own, with everything that it starts, however deep.

    Its outputs go to files: a pipe would be held open by whoever outlives it.
    """

    _numbers = itertools.count()

    def __init__(self, command: Sequence[str], folder: Path, cwd: Path = ROOT, file_limit: int = 0, **environment: str) -> None:
        self.token = f"{os.getpid()}-{next(self._numbers)}"
        self._out, self._err = (folder / f".job{self.token}.{name}" for name in ("out", "err"))
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
        limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))) if file_limit else None
        self.begun = time.monotonic()
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, start_new_session=True, preexec_fn=limit,
                env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "200", **environment, TOKEN: self.token},
            )  # fmt: skip

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def family(self) -> list[psutil.Process]:
        """Every living process that this job started, itself included, in the order of their beginning."""
        found = []
        for process in psutil.process_iter(["status", "create_time"]):
            with contextlib.suppress(psutil.Error, OSError):
                if process.info["status"] != psutil.STATUS_ZOMBIE and process.environ().get(TOKEN) == self.token:
                    found.append(process)
        return sorted(found, key=lambda process: process.info["create_time"])

    def victims(self, who: str) -> list[int]:
        """Process ids of the `runner`, of its `kernel`, or of the `worker`s that the kernel started."""
        if who == "runner":
            return [self.process.pid]
        kernels, workers = [], []
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                parent = process.ppid()
                (kernels if parent == self.process.pid else workers if parent in kernels else []).append(process.pid)
        return kernels if who == "kernel" else workers

    def kill(self, who: str, number: int) -> bool:
        """Send a signal; False where there is nobody to send it to."""
        with contextlib.suppress(ProcessLookupError):
            if who == "group":
                os.killpg(self.process.pid, number)
                return True
            for victim in self.victims(who)[-1:]:
                os.kill(victim, number)
                return True
        return False

    def wait(self, seconds: float) -> Outcome:
        """How it ended; a status of None where it did not and was stopped."""
        try:
            status: int | None = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        if status is None:
            self.end()
        texts = [path.read_text(errors="replace") for path in (self._out, self._err)]
        return Outcome(status, texts[0], texts[1], time.monotonic() - self.begun)

    def left_behind(self, seconds: float = 20.0) -> list[str]:
        """Command lines of the processes that still live after so many seconds; they are ended then."""
        deadline = time.monotonic() + seconds
        while (family := self.family()) and time.monotonic() < deadline:
            time.sleep(0.2)
        names = []
        for process in family:
            with contextlib.suppress(psutil.Error):
                names.append(" ".join(process.cmdline())[-80:])
        self.end()
        return names

    def end(self) -> None:
        """End all of the job's own processes."""
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.wait()


def run_job(command: Sequence[str], folder: Path, seconds: float = 600.0, **more: Any) -> Outcome:
    return Job(command, folder, **more).wait(seconds)


# ------------------------------------------------------------------------------------------------------- comparing results

_CLOCKED = re.compile(r"(^|[_/])(seconds|time|runtime|finished|started|mtime_ns|per_second|size)$|^time/")
RESULTS = ("data", "checkpoints", "logs", "predictions", "metrics.json", "difficulty.jsonl")


def _timeless(value: Any, folders: Sequence[tuple[str, str]], name: str) -> Any:
    """A JSON value without times, places and the run's name, which differ between any two runs."""
    if isinstance(value, dict):
        return {key: _timeless(inner, folders, name) for key, inner in value.items() if not _CLOCKED.search(key)}
    if isinstance(value, list):
        return [_timeless(inner, folders, name) for inner in value]
    if value == name:  # inside a text it would be any word
        return "RUN"
    if isinstance(value, str):
        for folder, place in folders:
            value = value.replace(folder, place)
    return value


def results(run: Path, cache: Path | None = None) -> dict[str, str]:
    """{file: digest} of everything that a run is for, and of the videos that were drawn for it."""
    whole = run.parent / "whole"  # what a copied run still names as its place
    folders = [(f"{whole}.cache", "CACHE"), (str(cache), "CACHE"), (str(run), "RUN"), (str(whole), "RUN")]
    found = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if not path.is_file() or not name.startswith(RESULTS):
            continue
        content = path.read_bytes()
        with contextlib.suppress(ValueError):  # not JSON: the bytes themselves
            lines = (
                content.decode().splitlines() if path.suffix == ".jsonl" else [content.decode()] if path.suffix == ".json" else []
            )
            rows = [_timeless(json.loads(line), folders, run.name) for line in lines]
            content = json.dumps(rows, sort_keys=True).encode() if lines else content
        found[name] = hashlib.sha256(content).hexdigest()
    for path in sorted(cache.glob("world-*/**/*.mp4")) if cache else ():
        found[f"world/{path.parent.name}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def compared(kind: str, expected: dict[str, str], found: dict[str, str]) -> list[Event]:
    """What is wrong with a run's results: files that are gone or other than they should be."""
    events = []
    if gone := sorted(set(expected) - set(found)):
        events.append(("lost", kind, f"{len(gone)} files are gone: {', '.join(gone[:4])}"))
    if other := sorted(name for name in expected if name in found and found[name] != expected[name]):
        events.append(("wrong", kind, f"{len(other)} files differ: {', '.join(other[:4])}"))
    return events


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}
