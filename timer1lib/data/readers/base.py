"""What a format is, and the loop that every format is read with: rows in = samples + rows that could not be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timer1lib.data.findings import Finding
from timer1lib.data.readers.row import Row, RowError, kind, stem
from timer1lib.data.readers.scan import Broken, Item
from timer1lib.data.readers.source import SPLITS
from timer1lib.schema import Sample

Companions = dict[str, Any]
"""What a format needs from the files beside the annotation file, such as Charades-STA's CSV of durations."""

Build = Callable[[Row, Companions], Sample]


def one_row(item: Item) -> Iterator[Row | RowError]:
    """The usual case: an item is one row."""
    if isinstance(item.value, Mapping):
        yield Row(item.value, item.line)
    else:
        yield RowError("unreadable", f"a row is {kind(item.value)}, not an object")


def no_companions(path: Path) -> Companions:
    return {}


@dataclass(frozen=True, slots=True)
class Reader:
    """One published format.

    Args:
        about: where it is published and what is special in it.
        matches: whether a row looks like this format's (asked of the first rows of a file).
        build: a row to a sample; raises `RowError`.
        explode: an item of the file to its rows, where one record holds several queries.
        container: "rows" for lists of objects (JSON array or JSONL), "map" for a JSON object of records, "text".
        companions: reads what lies beside the annotation file.
        textual: numbers are text by nature (CSV).
    """

    about: str
    matches: Callable[[Any], bool]
    build: Build
    explode: Callable[[Item], Iterator[Row | RowError]] = one_row
    container: str = "rows"
    companions: Callable[[Path], Companions] = no_companions
    textual: bool = False


@dataclass(slots=True)
class ReadResult:
    """Everything one file gave.

    `problems` are findings: those with repair `drop` and severity `error` are rows that could not be read
    (counted in `dropped`), the others remarks on rows in `samples`. `rows_in == len(samples) + dropped`.
    `rows` and `lines` say for each sample which row (from 1) of the file it is and on which line it starts.
    """

    file: str
    format: str
    samples: list[Sample] = field(default_factory=list)
    problems: list[Finding] = field(default_factory=list)
    rows_in: int = 0
    rows: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    @property
    def dropped(self) -> int:
        return self.rows_in - len(self.samples)


def read_rows(items: Iterable[Item | Broken], reader: Reader, name: str, file: str, companions: Companions) -> ReadResult:
    """Read every item with one reader. Ids that a format does not publish are made of the video's name and a count."""
    result = ReadResult(file, name)
    seen: Counter[str] = Counter()
    for item in items:
        if isinstance(item, Broken):
            _refuse(result, item.line, RowError("unreadable", str(item)))
            continue
        for row in reader.explode(item):
            if isinstance(row, RowError):
                _refuse(result, item.line, row)
                continue
            row.textual = row.textual or reader.textual
            try:
                sample = reader.build(row, companions)
            except RowError as error:
                _refuse(result, row.line, error)
                continue
            except RecursionError:
                _refuse(result, row.line, RowError("unreadable", "nested too deep"))
                continue
            sample.split = sample.split or (item.member if item.member in SPLITS else "")
            if not sample.id:
                base = stem(sample.video)
                sample.id = f"{base}#{seen[base]}"
                seen[base] += 1
            result.rows_in += 1
            result.samples.append(sample)
            result.rows.append(result.rows_in)
            result.lines.append(row.line)
            for code, severity, message in row.notes:
                result.problems.append(Finding(code, message, file, result.rows_in, row.line, sample.id, severity, "keep"))
    return result


def _refuse(result: ReadResult, line: int, error: RowError) -> None:
    result.rows_in += 1
    result.problems.append(Finding(error.code, str(error), result.file, result.rows_in, line))
