"""Copies of the notebooks to work in: kept where a person changed them, brought back by cell, and the project stays clean."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from timer1lib.errors import Timer1Error
from timer1lib.view import open as opened

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    monkeypatch.setattr(opened, "project_root", lambda: tmp_path)
    return tmp_path


def change(path: Path, text: str) -> None:
    """As a person does it: a cell more, outputs, and the notebook saved."""
    notebook = json.loads(path.read_text())
    cell: dict[str, Any] = {"cell_type": "code", "id": "mine", "metadata": {}, "source": [text], "execution_count": 3}
    notebook["cells"].append({**cell, "outputs": [{"output_type": "stream", "name": "stdout", "text": ["said"]}]})
    path.write_text(json.dumps(notebook))


def test_copies_follow_the_project_until_a_person_changes_them(project: Path) -> None:
    folder, kept = opened.copy_notebooks()
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        path.name for path in (project / "notebooks").glob("0*.ipynb")
    )
    assert kept == []
    change(folder / "04_grpo.ipynb", "mine = 1")
    before = (folder / "04_grpo.ipynb").read_bytes()
    assert opened.copy_notebooks()[1] == []  # nothing newer is there
    for name in ("03_difficulty", "04_grpo"):
        change(project / "notebooks" / f"{name}.ipynb", "theirs = 1")
    assert opened.copy_notebooks()[1] == ["04_grpo"]
    assert (folder / "04_grpo.ipynb").read_bytes() == before
    assert "theirs" in (folder / "03_difficulty.ipynb").read_text()
    assert opened.copy_notebooks("04_grpo")[1] == []
    assert "theirs" in (folder / "04_grpo.ipynb").read_text()
    assert [path.read_bytes() for path in folder.glob("04_grpo.*.ipynb")] == [before], "a copy of one's own is never lost"
    with pytest.raises(Timer1Error, match="'04'"):
        opened.copy_notebooks("04")


def test_a_cell_worth_keeping_comes_back_without_outputs_or_parameters(project: Path) -> None:
    folder, _ = opened.copy_notebooks()
    copy, source = folder / "04_grpo.ipynb", project / "notebooks" / "04_grpo.ipynb"
    assert opened.bring_back("04_grpo") == ""
    change(copy, "mine = 1")
    copy.write_text(copy.read_text().replace("beta: float = 0.0", "beta: float = 0.5"))
    before = source.read_text()
    assert "+mine = 1" in opened.bring_back("04_grpo").splitlines()
    assert source.read_text() == before
    opened.bring_back("04_grpo", yes=True)
    cells = json.loads(source.read_text())["cells"]
    assert cells[:-1] == json.loads(before)["cells"], "parameters too are as they were"
    assert ("".join(cells[-1]["source"]), cells[-1]["outputs"], cells[-1]["execution_count"]) == ("mine = 1", [], None)
    assert opened.bring_back("04_grpo") == ""
    assert opened.copy_notebooks()[1] == []
    with pytest.raises(Timer1Error, match="no such notebook"):
        opened.bring_back("09_no")


def test_a_stage_opened_in_a_copy_is_known_by_the_copys_cells(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from timer1lib.params.sections import Params
    from timer1lib.runfolder import RunFolder
    from timer1lib.runs.graph import find_stage
    from timer1lib.stages import _parts

    folder, _ = opened.copy_notebooks()
    run, ref = RunFolder(project / "outputs" / "x"), find_stage("grpo")
    plain = _parts(Params(), run, ref)
    monkeypatch.setitem(os.environ, "JPY_SESSION_NAME", str(folder / "04_grpo.ipynb"))
    assert _parts(Params(), run, ref) == plain
    change(folder / "04_grpo.ipynb", "mine = 1")
    assert _parts(Params(), run, ref)["notebook"] != plain["notebook"]
    assert _parts(Params(), run, find_stage("sft")) == _parts(Params(), run, find_stage("sft"))
