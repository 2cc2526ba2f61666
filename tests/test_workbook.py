"""A workbook: made whole or not at all, nothing overwritten, and brought up to a later version by what a person accepts."""

from __future__ import annotations

import errno
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from timer1lib import workbook
from timer1lib.cli import main
from timer1lib.errors import Timer1Error
from timer1lib.files import find_project, project_root, resolve

ROOT = Path(__file__).resolve().parent.parent
LINES = "a\nb\nc\nd\ne\nf\ng\n"


def cell(name: str, source: str, outputs: list[str] | None = None) -> dict[str, object]:
    given = [{"output_type": "stream", "name": "stdout", "text": text} for text in outputs or []]
    return {"cell_type": "code", "id": name, "metadata": {}, "execution_count": None, "outputs": given, "source": [source]}


def notebook(*cells: dict[str, object]) -> str:
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": list(cells)})


@pytest.fixture
def version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a version ships, to be changed by the test."""
    source = tmp_path / "version"
    files = {"params/tiny.yaml": LINES, "params/sweeps/five.yaml": "seeds\n", "ideas/edges.py": "edge = 1\n"}
    files["notebooks/01.ipynb"] = notebook(cell("one", "x = 1"), cell("two", "y = 1"), cell("three", "z = 1"))
    files["notebooks/.ipynb_checkpoints/01.ipynb"] = "left by an editor"
    for name, text in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    monkeypatch.setattr(workbook, "shipped", lambda: source)
    return source


@pytest.fixture
def book(version: Path, tmp_path: Path) -> Path:
    workbook.init(tmp_path / "book")
    return tmp_path / "book"


def ways(folder: Path) -> dict[str, str]:
    return {change.name: change.way for change in workbook.changes(folder)}


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_workbook_holds_what_is_shipped_and_is_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = workbook.init(tmp_path / "a" / "book")
    root = tmp_path / "a" / "book"
    assert {"README.md", "notebooks/01_curate.ipynb", "params/tiny.yaml", "params/sweeps/five_seeds.yaml"} <= set(files)
    assert (root / "ideas" / "edges.py").read_text() == (ROOT / "ideas" / "edges.py").read_text()
    assert (root / "outputs").is_dir()
    assert len((root / "README.md").read_text().splitlines()) <= 10
    assert list((tmp_path / "a").iterdir()) == [root], "nothing is left beside it"
    monkeypatch.chdir(root / "params" / "sweeps")
    assert project_root() == root
    assert resolve("outputs/x") == root / "outputs/x"
    assert resolve("params/tiny.yaml") == root / "params/tiny.yaml"
    assert resolve("assets/tiny-qwen3-vl") == ROOT / "assets/tiny-qwen3-vl", "the model is found where it is shipped"
    assert ways(root) == {}


def test_in_the_checkout_everything_is_found_from_any_folder_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in (ROOT, ROOT / "params" / "sweeps", ROOT / "timer1lib" / "view"):
        monkeypatch.chdir(folder)
        assert project_root() == ROOT
        assert resolve("params/tiny.yaml").samefile(ROOT / "params" / "tiny.yaml")
    monkeypatch.chdir(tmp_path)
    assert find_project() == ROOT, "an editable install is found from elsewhere, as ever"


def test_nothing_that_is_there_is_overwritten(book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine" / "params").mkdir(parents=True)
    (tmp_path / "mine" / "params" / "tiny.yaml").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "git" / ".git").mkdir(parents=True)
    before = everything(tmp_path)
    said = {"book": "a workbook already", "mine": "params there already", "file": "a file, no folder"}
    for name, why in said.items():
        assert main(["init", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert why in error
        assert error.count("\n") == 1
    assert everything(tmp_path) == before
    assert main(["init", str(tmp_path / "git")]) == 0, "a new git repository is none of ours, and no hindrance"
    assert (tmp_path / "git" / "params" / "tiny.yaml").is_file()


def test_a_full_disk_leaves_nothing_and_says_so_in_one_line(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = []

    def full(path: Path, text: str) -> None:
        written.append(path)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    monkeypatch.setattr(workbook, "atomic_write_text", full)
    assert main(["init", str(tmp_path / "book")]) == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["version"]


def test_an_upgrade_takes_what_changed_here_and_leaves_what_a_person_changed(version: Path, book: Path) -> None:
    (book / "ideas" / "mine.py").write_text("own = 1\n")
    (book / "params" / "tiny.yaml").write_text(LINES.replace("b\n", "mine\n"))
    (book / "params" / "sweeps" / "five.yaml").unlink()
    assert ways(book) == {}, "nothing is new, so nothing is asked"
    (version / "ideas" / "edges.py").write_text("edge = 2\n")
    (version / "ideas" / "new.py").write_text("new = 1\n")
    (version / "params" / "tiny.yaml").write_text(LINES.replace("f\n", "theirs\n"))
    (version / "params" / "sweeps" / "five.yaml").write_text("more seeds\n")
    assert ways(book) == {"ideas/edges.py": "changed", "ideas/new.py": "new", "params/tiny.yaml": "joined"}
    found = {change.name: change for change in workbook.changes(book)}
    assert found["ideas/edges.py"].diff.splitlines()[2:] == ["@@ -1 +1 @@", "-edge = 1", "+edge = 2"]
    for change in found.values():
        assert workbook.take(book, change) == ""
    assert (book / "params" / "tiny.yaml").read_text() == "a\nmine\nc\nd\ne\ntheirs\ng\n"
    assert (book / "ideas" / "edges.py").read_text() == "edge = 2\n"
    assert ways(book) == {}
    assert not (book / "params" / "sweeps" / "five.yaml").exists(), "what a person removed stays away"


def test_where_both_changed_the_same_line_a_persons_file_is_kept_beside(version: Path, book: Path) -> None:
    (book / "params" / "tiny.yaml").write_text(LINES.replace("c\n", "mine\n"))
    (version / "params" / "tiny.yaml").write_text(LINES.replace("c\n", "theirs\n"))
    (change,) = workbook.changes(book)
    assert change.way == "replaced"
    said = workbook.take(book, change)
    (kept,) = (book / "params").glob("tiny.mine-*.yaml")
    assert kept.name in said
    assert kept.read_text() == LINES.replace("c\n", "mine\n")
    assert (book / "params" / "tiny.yaml").read_text() == LINES.replace("c\n", "theirs\n")
    assert ways(book) == {}


def test_a_notebook_is_joined_cell_by_cell_and_its_outputs_count_for_nothing(version: Path, book: Path) -> None:
    mine, theirs = book / "notebooks" / "01.ipynb", version / "notebooks" / "01.ipynb"
    mine.write_text(notebook(cell("one", "x = 1", ["ran"]), cell("two", "y = 1"), cell("three", "z = 1")))
    assert ways(book) == {}
    ran = [cell("one", "x = 1", ["ran"]), cell("two", "y = 1"), cell("three", "z = 1"), cell("own", "mine = 1")]
    mine.write_text(notebook(*ran))
    theirs.write_text(notebook(cell("one", "x = 1"), cell("two", "y = 2"), cell("three", "z = 1")))
    (change,) = workbook.changes(book)
    assert change.way == "joined"
    assert [line for line in change.diff.splitlines()[2:] if line[0] in "+-"] == ["-y = 1", "+y = 2"]
    workbook.take(book, change)
    cells = json.loads(mine.read_text())["cells"]
    assert ["".join(each["source"]) for each in cells] == ["x = 1", "y = 2", "z = 1", "mine = 1"]
    assert cells[0]["outputs"][0]["text"] == "ran"


def test_what_is_no_longer_shipped_goes_only_where_nobody_changed_it(version: Path, book: Path) -> None:
    (version / "ideas" / "edges.py").unlink()
    (change,) = workbook.changes(book)
    assert change.way == "gone"
    workbook.take(book, change)
    assert not (book / "ideas" / "edges.py").exists()
    (version / "params" / "tiny.yaml").unlink()
    (book / "params" / "tiny.yaml").write_text("mine\n")
    assert ways(book) == {}


@pytest.mark.parametrize(
    ("mine", "new", "joined"),
    [
        ("abcd", "abcd", "abcd"),
        ("aXcd", "abcd", "aXcd"),
        ("abcd", "abYd", "abYd"),
        ("Xbcd", "abcY", "XbcY"),
        ("aXcd", "aXcd", "aXcd"),
        ("aXcd", "aYcd", None),
        ("aXcd", "abYd", None),
        ("bcd", "abcdY", "bcdY"),
        ("abcdX", "abcdY", None),
        ("", "abcdY", None),
    ],
)
def test_two_changes_are_joined_where_they_do_not_touch(mine: str, new: str, joined: str | None) -> None:
    found = workbook.join("abcd", mine, new)
    assert (None if found is None else "".join(found)) == joined


def test_without_a_terminal_changes_are_shown_and_none_is_taken(
    version: Path, book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (version / "ideas" / "edges.py").write_text("edge = 2\n")
    assert main(["upgrade", str(book)]) == 0
    said = capsys.readouterr().out
    assert "+edge = 2" in said
    assert said.endswith("0 taken, 1 left; --yes takes them, and a terminal asks about each\n")
    assert (book / "ideas" / "edges.py").read_text() == "edge = 1\n"
    assert main(["upgrade", str(book), "--yes"]) == 0
    assert capsys.readouterr().out.endswith("1 taken, 0 left\n")
    assert main(["upgrade", str(book)]) == 0
    assert capsys.readouterr().out.startswith(f"{book}: as timer1 ")


def test_a_terminal_is_asked_file_by_file(tmp_path: Path) -> None:
    made = subprocess.run([sys.executable, "-m", "timer1lib.cli", "init", "book"], cwd=tmp_path, env=here(), check=False)
    assert made.returncode == 0
    for name in ("edges", "pick"):
        for folder in ("ideas", ".timer1/shipped/ideas"):
            (tmp_path / "book" / folder / f"{name}.py").write_text("older = 1\n")
    main_end, terminal = pty.openpty()
    os.write(main_end, b"n\ny\n")
    command = [sys.executable, "-m", "timer1lib.cli", "upgrade", "book"]
    done = subprocess.run(command, cwd=tmp_path, env=here(), stdin=terminal, stdout=terminal, stderr=terminal, check=False)
    os.close(terminal)
    os.close(main_end)
    assert done.returncode == 0
    assert (tmp_path / "book" / "ideas" / "edges.py").read_text() == "older = 1\n"
    assert (tmp_path / "book" / "ideas" / "pick.py").read_text() == (ROOT / "ideas" / "pick.py").read_text()


def here() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_an_upgrade_of_no_workbook_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Timer1Error, match="no workbook; timer1 init"):
        list(workbook.changes(tmp_path))
    with pytest.raises(Timer1Error, match="git brings it up to date"):
        list(workbook.changes(ROOT))
