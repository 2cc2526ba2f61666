"""Stamps: what a finished stage was made from and what it left. Without a valid one a stage is not believed.

`stages/04_grpo.json` is written last, after the executed notebook stands in its place. `stages/04_grpo.started.json`
is written first: only under the same key may a stage go on with what a killed run left, else its files are removed.
A finished result that has to go is moved to `.previous/04_grpo/`, and removed only when the new one is complete: a
mistaken parameter costs no training, since going back to the old one brings the old result back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, read_json, sha256_file
from timer1lib.runfolder import RunFolder
from timer1lib.runs.graph import StageRef, owner, run_files


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
    path = run.stamp(stage.notebook)
    if not path.is_file():
        return None
    try:
        row = read_json(path)
        if not isinstance(row["parts"], dict):
            return None
        return Stamp(**{**row, "outputs": {name: Output(**output) for name, output in row["outputs"].items()}})
    except (Timer1Error, KeyError, TypeError, AttributeError):
        return None


def write_stamp(run: RunFolder, stage: StageRef, stamp: Stamp) -> None:
    """Declare a stage finished; what it replaced is removed."""
    atomic_write_json(run.stamp(stage.notebook), asdict(stamp))
    started_path(run, stage).unlink(missing_ok=True)
    shutil.rmtree(previous(run, stage).root, ignore_errors=True)


def previous(run: RunFolder, stage: StageRef) -> RunFolder:
    """Where a stage's finished result waits until the one that replaces it is complete."""
    return RunFolder(run.root / ".previous" / stage.notebook)


def set_aside(run: RunFolder, stage: StageRef) -> None:
    """Move a stage's whole result away; one that is damaged is left where it is, to be removed."""
    stamp = read_stamp(run, stage)
    if stamp is not None and damaged(run, stamp) is None:
        shutil.rmtree(previous(run, stage).root, ignore_errors=True)
        _move(run, previous(run, stage), stage, stamp)


def bring_back(run: RunFolder, stage: StageRef, key: str) -> Stamp | None:
    """Put the result that was moved away into its place again where it is this key's; None where there is none."""
    kept = previous(run, stage)
    stamp = read_stamp(kept, stage)
    if stamp is None or stamp.key != key or damaged(kept, stamp):
        return None
    remove_outputs(run, stage, read_started(run, stage))
    run.stamp(stage.notebook).unlink(missing_ok=True)
    _move(kept, run, stage, stamp)
    write_stamp(run, stage, stamp)
    return stamp


def _move(source: RunFolder, target: RunFolder, stage: StageRef, stamp: Stamp) -> None:
    """Move a stage's files; the stamp goes last, so that a kill leaves no stamp without its files."""
    files = [source.root / name for name in stamp.outputs]
    for path in [*files, source.notebook(stage.notebook), source.stamp(stage.notebook)]:
        if path.is_file():
            place = target.root / path.relative_to(source.root)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)


def started_path(run: RunFolder, stage: StageRef) -> Path:
    return run.root / "stages" / f"{stage.notebook}.started.json"


@dataclass(frozen=True, slots=True)
class Started:
    """A stage that was begun: under which key, and the run's files (modification times, ns) as they were then."""

    key: str
    before: dict[str, int]


def read_started(run: RunFolder, stage: StageRef) -> Started | None:
    """What is known of a stage that was begun and never finished; None where there is no such stage."""
    try:
        return Started(**read_json(started_path(run, stage)))
    except (Timer1Error, TypeError):
        return None


def begin(run: RunFolder, stage: StageRef, key: str, fresh: bool) -> tuple[bool, dict[str, int]]:
    """Make a stage ready to run: move its old result away, remove what must not be believed, mark it as begun.

    Returns:
        Whether it goes on with what a killed run under the same key left, and the run's files as they were at the
        stage's first beginning.
    """
    started = read_started(run, stage)
    resumed = started is not None and started.key == key and not fresh
    if started is None or not resumed:
        set_aside(run, stage)
        remove_outputs(run, stage, started)
        started_path(run, stage).unlink(missing_ok=True)
        started = Started(key, snapshot(run))
    run.stamp(stage.notebook).unlink(missing_ok=True)
    run.notebook(stage.notebook).unlink(missing_ok=True)
    atomic_write_json(started_path(run, stage), asdict(started))
    return resumed, started.before


def remove_outputs(run: RunFolder, stage: StageRef, started: Started | None) -> None:
    """Remove every file that the stage owns or left behind, and the folders that this empties."""
    stamp = read_stamp(run, stage)
    mine = set(stamp.outputs) if stamp else set()
    for name in run_files(run.root):
        orphan = started is not None and owner(name) is None and name not in started.before
        if orphan or owner(name) == stage.name:
            mine.add(name)
    for name in mine:
        path = run.root / name
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == run.root or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()


def collect_outputs(run: RunFolder, stage: StageRef, before: Mapping[str, int]) -> dict[str, Output]:
    """The stage's files: those it owns by name, and those that nobody owns and that are new or changed since `before`.

    Args:
        before: modification times (ns) of the run's files when the stage began.
    """
    outputs = {}
    for name in run_files(run.root):
        belongs = owner(name)
        if belongs == stage.name or (belongs is None and (run.root / name).stat().st_mtime_ns != before.get(name)):
            outputs[name] = output_of(run.root / name)
    return outputs


def output_of(path: Path) -> Output:
    stat = path.stat()
    return Output(sha256_file(path), stat.st_size, stat.st_mtime_ns)


def snapshot(run: RunFolder) -> dict[str, int]:
    return {name: (run.root / name).stat().st_mtime_ns for name in run_files(run.root)}


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


class Store:
    """Stages by key under one folder, safe for several processes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def claim(self, stage: StageRef, key: str) -> Iterator[None]:
        """Only one process at a time works on a key; others wait here and then find its result."""
        locks = self.root / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / self._name(stage, key)):
            yield

    def find(self, stage: StageRef, key: str) -> RunFolder | None:
        """The entry of a key, whole and undamaged; None where there is none."""
        entry = RunFolder(self.root / self._name(stage, key))
        stamp = read_stamp(entry, stage)
        if stamp is None or stamp.key != key or damaged(entry, stamp):
            return None
        return entry

    def take(self, entry: RunFolder, run: RunFolder, stage: StageRef) -> Stamp:
        """Put an entry's files into a run; the stamp comes last."""
        stamp = read_stamp(entry, stage)
        if stamp is None:
            raise Timer1Error(f"{entry.root}: this shared stage has lost its stamp; remove the folder and run again")
        _share(entry, run, stage, stamp)
        write_stamp(run, stage, stamp)
        return stamp

    def put(self, run: RunFolder, stage: StageRef) -> None:
        """Publish a run's finished stage."""
        stamp = read_stamp(run, stage)
        if stamp is None:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        temporary = RunFolder(Path(tempfile.mkdtemp(dir=self.root, prefix=".new-")))
        _share(run, temporary, stage, stamp)
        write_stamp(temporary, stage, replace(stamp, reused_from=run.root.name))
        target = self.root / self._name(stage, stamp.key)
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary.root, target)

    def _name(self, stage: StageRef, key: str) -> str:
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
