"""Finished stages that the rows of a sweep share, found by their keys.

An entry is a folder `<store>/04_grpo-<key>` with the stage's files, executed notebook and stamp, published by one
rename. Large files are hard-linked, so sharing a checkpoint costs no disk; small ones are copied.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from timer1lib.errors import Timer1Error
from timer1lib.runfolder import RunFolder
from timer1lib.runs.graph import StageRef
from timer1lib.runs.stamps import Stamp, damaged, read_stamp, write_stamp

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
