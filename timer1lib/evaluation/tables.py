"""Results as tables: one `Table` of typed cells, and one writer for each kind of output (text, HTML)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from timer1lib.evaluation.columns import Column, Place, column_of, display_name, in_order, number, shown

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Cell:
    """One value of a table.

    A `value` that is not known is None; beside it its 95% `interval` in the same unit, its standard deviation over seeds
    (`spread`) and a word (`note`). `form` is how a number is written, as in `format`; `found` sets it out.
    """

    value: float | str | None
    interval: tuple[float, float] | None = None
    spread: float | None = None
    note: str = ""
    form: str = ".1f"
    unit: str = ""
    found: bool = False

    @property
    def shown(self) -> str:
        """The value in words, empty where there is none."""
        if self.value is None or isinstance(self.value, str):
            return self.value or ""
        unit = self.unit if self.unit in ("", "%") else f" {self.unit}"
        spread = "" if self.spread is None else f" +-{self.spread:{self.form}}"
        return f"{self.value:{self.form}}{unit}{spread}"

    @property
    def ends(self) -> str:
        """The interval in words, empty where there is none."""
        return f"{self.interval[0]:{self.form}} to {self.interval[1]:{self.form}}" if self.interval else ""

    def __str__(self) -> str:
        interval = f" [{self.interval[0]:{self.form}}, {self.interval[1]:{self.form}}]" if self.interval else ""
        note = f" ({self.note})" if self.note else ""
        return f"{'-' if self.value is None else self.shown}{interval}{note}"


@dataclass(frozen=True, slots=True)
class Head:
    """A column's heading. `kind` is `left` over words, `wrap` over long ones, "" over numbers."""

    title: str
    tip: str = ""
    kind: Literal["left", "wrap", ""] = ""


@dataclass(frozen=True, slots=True)
class Line:
    """`kind` sets a row out (`best`, `baseline`); `colour` is that of a checkpoint in the figures."""

    cells: tuple[Cell, ...]
    kind: str = ""
    colour: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Table:
    """Rows under their headings; it shows itself as text, and in a notebook as HTML."""

    head: tuple[Head, ...]
    rows: tuple[Line, ...]
    title: str = ""

    def __repr__(self) -> str:
        return text_table(self)

    def _repr_html_(self) -> str:
        return html_table(self)


def table_of(rows: Sequence[Mapping[str, Any]], title: str = "") -> Table:
    """A table of {heading: Cell, number, text or None}; every heading that some row has, in order of appearance.

    A column of nothing but text stands to the left.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    made = tuple(Line(tuple(_cell(row.get(name)) for name in names)) for row in rows)
    head = tuple(Head(name, "", _kind([row.cells[i].value for row in made])) for i, name in enumerate(names))
    return Table(head, made, title)


def _kind(values: Sequence[float | str | None]) -> Literal["left", ""]:
    known = [value for value in values if value is not None]
    return "left" if known and all(isinstance(value, str) for value in known) else ""


def _cell(value: Any) -> Cell:
    return value if isinstance(value, Cell) else Cell(value, form=".0f" if isinstance(value, int) else ".1f")


# Writers


def text_table(table: Table) -> str:
    """Aligned lines, words to the left and numbers to the right; empty text where there are no rows."""
    if not table.rows:
        return ""
    lines = [[head.title for head in table.head], *([str(cell) for cell in row.cells] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = ["<" if head.kind else ">" for head in table.head]
    made = ["  ".join(map("{:{}{}}".format, line, sides, widths)) for line in lines]
    return "\n".join([made[0], "-" * len(made[0]), *made[1:]])


def markdown_table(table: Table) -> str:
    """A Markdown table; bars in cells are escaped."""
    if not table.rows:
        return ""
    lines = [
        [head.title for head in table.head],
        ["---" if head.kind else "---:" for head in table.head],
        *([str(cell).replace("|", "\\|") for cell in row.cells] for row in table.rows),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def html_table(table: Table) -> str:
    """An HTML table; everything in it is escaped. The interval stands small below its value."""
    module: Any = environment(TEMPLATES).get_template("table.html").module
    return str(module.table(table))


@cache
def environment(*folders: Path) -> Environment:
    """Templates of some folders with autoescape on: what comes from data cannot become markup."""
    return Environment(loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined)


# Tables of a `metrics.json`


def score_cell(row: Mapping[str, Any], column: Column, brief: bool = False) -> Cell:
    """One metric of a row of scores; with its interval and what stands beside it where it is not to be brief."""
    value = number(row.get(column.key))
    if value is None:
        return Cell(None)
    form = f".{column.digits}f"
    if brief:
        return Cell(column.scale * value, form=form, unit=column.unit)
    beside = number(row.get(column.beside[0])) if column.beside else None
    note = f"{column.beside[1]} {column.scale * beside:{form}}{column.unit}" if column.beside and beside is not None else ""
    intervals = row.get("interval")
    ends = intervals.get(column.key) if column.interval and isinstance(intervals, Mapping) else None
    return Cell(column.scale * value, _pair(ends, column.scale), None, note, form, column.unit)


def _pair(ends: Any, scale: float = 1.0) -> tuple[float, float] | None:
    if not isinstance(ends, Sequence) or isinstance(ends, str) or len(ends) != 2 or None in ends:
        return None
    return scale * ends[0], scale * ends[1]


def difference_cell(entry: Mapping[str, Any], column: Column, digits: int | None = None) -> Cell:
    """A paired difference with its interval, in the column's unit."""
    value = number(entry.get("difference"))
    if value is None:
        return Cell(None)
    form = f"+.{column.digits if digits is None else digits}f"
    return Cell(column.scale * value, _pair(entry.get("interval"), column.scale), None, "", form, column.unit)


def heads_of(columns: Sequence[Column]) -> tuple[Head, ...]:
    words = {"more": "; more is better", "less": "; less is better", "": ""}
    return tuple(Head(column.title, column.tip + words[column.better]) for column in columns)


def present(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """The columns that some row has a number for."""
    return [column for column in columns if any(number(row.get(column.key)) is not None for row in rows)]


def scores_of(value: Any) -> dict[str, Mapping[str, Any]]:
    """{checkpoint: scores} in the order of training; what is no row of scores is left out."""
    rows = value if isinstance(value, Mapping) else {}
    return {name: rows[name] for name in in_order(rows) if isinstance(rows[name], Mapping)}


def results_table(
    metrics: Mapping[str, Any], split: str, place: Place = "results", colours: Mapping[str, str] | None = None, title: str = ""
) -> Table:
    """One split of a `metrics.json`: a row for each baseline, in brackets, then one for each checkpoint."""
    rows = scores_of(metrics["splits"][split])
    baselines = (metrics.get("baselines") or {}).get(split) or {}
    columns = present(shown(place), list(rows.values()))
    best = max(rows, key=lambda name: number(rows[name].get("mIoU")) or 0.0, default="")
    blind = [
        Line(
            (
                Cell(name.replace("_", " ") if place == "report" else f"({name})"),
                *(score_cell(row, column) for column in columns),
            ),
            "baseline",
        )
        for name, row in baselines.items()
        if isinstance(row, Mapping)
    ]
    made = [
        Line(
            (Cell(display_name(name)), *(score_cell(row, column) for column in columns)),
            "best" if name == best and len(rows) > 1 and number(row.get("mIoU")) is not None else "",
            (colours or {}).get(name, ""),
        )
        for name, row in rows.items()
    ]
    return Table((Head("checkpoint", kind="left"), *heads_of(columns)), tuple(blind + made), title)


def brief_table(metrics: Mapping[str, Any]) -> Table:
    """What stands at the end of a run: a row for each split and checkpoint, in percent."""
    given = metrics.get("splits")
    splits = given if isinstance(given, Mapping) else {}
    rows = [(split, name, row) for split, scores in splits.items() for name, row in scores_of(scores).items()]
    columns = present(shown("brief"), [row for _, _, row in rows])
    made = [
        Line((Cell(split), Cell(display_name(name)), *(score_cell(row, column, brief=True) for column in columns)))
        for split, name, row in rows
    ]
    return Table((Head("split", kind="left"), Head("model", kind="left"), *heads_of(columns)), tuple(made))


def paired_table(by_pair: Mapping[str, Any], title: str = "") -> Table:
    """Paired differences of one split: {pair: {metric: {difference, interval, p, n}}}."""
    rows = []
    for pair, by_metric in by_pair.items():
        for metric, entry in by_metric.items() if isinstance(by_metric, Mapping) else ():
            if not isinstance(entry, Mapping) or number(entry.get("difference")) is None:
                continue
            p, n = Cell(number(entry.get("p")), form=".4f"), Cell(number(entry.get("n")), form=".0f")
            change = {"difference, 95% interval": difference_cell(entry, column_of(metric), 2)}
            rows.append({"paired": pair, "metric": column_of(metric).title, **change, "p": p, "n": n})
    return table_of(rows, title)


MEANING = {
    "temporal_drift": "answers sit too early or too late as a whole: look at the clock before the policy",
    "scale_bias": "answers are longer or shorter than the true windows: the cheapest way to gain IoU without placing edges",
    "semantic_misalignment": "the segment fits another event of the video: it was seen, but the query was misunderstood",
    "prior_following_swap": "the answer stays although another video is shown: it comes from the query, not from the picture",
    "prior_following_shuffle": "the answer stays although the frames are in random order: not taken from the order of events",
    "form_without_content": "the form is right and nothing usable is in it: the form's reward is earned for nothing",
    "one_answer": "the same answer to everything",
    "parse_failures": "the text holds no segment that can be read",
    "out_of_distribution": "queries unlike those of training are answered worse than the others",
    "reward_without_iou": "the reward rose in training and IoU did not: the reward is being exploited",
}


def signature_table(found: Mapping[str, Mapping[str, Any]], title: str = "") -> Table:
    """Failure signatures of one checkpoint on one split: {name: Signature as JSON}."""
    rows = []
    for name, row in found.items():
        value = number(row.get("value"))
        measured = Cell(value, _pair(row.get("interval")), form=".2f", unit=str(row.get("unit", "")))
        line: dict[str, Any] = {
            "signature": name.replace("_", " "),
            "value, 95% interval": "not measured" if value is None else measured,
        }
        line |= {"flagged": "YES" if row.get("flagged") else "no", "samples": len(row.get("samples", ()))}
        rows.append(line | {"meaning, where found": MEANING.get(name, ""), "note": str(row.get("note", ""))})
    return table_of(rows, title)


def signatures_table(by_checkpoint: Mapping[str, Any]) -> Table:
    """Failure signatures of one split, a column for each checkpoint; what was found stands first."""
    cells: dict[str, dict[str, Mapping[str, Any]]] = {}
    for checkpoint, entries in by_checkpoint.items():
        for name, entry in entries.items() if isinstance(entries, Mapping) else ():
            if number(entry) is not None:
                cells.setdefault(name, {})[checkpoint] = entry if isinstance(entry, Mapping) else {"value": entry}
    names = [name for name in by_checkpoint if any(name in row for row in cells.values())]
    rows = []
    for name in sorted(cells, key=lambda name: not any(entry.get("flagged") for entry in cells[name].values())):
        unit = next((str(entry["unit"]) for entry in cells[name].values() if entry.get("unit")), "")
        row: dict[str, Any] = {"signature": Cell(name.replace("_", " "), note=unit)}
        for checkpoint in names:
            entry = cells[name].get(checkpoint, {})
            cell = Cell(number(entry), _pair(entry.get("interval")), form=".3g", found=bool(entry.get("flagged")))
            row[display_name(checkpoint)] = cell
        rows.append(row)
    return table_of(rows)


def questions_table(splits: Mapping[str, Any]) -> Table:
    """Multiple choice, in percent, a row for each split and checkpoint: {split: {checkpoint: {name: number or
    {value, interval}}}}."""
    rows = []
    for split, by_checkpoint in splits.items():
        for checkpoint, entries in by_checkpoint.items() if isinstance(by_checkpoint, Mapping) else ():
            row: dict[str, Any] = {}
            for name, entry in entries.items() if isinstance(entries, Mapping) else ():
                if name != "n" and number(entry) is not None:
                    interval = _pair(entry.get("interval")) if isinstance(entry, Mapping) else None
                    row[name.replace("_", " ")] = Cell(number(entry), interval)
            if row:
                rows.append({"split": split, "checkpoint": display_name(checkpoint), **row})
    return table_of(rows)
