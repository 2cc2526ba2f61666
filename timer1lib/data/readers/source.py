"""A file as a stream of raw rows with line numbers, whatever container it is: JSON array, JSON object, JSONL, CSV, text.

One row is decoded at a time. What cannot be decoded becomes a `Broken` item with its line, and reading goes on after it.
"""

from __future__ import annotations

import csv
import io
import json
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from timer1lib.errors import Timer1Error

Container = Literal["array", "object", "lines", "csv", "text"]

ROW_LISTS = ("data", "annotations", "samples", "rows", "questions", "results")
"""Names under which a JSON object may hold its list of rows."""

MAX_ROW_CHARACTERS = 4_000_000
"""A single row longer than this is no annotation."""

_NEXT_ITEM = re.compile(r"\}\s*,\s*(?=\{)")
_NEXT_MEMBER = re.compile(r"\}\s*,\s*(?=\")")
_RAW_BYTE = re.compile("[\udc80-\udcff]")
_SPACE = re.compile(r"[ \t\r\n]*")
_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Item:
    """A decoded value, the line it starts on, and its key where the container is a JSON object."""

    value: Any
    line: int
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """Something that could not be decoded."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Source:
    """A file's text and container."""

    path: Path
    text: str
    container: Container
    delimiter: str = ","
    rows_key: str | None = None
    """Where the container is an object that holds its list of rows under one key: that key."""

    def items(self) -> Iterator[Item | Broken]:
        """Rows in order. CSV rows are dicts by header; text rows are the line itself."""
        if self.container == "lines":
            yield from _lines(self.text)
        elif self.container == "array":
            yield from _array(self.text, self.text.index("[") + 1, _Lines(self.text))
        elif self.container == "object":
            yield from _object(self.text, _Lines(self.text), self.rows_key)
        elif self.container == "csv":
            yield from _csv(self.text, self.delimiter)
        else:
            for number, line in enumerate(self.text.split("\n"), 1):
                if line.strip():
                    yield Item(line.rstrip("\r"), number) if _valid(line) else Broken(number, "not UTF-8 text")


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
    except (IsADirectoryError, PermissionError, OSError) as error:
        raise Timer1Error(f"{path}: cannot be read: {error.strerror or error}") from None
    text = _text(path, raw)
    if not text.strip():
        raise Timer1Error(f"{path}: the file is empty; there are no annotations in it")
    container, delimiter = _container(text, path.suffix.lower())
    if container != "object":
        return Source(path, text, container, delimiter)
    return _one_object(path, text)


def _text(path: Path, raw: bytes) -> str:
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", "replace").lstrip("\ufeff")
    if b"\x00" in raw[:4096]:
        raise Timer1Error(f"{path}: binary, not an annotation file (JSON, JSONL, CSV or text)")
    # Bytes that are not UTF-8 become lone surrogates, so that only the rows which hold them are refused.
    return raw.decode("utf-8", "surrogateescape").lstrip("\ufeff")


def _container(text: str, suffix: str) -> tuple[Container, str]:
    start = text.lstrip()[:1]
    if start == "[" and suffix != ".jsonl":
        return "array", ","
    head = [line for line in text[:200_000].split("\n") if line.strip()][:200]
    if len(text) > 200_000 and len(head) > 1:
        head = head[:-1] if len(head) < 200 else head
    braces = sum(line.lstrip().startswith("{") and line.rstrip().rstrip(",").endswith("}") for line in head)
    if start == "[":
        return ("lines", ",") if braces > len(head) / 2 else ("array", ",")
    if suffix in (".jsonl", ".ndjson") or (braces > 1 and braces >= len(head) / 2):
        return "lines", ","
    if start == "{":
        return "object", ","
    if braces:
        return "lines", ","
    if "##" in head[0] or (len(head) > 1 and "##" in head[1]):
        return "text", ","
    delimiter = max(",\t;", key=head[0].count)
    if head[0].count(delimiter):
        return "csv", delimiter
    return "text", ","


def _one_object(path: Path, text: str) -> Source:
    """A single JSON object is a mapping of records, one row, or a wrapper around a list of rows."""
    try:
        value, end = _decode(text, _skip(text, 0))
    except (json.JSONDecodeError, RecursionError, ValueError):
        return Source(path, text, "object")
    for key in ROW_LISTS:
        if isinstance(value.get(key), list) and (not value[key] or isinstance(value[key][0], dict)):
            return Source(path, text, "object", rows_key=key)
    nested = sum(isinstance(v, dict) or (isinstance(v, list) and any(isinstance(x, dict) for x in v)) for v in value.values())
    if text[end:].strip() or (value and not nested):
        # Pretty-printed, one row may take many lines: it is read as a list of one.
        return Source(path, "[" + text + "]", "array") if not text[end:].strip() else Source(path, text, "lines")
    return Source(path, text, "object")


def _lines(text: str) -> Iterator[Item | Broken]:
    for number, line in enumerate(text.split("\n"), 1):
        body = line.strip().rstrip(",")
        if not body or body in ("[", "]"):
            continue
        yield _loads(body, number)


def _loads(body: str, line: int) -> Item | Broken:
    if len(body) > MAX_ROW_CHARACTERS:
        return Broken(line, f"a row of {len(body)} characters")
    if not _valid(body):
        return Broken(line, "not UTF-8 text")
    try:
        return Item(json.loads(body), line)
    except json.JSONDecodeError as error:
        return Broken(line, f"not JSON: {error.msg} at column {error.colno}")
    except (RecursionError, ValueError) as error:
        return Broken(line, f"not JSON: {'nested too deep' if isinstance(error, RecursionError) else error}")


def _array(text: str, position: int, lines: _Lines) -> Iterator[Item | Broken]:
    """Elements of a JSON array from just after its bracket; after a broken one reading goes on at the next."""
    while True:
        position = _skip(text, position)
        if position >= len(text):
            yield Broken(lines.of(len(text) - 1), "the file ends inside its list of rows: it was cut off")
            return
        if text[position] == "]":
            return
        start = position
        try:
            value, position = _decode(text, position)
            if not _valid(text[start:position]):
                yield Broken(lines.of(start), "not UTF-8 text")
            else:
                yield Item(value, lines.of(start))
        except (json.JSONDecodeError, RecursionError, ValueError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deep or not a number"
            yield Broken(lines.of(start), f"not JSON: {reason}")
            after = _NEXT_ITEM.search(text, max(start, getattr(error, "pos", start) - 1))
            if after is None:
                return
            position = after.end()
            continue
        position = _skip(text, position)
        if text[position : position + 1] == ",":
            position += 1
        elif text[position : position + 1] not in ("]", ""):
            yield Broken(lines.of(position), "not JSON: a comma is missing between two rows")
            after = _NEXT_ITEM.search(text, position)
            if text[position] not in '{["':
                if after is None:
                    return
                position = after.end()


def _object(text: str, lines: _Lines, rows_key: str | None) -> Iterator[Item | Broken]:
    """Members of a JSON object, or the rows of its member `rows_key`."""
    position = text.index("{") + 1
    while True:
        position = _skip(text, position)
        if position >= len(text):
            yield Broken(lines.of(len(text) - 1), "the file ends inside an object: it was cut off")
            return
        if text[position] == "}":
            return
        start = position
        try:
            key, position = _decode(text, position)
            position = _skip(text, position)
            if not isinstance(key, str) or text[position : position + 1] != ":":
                raise json.JSONDecodeError("a key and a colon were expected", text, position)
            position = _skip(text, position + 1)
            if rows_key is not None and key == rows_key:
                yield from _array(text, position + 1, lines)
                return
            value, position = _decode(text, position)
            if rows_key is None and not _valid(text[start:position]):
                yield Broken(lines.of(start), "not UTF-8 text")
            elif rows_key is None:
                yield Item(value, lines.of(start), key)
        except (json.JSONDecodeError, RecursionError, ValueError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deep or not a number"
            yield Broken(lines.of(start), f"not JSON: {reason}")
            after = _NEXT_MEMBER.search(text, max(start, getattr(error, "pos", start) - 1))
            if after is None:
                return
            position = after.end()
            continue
        position = _skip(text, position)
        if text[position : position + 1] == ",":
            position += 1


def _csv(text: str, delimiter: str) -> Iterator[Item | Broken]:
    header: list[str] | None = None
    for line, cells in _csv_lines(text, delimiter):
        if isinstance(cells, csv.Error):
            yield Broken(line, f"not CSV: {cells}")
        elif header is None:
            header = [cell.strip() for cell in cells]
        elif len(cells) != len(header):
            yield Broken(line, f"{len(cells)} columns, the header has {len(header)}")
        elif not _valid("".join(cells)):
            yield Broken(line, "not UTF-8 text")
        else:
            yield Item({name: cell for name, cell in zip(header, cells, strict=True) if name and cell != ""}, line)


def csv_header(source: Source) -> list[str]:
    """Column names of a CSV source, each on one line; none where no line of it can be read."""
    lines = (cells for _, cells in _csv_lines(source.text, source.delimiter) if not isinstance(cells, csv.Error))
    return [" ".join(cell.split()) for cell in next(lines, [])]


def _csv_lines(text: str, delimiter: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Where each line that is not empty begins, and its cells or why it has none."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, error
            continue
        if any(cell.strip() for cell in cells):
            yield line, cells


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None
    return match.end()


def _valid(text: str) -> bool:
    """Whether the text came from valid UTF-8 (see `_text`)."""
    return text.isascii() or _RAW_BYTE.search(text) is None


class _Lines:
    """Line number of a character position; made once per file."""

    def __init__(self, text: str) -> None:
        self._ends = [match.start() for match in re.finditer("\n", text)]

    def of(self, position: int) -> int:
        return bisect_left(self._ends, position) + 1
