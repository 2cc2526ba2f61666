"""A file as a stream of raw rows with line numbers, whatever container it is: JSON array, JSON object, JSONL, CSV, text.

Nothing in a file is passed over: what cannot be decoded becomes a `Broken` item, and reading goes on after it, to the file's
end, so that a second list behind the first is read as well.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from timer1lib.data.readers.scan import MAX_ROW, Broken, Item, Scanner, first_value, holds_objects, is_valid, lines_of, similar
from timer1lib.errors import Timer1Error

Container = Literal["array", "object", "lines", "csv", "text"]

SPLITS = ("train", "training", "val", "valid", "validation", "dev", "test")
"""Names under which a JSON object may hold one list of rows a split; they become the samples' split."""

ROW_LISTS = ("data", "annotations", "samples", "rows", "questions", "results", *SPLITS)
"""Names under which a JSON object may hold its lists of rows."""

_ROW_LIST = re.compile(rf'"({"|".join(ROW_LISTS)})"\s*:\s*\[\s*\{{')

MAX_RESTARTS = 1000
"""Quotes left open in one CSV file after which its lines are no longer taken apart one by one."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file's text and container."""

    path: Path
    text: str
    container: Container
    delimiter: str = ","
    row_lists: tuple[str, ...] = ()
    """Where the container is an object that holds lists of rows: the names of these members."""

    def items(self) -> Iterator[Item | Broken]:
        """Rows in order. CSV rows are dicts by header; text rows are the line itself."""
        if self.container == "lines":
            yield from _json_lines(self.text)
        elif self.container == "array":
            yield from Scanner(self.text).rows()
        elif self.container == "object":
            yield from Scanner(self.text).objects(self.row_lists)
        elif self.container == "csv":
            yield from _csv(self.text, self.delimiter)
        else:
            for number, line in lines_of(self.text):
                if line.strip():
                    yield Item(line, number) if is_valid(line) else Broken(number, "not UTF-8 text")


def open_source(path: str | Path) -> Source:
    """Read a file and find out what container it is.

    Raises:
        Timer1Error: no such file, a folder, empty, or binary.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise Timer1Error(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise Timer1Error(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    text = _text(path, raw)
    if not text.strip():
        raise Timer1Error(f"{path}: the file is empty; there are no annotations in it")
    first = first_value(text) if text.lstrip()[:1] == "{" else None
    container, delimiter = _container(text, path.suffix.lower(), first)
    if container != "object":
        return Source(path, text, container, delimiter)
    # Damaged: the names tell whether it holds lists of rows or is a mapping of records.
    row_lists = tuple(dict.fromkeys(_ROW_LIST.findall(text))) if first is None else _row_lists(first)
    if first is None or row_lists:
        return Source(path, text, "object", row_lists=row_lists)
    # A mapping of records, or one row over many lines, which may hold an object or two.
    nested = sum(isinstance(v, dict) or (isinstance(v, list) and holds_objects(v)) for v in first.values())
    return Source(path, text, "object" if 2 * nested >= len(first) else "array")


def _raw(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\udc80", error.end


# Bytes that are no text become lone surrogates, so that only the rows which hold them are refused (`scan.is_valid`).
codecs.register_error("timer1_raw", _raw)


def _text(path: Path, raw: bytes) -> str:
    text = raw.decode("utf-16", "timer1_raw") if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else raw.decode("utf-8", "surrogateescape")
    head = text[:4096]
    # A few NULs in a text file are damage, and cost the rows that hold them.
    zeros = head.count("\x00")
    if zeros and (100 * zeros > max(1600, len(head)) or not is_valid(head)):
        raise Timer1Error(f"{path}: binary, not an annotation file (JSON, JSONL, CSV or text)")
    return text.lstrip("\ufeff")


def _container(text: str, suffix: str, first: Any) -> tuple[Container, str]:
    start = text.lstrip()[:1]
    if start == "[" and suffix != ".jsonl":
        return "array", ","
    head = [line for _, line in lines_of(text[:200_000]) if line.strip()][:200]
    head = head[:-1] if len(text) > 200_000 and 1 < len(head) < 200 else head
    braces = sum(line.lstrip().startswith("{") and line.rstrip().rstrip(",").endswith("}") for line in head)
    if start == "[":
        return ("lines", ",") if braces > len(head) / 2 else ("array", ",")
    wraps = first is None and suffix != ".jsonl" and re.match(r"\s*\{\s*" + _ROW_LIST.pattern, text) is not None
    if start == "{" and (wraps or (braces == 0 and head[0].strip() == "{") or _all_objects(first)):
        return "object", ","
    if suffix in (".jsonl", ".ndjson") or (braces > 1 and braces >= len(head) / 2):
        return "lines", ","
    if start == "{" or braces:
        return "object" if start == "{" else "lines", ","
    if "##" in head[0] or 4 * sum("##" in line for line in head) >= len(head):
        return "text", ","
    delimiter = max(",\t;", key=head[0].count)
    return ("csv", delimiter) if delimiter in head[0] else ("text", ",")


def _all_objects(value: Any) -> bool:
    """Whether a file's first object holds nothing but records, or nothing but lists of them, and so is no row."""
    if not isinstance(value, dict) or not value:
        return False
    entries = value.values()
    return all(isinstance(entry, dict) for entry in entries) or all(isinstance(e, list) and holds_objects(e) for e in entries)


def _row_lists(value: Mapping[str, Any]) -> tuple[str, ...]:
    """The members that are lists of rows: the first with a usual name, and those whose rows look like its rows."""
    lists = {name: entries for name, entries in value.items() if isinstance(entries, list) and holds_objects(entries)}
    known = [name for name in ROW_LISTS if name in lists] or [name for name in ROW_LISTS if value.get(name) == []]
    if known:
        first = known[0]
    elif lists and len(lists) == len(value):
        first = next(iter(lists))
    else:
        return ()
    fields = {field for entry in lists.get(first, [])[:50] if isinstance(entry, dict) for field in entry}
    alike = [n for n, rows in lists.items() if n != first and any(isinstance(r, dict) and similar(r, fields) for r in rows[:50])]
    return (first, *alike)


def _json_lines(text: str) -> Iterator[Item | Broken]:
    fields: Collection[str] = ()
    for number, line in lines_of(text):
        body = line.strip(" \t\ufeff")
        if body.strip(" \t,") in ("", "[", "]"):
            continue
        if len(body) > MAX_ROW:
            yield Broken(number, f"a row of {len(body):,} characters")
            continue
        scanner = Scanner(body, lambda _, number=number: number, fragment=True, like=fields)  # type: ignore[misc]
        yield from scanner.rows()
        fields = scanner.like


def _csv(text: str, delimiter: str) -> Iterator[Item | Broken]:
    lines = list(io.StringIO(text, newline=""))
    header: list[str] | None = None
    restart: int | None = 0
    restarts = 0
    while restart is not None:
        records, restart = _csv_records(lines, restart, delimiter), None
        for first, after, cells in records:
            if header is None:
                # Where the first line is broken, no other one may take its place.
                header = [] if isinstance(cells, csv.Error) else [cell.strip() for cell in cells]
                if header:
                    continue
            entry = _csv_row(first + 1, after, cells, header)
            if isinstance(entry, Broken) and restarts < MAX_RESTARTS and _swallowed(lines[first + 1 : after], delimiter, header):
                # A quote that was opened and not closed must not take the rows behind it along.
                entry, restart, restarts = Broken(first + 1, f"{entry.reason}; a quote is not closed"), first + 1, restarts + 1
            yield entry
            if restart is not None:
                break


def _csv_row(line: int, last: int, cells: list[str] | csv.Error, header: list[str]) -> Item | Broken:
    if isinstance(cells, csv.Error):
        return Broken(line, f"not CSV: {cells}", last)
    if len(cells) != len(header):
        return Broken(line, f"{len(cells)} columns, the header has {len(header)}", last)
    if not is_valid("".join(cells)):
        return Broken(line, "not UTF-8 text", last)
    if any("\x00" in cell for cell in cells):
        return Broken(line, "it holds a NUL character", last)
    row: dict[str, str] = {}
    for name, cell in zip(header, cells, strict=True):
        if name and cell != "" and row.setdefault(name, cell) != cell:
            return Broken(line, f"two columns are called {name[:40]!r}, and they differ", last)
    return Item(row, line)


def _swallowed(lines: Sequence[str], delimiter: str, header: Sequence[str] | None) -> bool:
    """Whether a record of several lines holds lines that are whole rows by themselves."""
    for line in lines:
        with contextlib.suppress(csv.Error):
            if header and len(next(csv.reader([line], delimiter=delimiter, strict=True), [])) == len(header):
                return True
    return False


def csv_header(source: Source) -> list[str]:
    """Column names of a CSV source, each on one line; none where no line of it can be read."""
    records = _csv_records(list(io.StringIO(source.text, newline="")), 0, source.delimiter)
    header = next((cells for _, _, cells in records if not isinstance(cells, csv.Error)), [])
    return [" ".join(cell.split())[:40] for cell in header]


def _csv_records(lines: Sequence[str], start: int, delimiter: str) -> Iterator[tuple[int, int, list[str] | csv.Error]]:
    """Records that are not empty: the index of the first line, the one after the last, and the cells or why there are none."""
    # Strict: text behind a closing quote is a mistake, and would otherwise join two rows without a word.
    reader = csv.reader(islice(lines, start, None), delimiter=delimiter, strict=True)
    while True:
        first = start + reader.line_num
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield first, start + reader.line_num, error
            continue
        if any(cell.strip() for cell in cells):
            yield first, start + reader.line_num, cells
