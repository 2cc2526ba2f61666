"""In what runs differ, which runs there are, and which two are compared where nobody says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from timer1lib.errors import Timer1Error
from timer1lib.evaluation.answers import read_metrics
from timer1lib.evaluation.columns import display_name, in_order, main_score
from timer1lib.evaluation.tables import Cell, Head, Line, Table
from timer1lib.files import read_json, read_yaml
from timer1lib.params import CANNOT_CHANGE_RESULTS
from timer1lib.params.sections import SECTIONS, Params
from timer1lib.runfolder import RunFolder

SECTIONS_THAT_COUNT = tuple(name for name in ("shared", *SECTIONS) if name not in ("inspect", "compare"))
CONTENT = ", what it holds"
"""Behind a parameter whose file differs although its name does not."""


def defaults() -> dict[str, Any]:
    """{section.key: default} of every parameter that can change a run's results."""
    return _flat(Params().model_dump())


def parameters_of(run: RunFolder) -> dict[str, Any]:
    """{section.key: value} of every parameter that can change a run's results: its params.yaml over the defaults.

    Of a run of other times, parameters that there are no more count too. A Timer1Error where the file cannot be read.
    """
    tree = read_yaml(run.params, "params file")
    if not isinstance(tree, Mapping):
        raise Timer1Error(f"{run.params}: a params file is a mapping with sections")
    return defaults() | _flat(tree)


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    sections = {name: tree.get(name) or {} for name in SECTIONS_THAT_COUNT}
    pairs = (
        (name, key, value) for name, section in sections.items() if isinstance(section, Mapping) for key, value in section.items()
    )
    return {f"{name}.{key}": value for name, key, value in pairs if key not in CANNOT_CHANGE_RESULTS}


def differing(runs: Mapping[str, RunFolder], notes: list[str]) -> list[dict[str, Any]] | None:
    """{parameter, default, help, values: {run: value}} of every parameter in which runs differ, in the order of params files.

    A file or function that a parameter names counts by what it held when the run was made (`CONTENT`). Runs without a
    readable params.yaml, and other code, are said in `notes`; None where fewer than two runs have one.
    """
    values: dict[str, dict[str, Any]] = {}
    held: dict[str, dict[str, tuple[str, ...]]] = {}
    code: dict[str, str] = {}
    for name, run in runs.items():
        try:
            values[name] = parameters_of(run)
        except Timer1Error as error:
            notes.append(f"{name}: its parameters are not known: {error}")
        manifest = _manifest(run)
        held[name] = {key: tuple(map(str, marks)) for key, marks in dict(manifest.get("inputs") or {}).items()}
        git = manifest.get("git") or {}
        code[name] = f"{str(git.get('commit'))[:8]}{' with changes' if git.get('modified') else ''}" if git.get("commit") else ""
    if len({text for text in code.values() if text}) > 1:
        notes.append(f"made by different code: {', '.join(f'{name} by {text}' for name, text in code.items() if text)}")
    if len(values) < 2:
        return None
    usual = defaults()
    rows: list[dict[str, Any]] = []
    for key in dict.fromkeys(key for given in values.values() for key in given):
        given = {name: known.get(key) for name, known in values.items()}
        marks = {name: held[name].get(key) for name in values}
        if len({repr(value) for value in given.values()}) > 1:
            rows.append({"parameter": key, "default": usual.get(key), "help": _help(key), "values": given})
        elif len({mark for mark in marks.values() if mark}) > 1:
            digests = {name: ", ".join(part.split()[-1][-8:] for part in mark or ()) for name, mark in marks.items()}
            rows.append({"parameter": key + CONTENT, "default": usual.get(key), "help": _help(key), "values": digests})
    return rows


def changed(run: RunFolder) -> list[dict[str, Any]]:
    """{parameter, default, value, help} of every parameter that is not as in the defaults and can change a result."""
    usual = defaults()
    rows = ((key, value) for key, value in parameters_of(run).items() if key not in usual or value != usual[key])
    return [{"parameter": key, "default": usual.get(key), "value": value, "help": _help(key)} for key, value in rows]


def _manifest(run: RunFolder) -> dict[str, Any]:
    try:
        value = read_json(run.manifest) if run.manifest.is_file() else {}
    except Timer1Error:
        return {}
    return value if isinstance(value, dict) else {}


def _help(key: str) -> str:
    section, _, name = key.partition(".")
    model: Any = Params.model_fields[section].annotation
    field = model.model_fields.get(name)
    return (field.description or "") if field is not None else "a parameter that there is no more"


def said(value: Any) -> str:
    """A parameter's value as a params file has it."""
    return '""' if value == "" else str(value).lower() if isinstance(value, bool) else "-" if value is None else str(value)


def parameters_table(rows: list[dict[str, Any]], title: str = "In what the runs differ") -> Table:
    """The rows of `differing`: a parameter a row, or a run a row where there are more runs than parameters."""
    runs = list(rows[0]["values"]) if rows else []
    heads = [Head("parameter", kind="left"), Head("default", kind="left"), *(Head(run, kind="left") for run in runs)]
    lines = [[row["parameter"], said(row["default"]), *(said(row["values"][run]) for run in runs)] for row in rows]
    if len(runs) > len(rows):
        heads = [Head("run", kind="left"), *(Head(row["parameter"], row["help"], "left") for row in rows)]
        lines = [[run, *(said(row["values"][run]) for row in rows)] for run in runs]
        lines.append(["(default)", *(said(row["default"]) for row in rows)])
    return Table(tuple(heads), tuple(Line(tuple(map(Cell, line))) for line in lines), title)


def runs_there(outputs: Path) -> list[dict[str, Any]]:
    """Every evaluated run in a folder, the newest first: {run, evaluated, checkpoint, scores, changed}.

    `scores`: {split: mIoU, or accuracy} of the last checkpoint, percent.
    """
    found = []
    for path in sorted(outputs.glob("*/metrics.json"), key=lambda path: -path.stat().st_mtime):
        run = RunFolder(path.parent)
        try:
            splits = read_metrics(run)["splits"]
            changes = [f"{row['parameter']}={said(row['value'])}" for row in changed(run)] if run.params.is_file() else []
        except Timer1Error:
            continue
        last = next((in_order(rows)[-1] for rows in splits.values() if rows), "")
        by_split = {split: main_score(rows.get(last, {})) for split, rows in splits.items()}
        scores = {split: value for split, value in by_split.items() if value is not None}
        when = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(" ", "minutes")[:16]
        found.append({"run": path.parent.name, "evaluated": when, "checkpoint": last, "scores": scores, "changed": changes})
    return found


def runs_table(rows: list[dict[str, Any]]) -> Table:
    """The rows of `runs_there`, with mIoU (or accuracy) of each run's last checkpoint in percent."""
    splits = list(dict.fromkeys(split for row in rows for split in row["scores"]))
    left = [Head(name, kind="left") for name in ("run", "evaluated (UTC)", "checkpoint")]
    heads = [
        *left,
        *(Head(split, "mIoU, or accuracy of questions, percent") for split in splits),
        Head("not as in the defaults", kind="wrap"),
    ]
    lines = [
        Line((Cell(row["run"]), Cell(row["evaluated"]), Cell(display_name(row["checkpoint"])),
              *(Cell(row["scores"].get(split)) for split in splits), Cell(", ".join(row["changed"]) or "nothing")))
        for row in rows
    ]  # fmt: skip
    return Table(tuple(heads), tuple(lines), "The runs that there are")


def default_pair(there: Sequence[Mapping[str, Any]], here: str = "") -> list[str]:
    """Which of `runs_there` to compare where none is named: the default one, then `here` or else the newest other.

    The default is the run of params/tiny.yaml, or `here` where that one was not evaluated. Fewer where there are no two.
    """
    names = [row["run"] for row in there]
    usual = next((name for name in (Params().name, here, *reversed(names)) if name in names), "")
    other = next((name for name in (here, *names) if name in names and name != usual), "")
    return [name for name in (usual, other) if name]
