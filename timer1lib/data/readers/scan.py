"""JSON values one after the other, with their lines, out of a text that may be damaged anywhere: nothing in it is passed over."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from timer1lib.files import NOT_JSON, why_not_json

MAX_ROW = 4_000_000
"""A single row longer than this is no annotation."""

MAX_TOO_DEEP = 50
"""Values nested too deep to be read after which the search for a whole row is given up: each attempt costs time."""

_LINE_END = re.compile(r"\r\n|\r|\n")
_BETWEEN = re.compile(r"[ \t\r\n,\ufeff]*")
_SPACE = re.compile(r"[ \t\r\n]*")
_OPENING = re.compile(r"[\[{]")
_OPENS_LIST = re.compile(r"\[\s*[\[{]")
_MAYBE_ROW = re.compile(r"[^:\s]\s*(?=\{)")
_MAYBE_MEMBER = re.compile(r"\}\s*,?\s*(?=\"(?:[^\"\\]|\\.)*\"\s*:\s*[{\[])")
_RAW_BYTE = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True, slots=True)
class Item:
    """A decoded value and the line it starts on.

    `key` is its key in a JSON object of records, `member` the name of the list that it stands in in an object of lists.
    """

    value: Any
    line: int
    key: str | None = None
    member: str = ""


@dataclass(frozen=True, slots=True)
class Broken:
    """Something that could not be decoded, from its first line to its last."""

    line: int
    reason: str
    last: int = 0

    def __str__(self) -> str:
        return f"{self.reason} (up to line {self.last})" if self.last > self.line else self.reason


class _Twice(ValueError):
    """An object has one field twice, so that one of the values would be lost."""


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        name = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise _Twice(f"the field {name[:40]!r} stands in it twice")
    return table


Decode = Callable[[str, int], tuple[Any, int]]
_decode: Decode = json.JSONDecoder(object_pairs_hook=_fields).raw_decode
_decode_anything: Decode = json.JSONDecoder(parse_int=float).raw_decode
"""For the end of a value that is whole JSON, and yet refused."""

WINDOW = 4096
NEAR_END = 16


def _decode_at(text: str, start: int, decode: Decode = _decode) -> tuple[Any, int]:
    """The value at `start`, and its end; positions in errors count from `start`.

    It is decoded out of a window that grows as needed: an error costs time in proportion to the text before it.
    """
    size = WINDOW
    while True:
        window = text[start : start + size]
        whole = start + size >= len(text)
        try:
            value, end = decode(window, 0)
            if whole or end < len(window):
                return value, start + end
        except json.JSONDecodeError as error:
            cut = error.pos >= len(window) - NEAR_END or error.msg.startswith("Unterminated")
            if whole or not cut:
                raise
        size *= 16


class Scanner:
    """Reads the values of `text` in order; `line_of` gives the line of a character's position.

    With `fragment` the text is one line: a list may begin or end in another. `like` are the fields of an earlier row.
    """

    def __init__(
        self, text: str, line_of: Callable[[int], int] | None = None, *, fragment: bool = False, like: Collection[str] = ()
    ) -> None:
        self.text = text
        self.line_of = line_of or line_numbers(text)
        self.fragment = fragment
        self.like = like
        self.at = 0
        self.too_deep = 0

    def rows(self, member: str = "", depth: int = 0) -> Iterator[Item | Broken]:
        """Every element of every list, and every value outside of one, to the text's end.

        With a `depth` of 1 the list around the position is read, to its closing bracket only.
        """
        inside = depth > 0
        while self._next():
            if self.text[self.at] == "]":
                depth = max(0, depth - 1)
                self.at += 1
                if inside and depth == 0:
                    return
            elif self.text[self.at] == "[" and ((depth == 0 and not self.fragment) or _OPENS_LIST.match(self.text, self.at)):
                depth += 1
                self.at += 1
            else:
                entry, whole = self._value(member)
                yield entry
                if not whole and self.at >= len(self.text):
                    return
        if depth > 0 and not self.fragment:
            yield Broken(self._line(len(self.text)), "the file ends inside its list of rows: it was cut off")

    def objects(self, row_lists: Collection[str] = ()) -> Iterator[Item | Broken]:
        """Members of one object after the other; where the objects hold `row_lists`, the rows of these."""
        while self._next():
            character = self.text[self.at]
            if character in "]}":
                self.at += 1
            elif character == "[":
                self.at += 1
                yield from self.rows(depth=1)
            elif character in '{"':
                # A member outside of an object: a broken one before it has taken the wrong brace for the object's end.
                self.at += character == "{"
                yield from self._members(row_lists)
            else:
                start = self.at
                opening = _OPENING.search(self.text, start)
                self.at = opening.start() if opening else len(self.text)
                yield self._broken(start, f"not a row: {self._excerpt(start)}")

    def _members(self, row_lists: Collection[str]) -> Iterator[Item | Broken]:
        while self._next():
            start = self.at
            if self.text[start] == "}":
                self.at += 1
                return
            try:
                key = self._key()
                if key in row_lists and self.text[self.at : self.at + 1] == "[":
                    self.at += 1
                    yield from self.rows(key, depth=1)
                    continue
                opening = self.at
                value, self.at = _decode_at(self.text, opening)
            except NOT_JSON as error:
                yield self._after_broken_member(start, error)
                if self.at >= len(self.text):
                    return
                continue
            if not row_lists:
                yield self._checked(value, start, key=key)
            elif holds_objects(value):
                lost = f"the member {key[:40]!r} with its {len(value)} entries is not read"
                yield self._broken(start, f"{lost}: rows are in {', '.join(row_lists)}")
        yield Broken(self._line(len(self.text)), "the file ends inside an object: it was cut off")

    def _key(self) -> str:
        """The key at the position, which goes on to the value."""
        key, self.at = _decode_at(self.text, self.at)
        self.at = _end(_SPACE, self.text, self.at)
        if not isinstance(key, str) or self.text[self.at : self.at + 1] != ":":
            raise json.JSONDecodeError("a key and a colon were expected", "", 0)
        self.at = _end(_SPACE, self.text, self.at + 1)
        return key

    def _value(self, member: str) -> tuple[Item | Broken, bool]:
        """The value at the position, and whether its end is known."""
        start = self.at
        try:
            value, end = _decode_at(self.text, start)
        except NOT_JSON as error:
            return self._after_broken_row(start, error)
        after = _end(_SPACE, self.text, end)
        if self.text[start] not in "{[" and self.text[after : after + 1] not in (",", "]", ""):
            return self._after_broken_row(start, None)
        self.at = end
        if isinstance(value, dict):
            self.like = value.keys()
        return self._checked(value, start, member=member), True

    def _checked(self, value: Any, start: int, key: str | None = None, member: str = "") -> Item | Broken:
        if self.at - start > MAX_ROW:
            return self._broken(start, f"a row of {self.at - start:,} characters")
        if not is_valid(self.text[start : self.at]):
            return self._broken(start, "not UTF-8 text")
        return Item(value, self.line_of(start), key, member)

    def _after_broken_row(self, start: int, error: Exception | None) -> tuple[Broken, bool]:
        """Go on to the next whole row: one with the fields of the rows before it, else any object that is whole."""
        reason = f"not a row: {self._excerpt(start)}" if error is None else self._why(error)
        if error is not None and (end := self._end_of_refused(start, error)) is not None:
            self.at = end
            return self._broken(start, reason), True
        first = None
        deep = isinstance(error, RecursionError)
        self.too_deep += deep
        for match in _MAYBE_ROW.finditer(self.text, start):
            if self.too_deep > MAX_TOO_DEEP:
                break
            try:
                value, _ = _decode_at(self.text, match.end())
            except _Twice:
                value = {}
            except NOT_JSON as problem:
                self.too_deep += isinstance(problem, RecursionError)
                continue
            if isinstance(value, dict) and similar(value, self.like):
                first = match.end()
                break
            if value and first is None and not self.fragment:
                first = match.end()
        self.at = len(self.text) if first is None else first
        if not is_valid(self.text[start : self.at]):
            reason = "not UTF-8 text"
        return self._broken(start, reason), False

    def _after_broken_member(self, start: int, error: Exception) -> Broken:
        end = self._end_of_refused(self.at, error)
        if end is not None:
            self.at = end
        else:
            near = self.at + error.pos - 1 if isinstance(error, json.JSONDecodeError) else start
            after = _MAYBE_MEMBER.search(self.text, max(start, near))
            self.at = len(self.text) if after is None else after.end()
        return self._broken(start, self._why(error))

    def _end_of_refused(self, start: int, error: Exception) -> int | None:
        """Where a value ends that is JSON, but has a field twice or a number too long."""
        if isinstance(error, json.JSONDecodeError | RecursionError):
            return None
        try:
            return _decode_at(self.text, start, _decode_anything)[1]
        except NOT_JSON:
            return None

    def _next(self) -> bool:
        """Go on to the next character that is more than a separator; False at the text's end."""
        self.at = _end(_BETWEEN, self.text, self.at)
        return self.at < len(self.text)

    def _why(self, error: Exception) -> str:
        if isinstance(error, _Twice):
            return str(error)
        if not isinstance(error, json.JSONDecodeError):
            return why_not_json(error)
        return f"not JSON: {error.msg}" + (f" at column {self.at + error.pos + 1}" if self.fragment else "")

    def _excerpt(self, start: int) -> str:
        return repr(" ".join(self.text[start : start + 40].split()))

    def _broken(self, start: int, reason: str) -> Broken:
        return Broken(self.line_of(start), reason, self._line(self.at))

    def _line(self, end: int) -> int:
        """The line of the last character before `end` that is more than a separator."""
        while end > 0 and self.text[end - 1] in " \t\r\n,":
            end -= 1
        return self.line_of(max(0, end - 1))


def line_numbers(text: str) -> Callable[[int], int]:
    """A function from a character's position to its line."""
    ends = [match.end() - 1 for match in _LINE_END.finditer(text)]
    return lambda position: bisect_left(ends, position) + 1


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, whichever of the three usual ends they have (and no other character ends one)."""
    yield from enumerate(_LINE_END.split(text), 1)


def is_valid(text: str) -> bool:
    """Whether the text came from whole UTF-8 or UTF-16: `source` marks what did not."""
    return text.isascii() or _RAW_BYTE.search(text) is None


def similar(row: Mapping[str, Any], fields: Collection[str]) -> bool:
    """Whether a row shares more than half of its fields (or of theirs, where these are fewer) with another one."""
    return bool(row and fields) and 2 * len(row.keys() & set(fields)) > min(len(row), len(fields))


def holds_objects(value: Any) -> bool:
    """Whether a list or an object holds objects, as a list of rows does."""
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(isinstance(entry, dict) for entry in entries)


def first_value(text: str) -> Any:
    """The first JSON value of a text; None where it cannot be read."""
    try:
        return _decode_anything(text, _end(_BETWEEN, text, 0))[0]
    except NOT_JSON:
        return None


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    assert match is not None
    return match.end()
