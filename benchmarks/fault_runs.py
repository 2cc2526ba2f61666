"""Small runs that are killed, started again and compared, and disks, folders and caches that fail them (see faults.py)."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fault_tools import BAD, TIMER1, Bench, Event, Job, Outcome, Tally, compared, contents, results

PATIENCE = 600.0
"""Seconds that a whole small run may take."""


TINY = {
    "shared": {"frames": 8, "total_pixels": 4 * 56 * 56},
    "curate": {"train_videos": 8, "test_videos": 3, "ood_videos": 2, "questions": 1},
    "sft": {"samples": 16, "steps": 4, "batch_size": 8, "micro_batch_size": 8, "save_every": 2},
    "grpo": {"epochs": 2, "steps_per_epoch": 3, "prompts_per_step": 2, "num_generations": 4, "save_every": 1},
    "evaluate": {"resamples": 100, "perturb_samples": 4},
}  # fmt: skip


class TinyRuns:
    """Whole runs of the embedded world, as small as they can be: a handful of videos and 4 + 6 steps."""

    def __init__(self, bench: Bench) -> None:
        self.folder = bench.new("tiny")
        self.params = self.folder / "params.yaml"
        self.params.write_text(json.dumps({"name": "faults", **TINY}))

    def place(self, name: str) -> Path:
        return self.folder / name

    def cache(self, name: str) -> Path:
        return self.folder / f"{name}.cache"

    def start(self, name: str, *more: str, cache: Path | None = None, out: Path | None = None, file_limit: int = 0) -> Job:
        where = ["--out", str(out or self.place(name)), "-p", f"shared.cache_dir={cache or self.cache(name)}"]
        return Job([*TIMER1, "run", str(self.params), *where, *more], self.folder, file_limit=file_limit)

    def remove(self, name: str) -> None:
        shutil.rmtree(self.place(name), ignore_errors=True)
        shutil.rmtree(self.cache(name), ignore_errors=True)

    def results(self, name: str) -> dict[str, str]:
        return results(self.place(name), self.cache(name))

    @functools.cached_property
    def expected(self) -> dict[str, str]:
        """The results of a run that nobody disturbed, which stays in place as `whole`."""
        outcome = self.start("whole").wait(PATIENCE)
        if outcome.status != 0:
            raise SystemExit(f"the undisturbed run failed: {outcome.err[-500:]}")
        return self.results("whole")


STUB_RUN = """
import sys
from pathlib import Path
from stub_project import Project
from timer1lib.params.sections import Params
from timer1lib.runs.execute import NotebookFailed
from timer1lib.runs.runner import run
root = Path(sys.argv[1])
try:
    run(Params(), project=Project(root, root / "notebooks", root / "timer1lib"), until=sys.argv[2], report=False)
except NotebookFailed as error:
    sys.exit(f"timer1: {error}")
"""


class StubRuns:
    """Runs of stand-ins for the first notebooks, over in seconds: runner, kernels and stamps are the real ones."""

    def __init__(self, bench: Bench) -> None:
        self.folder, self.until = bench.new("stub"), "02" if bench.small else "05"

    def place(self, name: str) -> Path:
        return self.folder / name / "outputs" / "tiny"

    def cache(self, name: str) -> Path:
        return self.folder / name

    def start(self, name: str) -> Job:
        from stub_project import make_project

        if not (self.folder / name).exists():
            make_project(self.folder / name)
        return Job([sys.executable, "-c", STUB_RUN, str(self.folder / name), self.until], self.folder, STUB_STEP_SECONDS="0.1")

    def remove(self, name: str) -> None:
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def results(self, name: str) -> dict[str, str]:
        return results(self.place(name))

    @functools.cached_property
    def expected(self) -> dict[str, str]:
        outcome = self.start("whole").wait(PATIENCE)
        if outcome.status != 0:
            raise SystemExit(f"the undisturbed stub run failed: {outcome.err[-500:]}")
        return self.results("whole")


Runs = TinyRuns | StubRuns


@functools.lru_cache(maxsize=1)
def tiny_runs(folder: Path) -> TinyRuns:
    """One undisturbed run serves every part of a campaign."""
    return TinyRuns(Bench(folder))


@functools.lru_cache(maxsize=1)
def stub_runs(folder: Path, small: bool) -> StubRuns:
    return StubRuns(Bench(folder, small=small))


@dataclass(slots=True)
class Kill:
    """Whom to kill, with which signal, and when: after seconds, or when a file appears whose name matches a pattern."""

    who: str
    number: signal.Signals
    moment: float | str
    chances: int = 2
    """Runs in which the moment may come; it is given up then."""

    def __str__(self) -> str:
        when = f"after {self.moment:.1f} s" if isinstance(self.moment, float) else f"when {self.moment} is written"
        return f"{self.number.name} to the {self.who} {when}"


WHO = ("group", "runner", "kernel", "worker")
MOMENTS = (
    r"world-.*\.mp4", r"data/train\.jsonl", r"stages/01_curate\.json", r"sft.*checkpoint-\d+", r"sft.*optimizer\.pt",
    r"sft/model\.safetensors", r"sft\.journal", r"difficulty", r"grpo.*checkpoint-\d+", r"grpo.*optimizer\.pt",
    r"grpo/model\.safetensors", r"predictions/.*part", r"metrics\.json", r"report\.html",
)  # fmt: skip
STUB_MOMENTS = (r"notebooks/\.?02", r"stages/01_curate\.json")


def signals(rng: random.Random, who: str) -> signal.Signals:
    return signal.SIGKILL if who in ("kernel", "worker") else rng.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGHUP))


def kills(bench: Bench, count: int = 20) -> list[Tally]:
    """Kills at random moments: a third in real runs, the rest in runs of stand-in notebooks."""
    rng, real = bench.rng("kills"), 0 if bench.small else count * 2 // 5
    tiny = [Kill(who, signals(rng, who), rng.uniform(2, 25)) for who in [WHO[i % 4] for i in range(real)]]
    stub = [
        Kill(who, signals(rng, who), rng.uniform(0.5, 3 if bench.small else 6))
        for who in [WHO[i % 3] for i in range(count - real)]
    ]
    return [disturbed(bench, Tally("kills at random moments"), tiny, stub)]


def moments(bench: Bench, count: int = 14) -> list[Tally]:
    """Kills when a file has just appeared."""
    rng = bench.rng("moments")
    whom = [rng.choice(WHO if i < 5 else WHO[:3]) for i in range(count)]
    kills = [Kill(who, signals(rng, who), moment) for who, moment in zip(whom, MOMENTS, strict=False)]
    if bench.small:
        stub = [Kill(WHO[i % 3], signal.SIGKILL, moment) for i, moment in enumerate(STUB_MOMENTS[:count])]
        return [disturbed(bench, Tally("kills at write moments"), [], stub)]
    kills[0].who = "worker"
    return [disturbed(bench, Tally("kills at write moments"), kills, [])]


@dataclass(slots=True)
class Share:
    """A row of runs that is killed again and again: an event for every kill, and the faults that whole runs showed."""

    runs: Runs
    name: str
    plan: list[Kill]
    tried: list[Event] = field(default_factory=list)
    faults: list[Event] = field(default_factory=list)
    unmet: list[Kill] = field(default_factory=list)


def disturbed(bench: Bench, tally: Tally, tiny: list[Kill], stub: list[Kill]) -> Tally:
    """Spread the kills over rows of runs, two at a time, each run started again until it is whole."""
    word = tally.part.split()[2]
    shares = [Share(stub_runs(bench.folder, bench.small), f"{word}-stub", stub)] if stub else []
    shares += [Share(tiny_runs(bench.folder), f"{word}-tiny{i}", tiny[i::2]) for i in range(2) if tiny]
    for share in shares:
        _ = share.runs.expected
    with ThreadPoolExecutor(bench.jobs) as pool:
        list(pool.map(kill_and_go_on, shares))
    for share in shares:
        for event in share.tried:
            tally.add(*event)
        for event in share.faults:
            tally.also(*event)
        tally.notes += [f"not tried, its moment never came: {kill}" for kill in share.unmet]
    return tally


def kill_and_go_on(share: Share) -> None:
    """Runs with one kill an attempt until the plan is empty; each ends whole and is compared with the undisturbed one."""
    number = 0
    while share.plan:
        name = f"{share.name}{number}"
        number += 1
        done, finished = one_run(share, name)
        said = f"after {'; '.join(map(str, done)) or 'no kill'}"
        now = stamps(share.runs.place(name))
        again = [stage for stage, when in finished.items() if now.get(stage) != when]
        share.faults += [("lost", "a finished stage ran again", f"{stage} {said}") for stage in again]
        found = share.runs.results(name)
        share.faults += [
            (outcome, "after kills", f"{what} ({said})") for outcome, _, what in compared(name, share.runs.expected, found)
        ]
        share.runs.remove(name)


def one_run(share: Share, name: str) -> tuple[list[Kill], dict[str, str]]:
    """One run, killed and started again until it ends by itself: the kills it saw, and the stages that were finished by then."""
    done: list[Kill] = []
    finished: dict[str, str] = {}
    while True:
        kill = share.plan[0] if share.plan else None
        job = share.runs.start(name)
        struck = kill is not None and strike(job, kill, share.runs, name)
        outcome = job.wait(60 if struck and kill and kill.who in ("group", "runner") else PATIENCE)
        if kill is not None and struck:
            done.append(share.plan.pop(0))
            finished |= stamps(share.runs.place(name))
            share.tried.append(after(job, kill, outcome))
        elif kill is not None:
            kill.chances -= 1
            share.unmet += [] if kill.chances else [share.plan.pop(0)]
        if not struck and outcome.status != 0:
            share.faults.append(("crashed", "cannot go on", f"after {'; '.join(map(str, done))}: {outcome.err[-300:]}"))
        if not struck or outcome.status == 0:
            return done, finished


def stamps(run: Path) -> dict[str, str]:
    """{stage: when it was finished}."""
    found = {}
    for path in (run / "stages").glob("0*.json"):
        with contextlib.suppress(ValueError, KeyError, OSError):
            found[path.stem] = json.loads(path.read_text())["finished"]
    return found


def strike(job: Job, kill: Kill, runs: Runs, name: str) -> bool:
    """Wait for the moment and kill; False where the job ended before."""
    folders = (runs.place(name), runs.cache(name))
    known = set(files(folders))
    while job.running:
        if isinstance(kill.moment, float):
            met = time.monotonic() - job.begun >= kill.moment
        else:
            met = any(re.search(kill.moment, path) for path in set(files(folders)) - known)
        if met and job.kill(kill.who, kill.number):
            return True
        time.sleep(0.002 if isinstance(kill.moment, str) and not met else 0.05)
    return False


def files(folders: Sequence[Path]) -> Iterator[str]:
    """Paths below the folders, the work of other processes among them."""
    for folder in folders:
        for place, _, names in os.walk(folder):
            yield from (os.path.join(place, name) for name in names)


def after(job: Job, kill: Kill, outcome: Outcome) -> Event:
    """What a kill left behind."""
    if left := job.left_behind():
        return "hung", f"left behind by {kill.number.name} to the {kill.who}", f"{kill}: {len(left)} processes: {left[0]}"
    if outcome.status is None:
        return "hung", f"no end after {kill.number.name} to the {kill.who}", str(kill)
    if "Traceback" in outcome.err or "fault of timer1's own" in outcome.err:
        return "crashed", f"after {kill.number.name} to the {kill.who}", f"{kill}: {outcome.err[-300:]}"
    return "right", str(kill), ""


# ------------------------------------------------------------------------------------------------------------------- disk


class NotHere(Exception):
    """This machine cannot plant a fault: it needs the right to mount."""


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A small disk of its own at `folder`.

    Raises:
        NotHere: no right to mount.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if made.returncode:
        raise NotHere(made.stderr.strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True)


def small_disk(folder: Path, megabytes: float) -> contextlib.AbstractContextManager[Path]:
    return mounted(folder, "-t", "tmpfs", "-o", f"size={int(megabytes * 1024)}k", "tmpfs")


def read_only(folder: Path) -> contextlib.AbstractContextManager[Path]:
    return mounted(folder, "-o", "bind,ro", str(folder))


def first_two(runs: TinyRuns) -> dict[str, str]:
    """What an undisturbed run has after 01 and 02."""
    return {name: digest for name, digest in runs.expected.items() if name.startswith(("checkpoints/sft", "data/train.jsonl"))}


def refused(outcome: Outcome, *words: str) -> Event:
    """Whether a run that cannot succeed says so in one line that names the culprit; a stage that failed may exit 1."""
    what = f"exit {outcome.status}: {' | '.join(outcome.lines[-3:])}"
    said = outcome.lines[-1] if outcome.lines else ""
    clean = outcome.status in (1, 2) and "Traceback" not in outcome.err and "fault of timer1's own" not in outcome.err
    if outcome.status == 0:
        return "wrong", "taken as if it were right", what
    return ("refused" if clean and any(word in said for word in words) else "crashed"), "unclear", what


def finishes(runs: TinyRuns, name: str, expected: dict[str, str], *more: str, **where: Any) -> list[Event]:
    """A run that must end well, with these results."""
    outcome = runs.start(name, *more, **where).wait(PATIENCE)
    if outcome.status != 0:
        return [("crashed", "does not finish", f"exit {outcome.status}: {' | '.join(outcome.lines[-2:])}")]
    found = results(where.get("out") or runs.place(name), where.get("cache") or runs.cache(name))
    return compared("other results", expected, found) or [("right", "", "")]


def full_run_folder(runs: TinyRuns, bench: Bench) -> list[Event]:
    """2 MB for a checkpoint of 3: one line that names the folder; with room again the run goes on."""
    with small_disk(runs.folder / "small", 2) as disk:
        outcome = runs.start("full", "--until", "02", out=disk / "run").wait(PATIENCE)
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        return [refused(outcome, str(disk)), *finishes(runs, "full", first_two(runs), "--until", "02", out=disk / "run")]


def files_too_large(runs: TinyRuns, bench: Bench) -> list[Event]:
    """The same without a right to mount: no file above 1 MB may be written."""
    outcome = runs.start("limited", "--until", "02", file_limit=1_000_000).wait(PATIENCE)
    return [refused(outcome, str(runs.place("limited"))), *finishes(runs, "limited", first_two(runs), "--until", "02")]


def full_cache(runs: TinyRuns, bench: Bench) -> list[Event]:
    """A cache that has its videos and no room for anything else costs speed alone."""
    world = list(runs.cache("whole").glob("world-*"))
    size = sum(path.stat().st_size for folder in world for path in folder.rglob("*") if path.is_file())
    with small_disk(runs.folder / "full-cache", size / 1e6 + 2) as disk:
        for folder in world:
            shutil.copytree(folder, disk / folder.name)
        (disk / "rest").write_bytes(bytes(max(0, shutil.disk_usage(disk).free - 40_000)))
        return finishes(runs, "cacheless", first_two(runs), "--until", "02", cache=disk)


def read_only_cache(runs: TinyRuns, bench: Bench) -> list[Event]:
    """The same for one that cannot be written to."""
    cache = runs.folder / "read-only-cache"
    for folder in runs.cache("whole").glob("world-*"):
        shutil.copytree(folder, cache / folder.name)
    with read_only(cache):
        return finishes(runs, "read-only", first_two(runs), "--until", "02", cache=cache)


def read_only_run(runs: TinyRuns, bench: Bench) -> list[Event]:
    folder = bench.new("tiny/locked")
    with read_only(folder):
        return [refused(runs.start("locked", "--until", "01", cache=runs.cache("whole")).wait(PATIENCE), str(folder))]


def own_files(runs: TinyRuns, bench: Bench) -> list[Event]:
    """`--out` on a folder that holds somebody's work: refused, and not a byte of it touched."""
    folder = bench.new("tiny/mine")
    for name in ("params.yaml", "data/mine.csv", "checkpoints/sft/model.safetensors", "report.html", "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"my own {name}")
    before = contents(folder)
    event = refused(runs.start("mine", "--until", "01").wait(PATIENCE), str(folder))
    gone = [name for name, content in before.items() if contents(folder).get(name) != content]
    return [event, *([("lost", "somebody's own files", ", ".join(gone))] if gone else [])]


def two_runners(runs: TinyRuns, bench: Bench) -> list[Event]:
    first = runs.start("two", "--until", "02")
    wait_for(lambda: (runs.place("two") / "params.yaml").exists() or not first.running)
    second = refused(runs.start("two", "--until", "02").wait(PATIENCE), str(runs.place("two")))
    done = first.wait(PATIENCE)
    fault = [] if done.status == 0 else [("crashed", "the first of two runners", done.err[-300:])]
    return [second, *(fault or compared("two runners", first_two(runs), runs.results("two")) or [("right", "", "")])]


def shared_cache(runs: TinyRuns, bench: Bench) -> list[Event]:
    """Two runs that draw and decode into one new cache at a time."""
    cache = bench.new("tiny/shared-cache")
    jobs = [runs.start(name, "--until", "02", cache=cache) for name in ("shared1", "shared2")]
    events: list[Event] = []
    for name, job in zip(("shared1", "shared2"), jobs, strict=True):
        outcome = job.wait(PATIENCE)
        fault = [] if outcome.status == 0 else [("crashed", "with a shared cache", outcome.err[-300:])]
        events += fault or compared("shared cache", first_two(runs), results(runs.place(name), cache)) or [("right", "", "")]
    return events


def damaged_cache(runs: TinyRuns, bench: Bench) -> list[Event]:
    """One bit flipped in every file of the cache but the videos, which are no cache."""
    cache, rng = runs.folder / "damaged-cache", bench.rng("damaged cache")
    shutil.copytree(runs.cache("whole"), cache)
    for path in sorted(cache.rglob("*")):
        if path.is_file() and path.suffix != ".mp4" and path.stat().st_size:
            flip(path, rng)
    return finishes(runs, "damaged", runs.expected, cache=cache)


def flip(path: Path, rng: random.Random) -> None:
    raw = bytearray(path.read_bytes())
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)


def deleted_folder(runs: TinyRuns, bench: Bench) -> list[Event]:
    """The run's folder is deleted while 02 works in it: said, by its name; the next run makes it again."""
    folder = runs.place("deleted")
    job = runs.start("deleted", "--until", "02")
    wait_for(lambda: any("checkpoint-" in path for path in files([folder])) or not job.running)
    shutil.rmtree(folder, ignore_errors=True)
    event = refused(job.wait(PATIENCE), str(folder))
    return [event, *finishes(runs, "deleted", first_two(runs), "--until", "02")]


def copied(runs: TinyRuns, name: str) -> Path:
    """A finished run to damage; its cache is shared."""
    _ = runs.expected
    return Path(shutil.copytree(runs.place("whole"), runs.place(name)))


def torn_files(runs: TinyRuns, bench: Bench) -> list[Event]:
    """What a power cut leaves in a finished run: each heals, and the run ends in the same results."""
    folder = copied(runs, "torn")
    answers_file = next(iter(sorted((folder / "predictions").glob("sft.*.jsonl"))))
    rows = answers_file.read_bytes().splitlines(keepends=True)
    answers_file.with_suffix(".part.jsonl").write_bytes(b"".join(rows[:1]) + b'{"id": "200\n' + b"".join(rows[1:]))
    answers_file.unlink()
    for path in (folder / "predictions").glob("sft.*.meta.json"):
        path.write_bytes(path.read_bytes()[:20])
    flip(folder / "checkpoints" / "grpo" / "model.safetensors", bench.rng("torn"))
    (folder / "stages" / "05_evaluate.json").write_text('{"key": "')
    (folder / "manifest.json").write_text("{")
    return finishes(runs, "torn", runs.expected, cache=runs.cache("whole"))


def changed_and_killed(runs: TinyRuns, bench: Bench) -> list[Event]:
    """A mistaken change, killed half way: with the old parameters the old result stands, and nothing runs again."""
    folder = copied(runs, "changed")
    before, known = stamps(folder), set(files([folder]))
    job = runs.start("changed", "-p", "sft.learning_rate=0.01", "--until", "02", cache=runs.cache("whole"))
    wait_for(lambda: any("checkpoint-" in path for path in set(files([folder])) - known) or not job.running)
    job.kill("group", signal.SIGKILL)
    job.wait(60)
    events = finishes(runs, "changed", runs.expected, cache=runs.cache("whole"))
    again = [stage for stage, when in before.items() if stamps(folder).get(stage) != when]
    return [*events, *([("lost", "finished work is done again", ", ".join(again))] if again else [])]


DISK: tuple[Callable[[TinyRuns, Bench], list[Event]], ...] = (
    own_files, full_run_folder, files_too_large, full_cache, read_only_cache, read_only_run, two_runners, shared_cache,
    damaged_cache, deleted_folder, torn_files, changed_and_killed,
)  # fmt: skip


def disk(bench: Bench, count: int = len(DISK)) -> list[Tally]:
    """Disks that are full or read-only, folders and caches that are shared, deleted, damaged, or somebody else's."""
    tally, runs = Tally("disk, folders, caches"), tiny_runs(bench.folder)
    if count > 1:
        _ = runs.expected

    def planted(fault: Callable[[TinyRuns, Bench], list[Event]]) -> list[Event] | str:
        try:
            return fault(runs, bench)
        except NotHere as error:
            return f"not tried: {fault.__name__}: {error}"

    with ThreadPoolExecutor(bench.jobs) as pool:
        for fault, events in zip(DISK, pool.map(planted, DISK[:count]), strict=False):
            if isinstance(events, str):
                tally.notes.append(events)
                continue
            for number, (outcome, kind, what) in enumerate(events):
                count_it = tally.also if number and outcome in BAD else tally.add
                count_it(outcome, f"{fault.__name__}: {kind}", what)
    return [tally]


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
