"""`python -m timer1lib.params.cells [--check]`: the `parameters` cell of every notebook, written from the models.

A cell is one simple assignment a line (papermill reads nothing else): the run's folder, the notebook's own parameters,
then the shared ones that it reads. The values are what `params/tiny.yaml` resolves to, so Run All is the tiny run.
JupyterLab shows the cell collapsed.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Collection
from pathlib import Path
from typing import Any

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_text, project_root, read_json
from timer1lib.params import SHARED_READ, Section
from timer1lib.params.load import load_params
from timer1lib.params.sections import BESIDE, NOTEBOOKS, SECTIONS, Params

TAG = CELL_ID = "parameters"
WIDTH = 96
"""Characters of a line at most: what JupyterLab shows of it at 1280 pixels."""
HIDDEN: dict[str, Any] = {"source_hidden": True}
"""What makes JupyterLab show a cell collapsed."""


def notebooks() -> dict[str, str]:
    """{section: name} of every notebook with a parameters cell: the stages, and what stands beside them."""
    return {**dict(zip(SECTIONS, NOTEBOOKS, strict=True)), **{section: name for section, (name, _) in BESIDE.items()}}


def cell_source(params: Params, section: str) -> str:
    """The text of one notebook's parameters cell."""
    lines = [f'run_dir: str = "outputs/{params.name}"  # the run that this notebook belongs to']
    if section in BESIDE:
        return "\n".join(lines + section_lines(BESIDE[section][1]))
    lines += section_lines(getattr(params, section))
    if section not in ("inspect", "compare"):
        lines.append("overwrite: bool = False  # a finished result with other parameters may be replaced")
    return "\n".join(lines + section_lines(params.shared, SHARED_READ[section]))


def section_lines(values: Section, wanted: Collection[str] | None = None) -> list[str]:
    """`name: type = value  # help` for every field (or the wanted ones), the help above where it is too long for one line.

    Text that is one of a few says which.
    """
    lines = []
    for name, field in type(values).model_fields.items():
        if wanted is None or name in wanted:
            value, text = getattr(values, name), f"{field.description}{_choices(field.annotation)}"
            assignment = f"{name}: {type(value).__name__} = {_literal(value)}"
            if len(assignment) + len(text) + 4 <= WIDTH:
                lines.append(f"{assignment}  # {text}")
            else:
                lines += [*textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# "), assignment]
    return lines


def with_cell(notebook: dict[str, Any], source: str) -> dict[str, Any]:
    """The notebook with its parameters cell holding `source`; a missing cell goes before the first code cell."""
    cells, lines = list(notebook["cells"]), source.splitlines(keepends=True)
    at = _index(notebook)
    if at is not None:
        cells[at] = {**cells[at], "metadata": {**cells[at]["metadata"], "jupyter": HIDDEN}, "source": lines}
    else:
        first = next((i for i, cell in enumerate(cells) if cell["cell_type"] == "code"), len(cells))
        new: dict[str, Any] = {"cell_type": "code", "execution_count": None, "outputs": [], "source": lines}
        new["metadata"] = {"tags": [TAG], "jupyter": HIDDEN}
        if (notebook.get("nbformat", 4), notebook.get("nbformat_minor", 5)) >= (4, 5):
            new["id"] = CELL_ID
        cells.insert(first, new)
    return {**notebook, "cells": cells}


def current_source(notebook: dict[str, Any]) -> str | None:
    """The text of the parameters cell as it stands; None where there is none."""
    at = _index(notebook)
    return None if at is None else "".join(notebook["cells"][at]["source"])


def _index(notebook: dict[str, Any]) -> int | None:
    return next((i for i, cell in enumerate(notebook["cells"]) if TAG in cell.get("metadata", {}).get("tags", [])), None)


def outdated(folder: Path, params: Params) -> list[Path]:
    """Notebooks whose parameters cell is not what the models say."""
    wanted = {folder / f"{name}.ipynb": cell_source(params, section) for section, name in notebooks().items()}
    return [path for path, source in wanted.items() if not path.is_file() or _is_other(read_json(path), source)]


def _is_other(notebook: dict[str, Any], source: str) -> bool:
    return with_cell(notebook, source) != notebook


def rewrite(folder: Path, params: Params) -> list[Path]:
    """Bring every notebook's parameters cell up to date; the files that this changed."""
    changed = []
    for section, name in notebooks().items():
        path = folder / f"{name}.ipynb"
        notebook = read_json(path)
        if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
            raise Timer1Error(f"{path}: not a notebook")
        source = cell_source(params, section)
        if _is_other(notebook, source):
            atomic_write_text(path, json.dumps(with_cell(notebook, source), indent=1, ensure_ascii=False) + "\n")
            changed.append(path)
    return changed


def main(arguments: list[str] | None = None) -> int:
    """`--check` changes nothing and fails where a cell is out of date."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        root = project_root()
        params = load_params(root / "params" / "tiny.yaml")
        check = "--check" in arguments
        paths = (outdated if check else rewrite)(root / "notebooks", params)
        what = "is not what the models say; run `make params`" if check else "written"
        for path in paths:
            sys.stderr.write(f"{path.relative_to(root)}: parameters cell {what}\n")
        return int(check and bool(paths))
    except Timer1Error as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _choices(annotation: Any) -> str:
    choices = getattr(annotation, "__args__", ())
    return f" ({' | '.join(choices)})" if choices and all(isinstance(choice, str) for choice in choices) else ""


if __name__ == "__main__":
    raise SystemExit(main())
