"""Stamps: what a finished stage was made from and what it left. Without a valid one a stage is not believed.

A stage writes into `.work/grpo/` (see `RunFolder.at`) and is published when it is finished: a journal is written, its
files change places with the old ones, and `stages/04_grpo.json` comes last; whoever opens the run after a kill in
between does what the journal says. So the last finished result stands until another one is. What was replaced waits in
`.previous/`, where it is found again by its key, until the whole run has finished.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, read_json, sha256_file
from timer1lib.params.sections import Params
from timer1lib.runfolder import WORK, RunFolder, owner, run_files
from timer1lib.runs.graph import STAGES, StageRef, find_stage, upstream
from timer1lib.runs.kernel import KERNEL_LOCK, RANKS_LOCK, RUNNER_LOCK
from timer1lib.runs.keys import key_parts
from timer1lib.runs.manifest import now
from timer1lib.workers.nodes import MARK

_KNOWN = (RUNNER_LOCK, KERNEL_LOCK, RANKS_LOCK, MARK, ".progress", ".row.json", ".row-result.json", ".store", "run.log")
"""What may lie in a run's folder before its manifest does."""


def refuse_foreign(root: Path, *ours: str) -> None:
    """Leave a folder alone (Timer1Error) that has files, but no stamp or manifest of ours, nor what matches `ours`."""
    if not root.is_dir():
        return
    with contextlib.suppress(Timer1Error, TypeError, KeyError):
        if read_json(root / "manifest.json")["timer1"]:
            return
    names = [path.name for path in root.iterdir() if path.name not in _KNOWN and not path.name.startswith(".manifest.json.")]
    if names and not any(found for pattern in ("stages/*.json", WORK, *ours) for found in root.glob(pattern)):
        raise Timer1Error(f"{root}: holds {min(names)!r} and no run of timer1's; name an empty or new folder")


@dataclass(frozen=True, slots=True)
class Output:
    """One file that a stage left: digest, bytes, and the time stamp that saves hashing it again."""

    sha256: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Stamp:
    key: str
    parts: dict[str, Any]
    outputs: dict[str, Output]
    seconds: float
    finished: str
    reused_from: str | None = None
    """The run whose result this is, where a sweep ran the stage once for several rows."""

    def digests(self) -> dict[str, str]:
        return {name: output.sha256 for name, output in self.outputs.items()}


def read_stamp(run: RunFolder, stage: StageRef) -> Stamp | None:
    """The stage's stamp; None where there is none or it cannot be read (an unreadable one is as good as none)."""
    try:
        row = read_json(run.stamp(stage.notebook))
        if not isinstance(row["parts"], dict):
            return None
        return _stamp(row)
    except (Timer1Error, KeyError, TypeError, AttributeError):
        return None


def _stamp(row: Mapping[str, Any]) -> Stamp:
    return Stamp(**{**row, "outputs": {name: Output(**output) for name, output in row["outputs"].items()}})


def parts_of(params: Params, run: RunFolder, notebooks: Path, package: Path, stage: StageRef) -> dict[str, Any]:
    """The parts of a stage's key, its earlier stages' results as they stand."""
    stamps = {name: read_stamp(run, find_stage(name)) for name in upstream(stage.name, params)}
    read = {name: stamp.digests() if stamp else {} for name, stamp in stamps.items()}
    return key_parts(params, stage, notebooks / f"{stage.notebook}.ipynb", package, read, run.notes)


@dataclass(frozen=True, slots=True)
class Started:
    """A stage that was begun: under which key, and the run's files (modification times, ns) as they were then.

    It runs since `since` (seconds since 1970), and was at work for `spent` seconds before it was killed and went on.
    """

    key: str
    before: dict[str, int]
    since: float
    spent: float = 0.0


def _started_path(run: RunFolder, stage: StageRef) -> Path:
    return run.root / WORK / f"{stage.name}.started.json"


def read_started(run: RunFolder, stage: StageRef) -> Started | None:
    """What is known of a stage that was begun and never finished; None where there is no such stage."""
    try:
        return Started(**read_json(_started_path(run, stage)))
    except (Timer1Error, TypeError):
        return None


def begin(run: RunFolder, stage: StageRef, key: str, fresh: bool = False) -> tuple[bool, dict[str, int]]:
    """Make a stage's work folder ready; nothing that is finished is touched.

    Returns whether it goes on with what a killed run under the same key left, and the run's files at its first beginning.
    """
    started = read_started(run, stage)
    if started is not None and started.key == key and not fresh:
        # when it was killed nobody could write down: by its last file
        written = max((path.stat().st_mtime for path in work_folder(run, stage).rglob("*")), default=0.0)
        spent = started.spent + max(0.0, written - started.since)
        atomic_write_json(_started_path(run, stage), asdict(replace(started, since=time.time(), spent=spent)))
        return True, started.before
    _started_path(run, stage).unlink(missing_ok=True)
    staging = work_folder(run, stage)
    ready = staging.with_name(f".{stage.name}.new")
    shutil.rmtree(ready, ignore_errors=True)
    ready.mkdir(parents=True)
    for base in (run.root, staging):  # answers of other machines' shares, which have keys of their own
        for path in (base / "predictions").glob("**/*.[0-9]*of[0-9]*.json*") if stage.name == "evaluate" else ():
            _link_or_copy(path, ready / path.relative_to(base))
    shutil.rmtree(staging, ignore_errors=True)
    os.replace(ready, staging)
    before = {name: (run.root / name).stat().st_mtime_ns for name in run_files(run.root)}
    atomic_write_json(_started_path(run, stage), asdict(Started(key, before, time.time())))
    return False, before


def go_on_as(run: RunFolder, stage: StageRef, key: str) -> None:
    """Note another key for a stage that was begun."""
    if started := read_started(run, stage):
        atomic_write_json(_started_path(run, stage), asdict(replace(started, key=key)))


def work_folder(run: RunFolder, stage: StageRef) -> Path:
    return RunFolder(run.root, stage.name).staging


def finish(run: RunFolder, stage: StageRef, key: str, parts: dict[str, Any], before: Mapping[str, int], seconds: float) -> Stamp:
    """Publish what a stage left in its work folder, and what its notebook wrote past it, new or changed since `before`.

    `before` are modification times (ns) of the run's files when the stage began, `seconds` what it took since it last went on.
    """
    started = read_started(run, stage)
    staged = work_folder(run, stage)
    outputs = {name: output_of(staged / name) for name in run_files(staged)}
    for name in run_files(run.root):
        past = name not in outputs and owner(name) in (None, stage.name)
        if past and (run.root / name).stat().st_mtime_ns != before.get(name):
            outputs[name] = output_of(run.root / name)
    stamp = Stamp(key, parts, outputs, round(seconds + (started.spent if started else 0), 3), now())
    publish(run, stage, staged, stamp)
    return stamp


def publish(run: RunFolder, stage: StageRef, source: Path, stamp: Stamp) -> None:
    """Declare a stage finished: its files in `source` come into their places, what they replace goes to `.previous/`.

    `source` is the stage's work folder, or an entry of `.previous/`, laid out as the run is.
    """
    old = read_stamp(run, stage)
    notebook = run.notebook(stage.notebook).relative_to(run.root).as_posix()
    replaced = {name for name in run_files(run.root) if owner(name) == stage.name} | set(old.outputs if old else ())
    whole = old is not None and damaged(run, old) is None
    aside = _previous(run).root / (entry_name(stage, old.key) if old and whole else f"{stage.notebook}-unfinished")
    shutil.rmtree(aside, ignore_errors=True)
    journal = {
        "source": source.relative_to(run.root).as_posix(),
        "aside": aside.relative_to(run.root).as_posix(),
        # what a notebook wrote past its work folder stands in its place already; the old stamp goes last
        "replaced": [n for n in sorted(replaced) if n not in stamp.outputs or (source / n).is_file()]
        + [notebook, run.stamp(stage.notebook).relative_to(run.root).as_posix()],
        "new": [*stamp.outputs, notebook],
        "stamp": asdict(stamp),
    }
    atomic_write_json(_journal_path(run, stage), journal)
    _roll_forward(run, stage)


def _journal_path(run: RunFolder, stage: StageRef) -> Path:
    return run.root / WORK / f"{stage.name}.journal.json"


def _roll_forward(run: RunFolder, stage: StageRef) -> None:
    """Do what is left of a journal: every step is one rename, and one that was done is passed over."""
    path = _journal_path(run, stage)
    if not path.is_file():
        return
    journal = read_json(path)
    source, aside, stamp = run.root / journal["source"], run.root / journal["aside"], _stamp(journal["stamp"])
    if read_stamp(run, stage) != stamp:
        for name in journal["replaced"]:
            if name not in journal["new"] or (source / name).is_file():
                _move(run.root, aside, name)
        for name in journal["new"]:
            _move(source, run.root, name)
        atomic_write_json(run.stamp(stage.notebook), asdict(stamp))
    _started_path(run, stage).unlink(missing_ok=True)
    shutil.rmtree(source, ignore_errors=True)
    path.unlink()


def _move(source: Path, target: Path, name: str) -> None:
    """Move a file between two folders of one layout; folders that this empties go."""
    if not (source / name).is_file():
        return
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    os.replace(source / name, target / name)
    for folder in (source / name).parents:
        if folder == source or any(folder.iterdir()):
            break
        folder.rmdir()


_TEMPORARY = re.compile(r"\.(.+\.(json|jsonl|yaml|html)\.[a-z0-9_]{8}|[^.]+\.[a-z0-9_]{8}\.ipynb)")


def clean(run: RunFolder) -> None:
    """Heal what a kill left: half published stages, and files that were being written."""
    for path in run.root.rglob(".*"):
        if path.is_file() and _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)
    for stage in STAGES:
        _roll_forward(run, stage)


def _previous(run: RunFolder) -> Store:
    return Store(run.root / ".previous")


def bring_back(run: RunFolder, stage: StageRef, key: str) -> Stamp | None:
    """Put a result that was replaced into its place again where it is this key's; None where there is none."""
    entry = _previous(run).find(stage, key)
    stamp = read_stamp(entry, stage) if entry else None
    if entry is None or stamp is None:
        return None
    publish(run, stage, entry.root, stamp)
    return stamp


def forget_previous(run: RunFolder) -> None:
    """The whole run has finished: what its stages replaced is no longer kept."""
    shutil.rmtree(_previous(run).root, ignore_errors=True)


def output_of(path: Path) -> Output:
    stat = path.stat()
    return Output(sha256_file(path), stat.st_size, stat.st_mtime_ns)


def damaged(run: RunFolder, stamp: Stamp) -> str | None:
    """The first output that is missing or no longer what the stage left; None where all stand."""
    for name, output in stamp.outputs.items():
        path = run.root / name
        if not path.is_file():
            return f"{name} is missing"
        stat = path.stat()
        same_stat = (stat.st_size, stat.st_mtime_ns) == (output.size, output.mtime_ns)
        if not same_stat and (stat.st_size != output.size or sha256_file(path) != output.sha256):
            return f"{name} has changed"
    return None


LINK_FROM_BYTES = 1 << 20
"""Files this large are linked. They are checkpoints, which are only ever replaced, never written in place."""


class Claimed(Exception):
    """Another process works on this very stage under this key."""


class Store:
    """Stages by key under one folder, safe for several processes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def claim(self, stage: StageRef, key: str) -> Iterator[None]:
        """Only one process at a time works on a key; another one is told so by `Claimed`, and does not wait here."""
        locks = self.root / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / entry_name(stage, key), blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise Claimed(entry_name(stage, key)) from None
        try:
            yield
        finally:
            lock.release()

    def find(self, stage: StageRef, key: str) -> RunFolder | None:
        """The entry of a key, whole and undamaged; None where there is none."""
        entry = RunFolder(self.root / entry_name(stage, key))
        stamp = read_stamp(entry, stage)
        return None if stamp is None or stamp.key != key or damaged(entry, stamp) else entry

    def take(self, entry: RunFolder, run: RunFolder, stage: StageRef) -> Stamp:
        """Publish an entry in a run."""
        stamp = read_stamp(entry, stage)
        if stamp is None:
            raise Timer1Error(f"{entry.root}: this shared stage has lost its stamp; remove the folder and run again")
        _started_path(run, stage).unlink(missing_ok=True)
        staging = work_folder(run, stage)
        shutil.rmtree(staging, ignore_errors=True)
        _share(entry, RunFolder(staging), stage, stamp)
        publish(run, stage, staging, stamp)
        return stamp

    def put(self, run: RunFolder, stage: StageRef) -> None:
        """Publish a run's finished stage."""
        stamp = read_stamp(run, stage)
        if stamp is None:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        temporary = RunFolder(Path(tempfile.mkdtemp(dir=self.root, prefix=".new-")))
        _share(run, temporary, stage, stamp)
        atomic_write_json(temporary.stamp(stage.notebook), asdict(replace(stamp, reused_from=run.root.name)))
        target = self.root / entry_name(stage, stamp.key)
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary.root, target)


def entry_name(stage: StageRef, key: str) -> str:
    return f"{stage.notebook}-{key[:24]}"


def _share(source: RunFolder, target: RunFolder, stage: StageRef, stamp: Stamp) -> None:
    for name in stamp.outputs:
        _link_or_copy(source.root / name, target.root / name)
    _link_or_copy(source.notebook(stage.notebook), target.notebook(stage.notebook))


def _link_or_copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if source.stat().st_size >= LINK_FROM_BYTES:
        with contextlib.suppress(OSError):  # another file system: copy
            os.link(source, target)
            return
    shutil.copy2(source, target)
