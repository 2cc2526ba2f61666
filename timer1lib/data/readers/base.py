"""What a format is, and the loop that every format is read with: rows in = samples + rows that could not be read."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from timer1lib.data.findings import Finding, Severity
from timer1lib.data.readers.scan import Broken, Item
from timer1lib.data.readers.source import SPLITS
from timer1lib.schema import Sample, Window

_PAIR = re.compile(
    r"\s*\[?\(?\s*([+-]?(?:\d+\.?\d*(?:e[+-]?\d+)?|\.\d+|nan|inf(?:inity)?))\s*(?:-|–|,|to|\s)\s*"
    r"([+-]?(?:\d+\.?\d*(?:e[+-]?\d+)?|\.\d+|nan|inf(?:inity)?))\s*\)?\]?\s*s?\s*",
    re.IGNORECASE,
)
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_LETTER = re.compile(r"\s*\(?([A-Za-z])\)?(?:[\s.:)].*)?", re.DOTALL)


class RowError(Exception):
    """This row cannot become a sample; `code` is one of `findings.CODES`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class Row:
    """A row as it stands in the file (one query each), the line it starts on, and what was noticed while reading."""

    data: Mapping[str, Any]
    line: int
    textual: bool = False
    """From CSV or plain text, where numbers are text by nature and need no remark."""
    notes: list[tuple[str, Severity, str]] = field(default_factory=list)

    def note(self, code: str, severity: Severity, message: str) -> None:
        self.notes.append((code, severity, message))

    def first(self, *names: str) -> str | None:
        """The first of several names of a field that this row has (a JSON null counts as absent)."""
        return next((name for name in names if self.data.get(name) is not None), None)

    def text(self, *names: str) -> str:
        """Required text under one of several names. Ids may be whole numbers."""
        name = self.first(*names)
        if name is None:
            raise RowError("missing_field", f"no {' / '.join(names)}")
        return self._as_text(name, self.data[name])

    def text_or(self, default: str, *names: str) -> str:
        name = self.first(*names)
        return default if name is None else self._as_text(name, self.data[name])

    def query(self, *names: str) -> str:
        """The query: its absence is a missing field, any other type a bad query. Empty text is kept for the audit."""
        name = self.first(*names)
        if name is None:
            null = next((n for n in names if n in self.data), None)
            raise RowError("bad_query" if null else "missing_field", f"{null} is null" if null else f"no {' / '.join(names)}")
        value = self.data[name]
        if not isinstance(value, str):
            raise RowError("bad_query", f"{name} is {kind(value)}, not text")
        check_unicode(name, value)
        return value

    def _as_text(self, name: str, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise RowError("unreadable", f"{name} is {kind(value)}, not text")
        text = str(value)
        if not text.strip():
            raise RowError("missing_field", f"{name} is empty")
        check_unicode(name, text)
        if "\0" in text:
            raise RowError("unreadable", f"{name} holds a NUL character")
        return text

    def number(self, *names: str) -> float | None:
        """A number in seconds, None where absent. NaN and endless values are kept for the audit to name."""
        name = self.first(*names)
        return None if name is None else self.as_number(name, self.data[name])

    def as_number(self, name: str, value: Any) -> float:
        if isinstance(value, str):
            if not value.strip():
                raise RowError("missing_field", f"{name} is empty")
            try:
                # Python reads 1_0 as ten; nobody means it.
                number = float(value.replace("_", "?"))
            except ValueError:
                raise RowError("unreadable", f"{name} is {value[:40]!r}, not a number") from None
            if not self.textual:
                self.note("text_number", "warning", f"{name} is the text {value[:40]!r}, read as {number:g}")
            return number
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise RowError("unreadable", f"{name} is {kind(value)}, not a number")
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf

    def window(self, name: str, value: Any) -> Window:
        """`[start, end]`, or text such as "13.4-28.1"."""
        if isinstance(value, str):
            match = _PAIR.fullmatch(value)
            if match is None:
                raise RowError("unreadable", f"{name} is {value[:40]!r}, not 'start-end' in seconds")
            return float(match[1]), float(match[2])
        if not isinstance(value, Sequence) or len(value) != 2:
            raise RowError("unreadable", f"{name} is {kind(value)}, not [start, end] in seconds")
        if value[0] is None or value[1] is None:
            raise RowError("missing_field", f"{name} holds a null where a time should be")
        return self.as_number(f"{name} start", value[0]), self.as_number(f"{name} end", value[1])

    def windows(self, name: str, value: Any) -> list[Window]:
        """One window or a list of them."""
        if isinstance(value, list) and any(isinstance(v, list) or (isinstance(v, str) and _PAIR.fullmatch(v)) for v in value):
            return [self.window(name, v) for v in value]
        return [self.window(name, value)]

    def required_windows(self, *names: str) -> list[Window]:
        name = self.first(*names)
        if name is None or self.data[name] == []:
            raise RowError("missing_field", f"no {' / '.join(names)}")
        return self.windows(name, self.data[name])

    def expect(self, *names: str, severity: Severity = "info") -> None:
        """Note fields that rows of this format usually have."""
        for name in names:
            if self.data.get(name) in (None, ""):
                lengths = name.endswith("duration")
                self.note("no_duration" if lengths else "missing_field", "info" if lengths else severity, f"no {name}")

    def options(self, *names: str) -> list[str]:
        name = self.first(*names)
        if name is None:
            raise RowError("missing_field", f"no {' / '.join(names)}")
        value = self.data[name]
        if not isinstance(value, list) or len(value) < 2 or not all(isinstance(v, (str, int, float)) for v in value):
            raise RowError("unreadable", f"{name} is {kind(value)}, not a list of at least two options")
        for v in value:
            check_unicode(name, str(v))
        return [str(v) for v in value]

    def extra(self, *names: str) -> dict[str, Any]:
        """Fields to carry along, as plain JSON without NaN."""
        return {name: self.data[name] for name in names if self.data.get(name) is not None and is_plain(self.data[name])}


def as_index(row: Row, name: str, value: Any, options: Sequence[str]) -> int | None:
    """Index of the right option from "(C)", "C", "C. text", an index, or the option's own text.

    Returns None, with a remark, where it is none of the options: the audit names it `bad_answer`.
    """
    index = value if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, str):
        plain = [strip_letter(option) for option in options]
        if value in options:
            index = list(options).index(value)
        elif strip_letter(value) in plain:
            index = plain.index(strip_letter(value))
        elif re.fullmatch(r"\s*[0-9]{1,9}\s*", value):
            index = int(value)
        elif (match := _LETTER.fullmatch(value)) is not None:
            index = ord(match[1].upper()) - ord("A")
    if index is None or not 0 <= index < len(options):
        row.note("bad_answer", "error", f"{name} {str(value)[:40]!r} is none of the {len(options)} options")
        return None
    return index


def answered(row: Row, name: str, options: Sequence[str]) -> int | None:
    """`as_index` of a field; its absence is noted, not refused: some test splits keep their answers to themselves."""
    if row.data.get(name) is None:
        row.note("missing_field", "info", f"no {name}")
        return None
    return as_index(row, name, row.data[name], options)


def strip_letter(option: str) -> str:
    """`"(A) a cup"` or `"A. a cup"` -> `"a cup"`."""
    return re.sub(r"^\s*(?:\([A-Z]\)|[A-Z][.):])\s+", "", option).strip()


def check_unicode(name: str, text: str) -> None:
    if _HALF_PAIR.search(text):
        raise RowError("unreadable", f"{name} is not valid Unicode text")


def is_plain(value: Any, depth: int = 0) -> bool:
    """Whether a value can be written as strict JSON and is not nested absurdly deep."""
    if value is None or isinstance(value, (bool, int)):
        return True
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return _HALF_PAIR.search(value) is None
    if depth >= 8:
        return False
    if isinstance(value, list):
        return all(is_plain(v, depth + 1) for v in value)
    return isinstance(value, dict) and all(is_plain(k) and is_plain(v, depth + 1) for k, v in value.items())


def kind(value: Any) -> str:
    """A value's type in a reader's words."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    names = {bool: "true/false", str: "text", int: "a number", float: "a number", dict: "an object", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def stem(video: str) -> str:
    """`"a/b/OHOFG.mp4"` -> `"OHOFG"`; a dot inside an id is kept."""
    name = PurePosixPath(video.replace("\\", "/")).name
    head, dot, ending = name.rpartition(".")
    return head if dot and head and ending.isalnum() and 2 <= len(ending) <= 4 and not ending.isdigit() else name


Companions = dict[str, Any]
"""What a format needs from the files beside the annotation file, such as Charades-STA's CSV of durations."""

Build = Callable[[Row, Companions], Sample]


@dataclass(frozen=True, slots=True)
class Fields:
    """A `Build` for flat rows: under which name each value of a sample stands ("id qid": the first of them that is there)."""

    video: str
    query: str
    windows: str = ""
    id: str = ""
    duration: str = "duration"
    type: str = ""
    source: str = ""
    origin: str = ""
    """The source where the row names none."""
    clip: tuple[str, ...] = ()
    options: str = ""
    lettered: bool = False
    """Options carry their letters, which are taken off."""
    answer: str = "answer"
    extra: str = ""
    expect: str = ""
    """What rows usually have; its absence is noted with this `severity`."""
    severity: Severity = "warning"

    def __call__(self, row: Row, _: Companions) -> Sample:
        row.expect(*self.expect.split(), severity=self.severity)
        options = row.options(self.options) if self.options else None
        return Sample(
            id=row.text_or("", *self.id.split()),
            video=row.text(*self.video.split()),
            query=row.query(self.query),
            duration=row.number(*self.duration.split()),
            windows=row.required_windows(self.windows) if self.windows else [],
            type=row.text_or("", *self.type.split()),
            source=row.text_or(self.origin, *self.source.split()),
            video_start=row.number(*self.clip[:1]),
            video_end=row.number(*self.clip[1:]),
            options=[strip_letter(option) for option in options] if options and self.lettered else options,
            answer=answered(row, self.answer, options) if options else None,
            extra=row.extra(*self.extra.split()),
        )


def one_row(item: Item) -> Iterator[Row | RowError]:
    """The usual case: an item is one row."""
    if isinstance(item.value, Mapping):
        yield Row(item.value, item.line)
    else:
        yield RowError("unreadable", f"a row is {kind(item.value)}, not an object")


@dataclass(frozen=True, slots=True)
class Reader:
    """One published format.

    Args:
        matches: whether a row looks like this format's (asked of the first rows of a file).
        build: a row to a sample; raises `RowError`.
        explode: an item of the file to its rows, where one record holds several queries.
        container: "rows" for lists of objects (JSON array or JSONL), "map" for a JSON object of records, "text".
        companions: reads what lies beside the annotation file.
    """

    about: str
    matches: Callable[[Any], bool]
    build: Build
    explode: Callable[[Item], Iterator[Row | RowError]] = one_row
    container: str = "rows"
    companions: Callable[[Path], Companions] = lambda path: {}
    textual: bool = False


@dataclass(slots=True)
class ReadResult:
    """Everything one file gave.

    `problems` with repair `drop` and severity `error` are rows that could not be read (`dropped`), the others remarks on rows
    in `samples`; `rows` and `lines` say for each sample which row (from 1) of the file it is and on which line it starts.
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
            except (RowError, RecursionError) as error:
                _refuse(result, row.line, error if isinstance(error, RowError) else RowError("unreadable", "nested too deep"))
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
