"""`timer1 init` and `timer1 upgrade`: a folder of one's own, made of what this version ships, and brought up to a later one.

A workbook keeps beside its files what they were made of (`.timer1/shipped/`), so that an upgrade tells what has changed here
from what a person changed, and joins both where they do not touch.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from timer1lib import __version__
from timer1lib.errors import Timer1Error
from timer1lib.files import WORKBOOK, atomic_write_json, atomic_write_text, is_project, read_json, shipped

FOLDERS = ("notebooks", "params", "ideas")
"""What a workbook is made of. The tiny model and the templates stay in the package, where `assets/...` is found too."""

README = """# A timer1 workbook

Given a video and a sentence, when does it happen? Train and test a model that answers it, notebook by notebook.

- `timer1 run params/tiny.yaml` runs all of it small, in minutes (needs `pip install 'timer1lib[train]'`).
- `timer1 lab` opens the notebooks in JupyterLab (`'timer1lib[lab]'`); `timer1 --help` lists the rest.
- `notebooks/` are yours to change; `params/` has the recipes, `ideas/` rewards and rules of your own, `outputs/` every run.
- `timer1 upgrade` shows what a newer timer1 has changed, and takes what you accept.
- Keep all but `outputs/` in git, `.timer1/` too: it says what this folder was made of.
"""

Way = Literal["new", "changed", "joined", "replaced", "gone"]
WAYS: dict[Way, str] = {
    "new": "is new",
    "changed": "has changed",
    "joined": "has changed, and so has yours elsewhere in it: both changes are kept",
    "replaced": "has changed where you changed it too: yours would be kept beside it",
    "gone": "is no longer part of timer1",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One file of a workbook that another version has otherwise; `text` is what it would become."""

    name: str
    way: Way
    text: str
    diff: str

    def __str__(self) -> str:
        return f"{self.name} {WAYS[self.way]}\n{self.diff}"


def init(folder: str | Path) -> list[str]:
    """Make a workbook; the names of its files. Nothing that is there already is touched.

    Raises:
        Timer1Error: a workbook or a checkout, no folder, or one that holds a file or folder of the same name.
    """
    root = Path(folder).expanduser()
    if (root / WORKBOOK).is_dir():
        raise Timer1Error(f"{root}: a workbook already (of timer1 {_made_by(root)}); timer1 upgrade {root} brings it up to date")
    if root.exists() and not root.is_dir():
        raise Timer1Error(f"{root}: a file, no folder")
    entries = (*FOLDERS, "outputs", "README.md")
    if taken := [name for name in entries if (root / name).exists()]:
        raise Timer1Error(f"{root}: {', '.join(taken)} there already, and nothing is overwritten; name a new folder")
    files = _shipped()
    root.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: a full disk leaves no half of one.
    making = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name or 'workbook'}."))
    try:
        for name, text in files.items():
            atomic_write_text(making / name, text)
        (making / "outputs").mkdir()
        _record(making, files)
        making.chmod(0o755)
        if not root.exists():
            os.rename(making, root)
        else:
            for name in (*entries, WORKBOOK):
                os.rename(making / name, root / name)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return list(files)


def changes(folder: str | Path) -> Iterator[Change]:
    """What this version has otherwise than the workbook was made of, file by file. What a person removed stays removed.

    Raises:
        Timer1Error: not a workbook.
    """
    root = Path(folder).expanduser()
    if not (root / WORKBOOK).is_dir():
        what = (
            "the checkout itself: git brings it up to date" if is_project(root) else f"no workbook; timer1 init {root} makes one"
        )
        raise Timer1Error(f"{root}: {what}")
    files, base = _shipped(), _files(root / WORKBOOK / "shipped")
    for name in sorted({*files, *base}):
        there = (root / name).is_file()
        mine = (root / name).read_text() if there else None
        old, new = base.get(name), files.get(name)
        if new is None:
            if there and old is not None and _pieces(name, mine or "") == _pieces(name, old):
                yield Change(name, "gone", "", "")
        elif old is None and not there:
            yield Change(name, "new", new, _diff(name, "", new))
        elif mine is not None and _pieces(name, old or "") != _pieces(name, new) != _pieces(name, mine):
            if old is not None and _pieces(name, mine) == _pieces(name, old):
                yield Change(name, "changed", new, _diff(name, old, new))
                continue
            both = _joined(name, old, mine, new) if old is not None else None
            shown = _diff(name, mine if old is None else old, new)
            yield Change(name, "replaced", new, shown) if both is None else Change(name, "joined", both, shown)


def take(folder: str | Path, change: Change) -> str:
    """Carry out one change; says where a file of one's own was put that could not be joined."""
    root = Path(folder).expanduser()
    path, said = root / change.name, ""
    if change.way == "replaced":
        kept = path.with_name(f"{path.stem}.mine-{time.strftime('%Y%m%d-%H%M%S')}{path.suffix}")
        shutil.copy2(path, kept)
        said = f"yours is kept as {kept.relative_to(root)}"
    if change.way == "gone":
        path.unlink()
        (root / WORKBOOK / "shipped" / change.name).unlink()
    else:
        atomic_write_text(path, change.text)
        atomic_write_text(root / WORKBOOK / "shipped" / change.name, _shipped()[change.name])
    return said


def finish(folder: str | Path, left: int) -> None:
    """After an upgrade of which `left` changes were not taken: the workbook is of this version where none is."""
    root = Path(folder).expanduser()
    if not left:
        _record(root, _shipped())


def _made_by(root: Path) -> str:
    path = root / WORKBOOK / "workbook.json"
    return str(read_json(path).get("timer1", "unknown")) if path.is_file() else "unknown"


def _record(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        atomic_write_text(root / WORKBOOK / "shipped" / name, text)
    atomic_write_json(root / WORKBOOK / "workbook.json", {"timer1": __version__})


def _shipped() -> dict[str, str]:
    """{path in a workbook: text} of this version."""
    found = {"README.md": README}
    for folder in FOLDERS:
        found |= {f"{folder}/{name}": text for name, text in _files(shipped() / folder).items()}
    return found


def _files(folder: Path) -> dict[str, str]:
    """{path below the folder: text}; what editors and Python leave there does not count."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in name.parts):
            found[name.as_posix()] = path.read_text()
    return found


# --- texts and notebooks, piece by piece ---------------------------------------------------------------------------

T = TypeVar("T", bound=Hashable)


def _pieces(name: str, text: str) -> list[tuple[str, ...]]:
    """What counts of a file: lines; of a notebook its cells, each with id, kind and source, whatever their outputs."""
    if name.endswith(".ipynb") and text:
        try:
            return [(str(c.get("id", "")), c["cell_type"], "".join(c["source"])) for c in json.loads(text)["cells"]]
        except (ValueError, KeyError, TypeError):
            pass
    return [(line,) for line in text.splitlines(keepends=True)]


def _joined(name: str, old: str, mine: str, new: str) -> str | None:
    """A file with both changes, a person's and this version's; None where they touch."""
    pieces = join(*(_pieces(name, text) for text in (old, mine, new)))
    if pieces is None or not name.endswith(".ipynb"):
        return None if pieces is None else "".join(line for (line,) in pieces)
    cells: dict[tuple[str, ...], dict[str, Any]] = {}
    for text in (new, mine):  # a cell that a person has run keeps its outputs
        try:
            cells |= dict(zip(_pieces(name, text), json.loads(text)["cells"], strict=True))
        except (ValueError, KeyError):
            return None
    return json.dumps(json.loads(mine) | {"cells": [cells[piece] for piece in pieces]}, indent=1, ensure_ascii=False) + "\n"


def join(old: Sequence[T], mine: Sequence[T], new: Sequence[T]) -> list[T] | None:
    """What became of `old` under both changes; None where they overlap or stand side by side."""
    edits = []
    for side, other in enumerate((mine, new)):
        matcher = difflib.SequenceMatcher(None, old, other, autojunk=False)
        edits += [(i, j, list(other[k:m]), side) for tag, i, j, k, m in matcher.get_opcodes() if tag != "equal"]
    joined: list[T] = []
    at, last = 0, -1
    done: tuple[int, int, list[T]] | None = None
    for i, j, pieces, side in sorted(edits, key=lambda edit: edit[:2]):
        if (i, j, pieces) == done:
            continue  # both made the same change
        if side != last and last >= 0 and i <= at:
            return None
        joined += [*old[at:i], *pieces]
        at, last, done = j, side, (i, j, pieces)
    return joined + list(old[at:])


def _diff(name: str, old: str, new: str) -> str:
    def lines(text: str) -> list[str]:
        between = "\n\n" if name.endswith(".ipynb") else ""
        return between.join(piece[-1] for piece in _pieces(name, text)).splitlines()

    return "\n".join(difflib.unified_diff(lines(old), lines(new), f"a/{name}", f"b/{name}", lineterm=""))
