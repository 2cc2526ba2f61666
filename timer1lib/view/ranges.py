"""Times that a completion names, with the place in the text where it names them.

This is for looking only. What a completion *answers* is `timer1lib.forms`' business; here every range in the
thinking is found, so that text and timeline can be linked. Total: any text gives a list, never an exception.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from timer1lib.forms import MAX_CHARACTERS

RangeKind = Literal["thinking", "answer"]

_TIME = r"(?:\d{1,2}:\d{2}(?::\d{2})?(?:\.\d{1,3})?|\d{1,7}(?:\.\d{1,7})?)"
_UNIT = r"(?:\s{0,2}(?:seconds|second|secs|sec|s)\b)?"
_RANGE = re.compile(
    rf"(?<![\w.:])({_TIME}){_UNIT}\s{{0,3}}(?:to|and|until|till|through|-|–|—|,)\s{{0,3}}({_TIME})(?![\d:]){_UNIT}", re.IGNORECASE
)
_ANSWER = re.compile(r"<(answer|time)>", re.IGNORECASE)
MAX_RANGES = 200


@dataclass(frozen=True, slots=True)
class NamedRange:
    """A range in seconds, and the characters [`first`, `last`) of the text that name it."""

    start: float
    end: float
    first: int
    last: int
    kind: RangeKind


def named_ranges(text: str) -> list[NamedRange]:
    """Ranges such as "3.2 to 8", "[3.2, 8.0]", "3s - 8s" or "0:03 to 0:08", in the order of the text.

    A range whose end does not lie after its start ("2 and 1") is no range and is left out. Only the first
    `MAX_CHARACTERS` are read, and at most `MAX_RANGES` ranges are returned.
    """
    text = text[:MAX_CHARACTERS]
    opened = [match.start() for match in _ANSWER.finditer(text)]
    answer_from = opened[-1] if opened else len(text) if "</think>" not in text else text.rfind("</think>")
    found = []
    for match in _RANGE.finditer(text):
        start, end = _seconds(match[1]), _seconds(match[2])
        if end <= start:
            continue
        kind: RangeKind = "answer" if match.start() > answer_from else "thinking"
        found.append(NamedRange(start, end, match.start(), match.end(), kind))
        if len(found) == MAX_RANGES:
            break
    return found


def _seconds(text: str) -> float:
    total = 0.0
    for part in text.split(":"):
        total = total * 60 + float(part)
    return total


def linked_text(text: str) -> list[dict[str, object]]:
    """`text` cut into pieces for display: {"text"}, with "start", "end" and "kind" where a piece names a range.

    The pieces joined are the text again (its first `MAX_CHARACTERS`).
    """
    pieces: list[dict[str, object]] = []
    at = 0
    shown = text[:MAX_CHARACTERS]
    for found in named_ranges(shown):
        if found.first > at:
            pieces.append({"text": shown[at : found.first]})
        pieces.append({"text": shown[found.first : found.last], "start": found.start, "end": found.end, "kind": found.kind})
        at = found.last
    if at < len(shown):
        pieces.append({"text": shown[at:]})
    return pieces
