"""From a model's text to a segment. One parser; how strict it is has a name.

Every function is total: any text, however long or broken, gives a defined result and never an exception.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from timer1lib.schema import Window

Policy = Literal["timer1", "timer1_eval", "tvg_r1", "timelens"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

MAX_CHARACTERS = 20_000
"""Only the end of a longer text is read: answers come last, and scans stay linear."""

_NUMBER = r"\d{1,7}(?:\.\d{1,30})?(?!\d)"
_START = r"(?<![\d.])"  # a number is never read from its middle on, nor a part of a longer one
_PAIR = re.compile(rf"{_START}({_NUMBER})\s{{0,4}}(?:s|sec|seconds)?\s{{0,4}}(?:to|and)\s{{1,4}}({_NUMBER})", re.IGNORECASE)
_PAIR_ANY = re.compile(
    rf"{_START}({_NUMBER})\s{{0,4}}(?:s|sec|seconds)?\s{{0,4}}(?:to|and|-|–|—|,)\s{{0,4}}({_NUMBER})", re.IGNORECASE
)
_BRACKET = re.compile(rf"\[\s{{0,4}}({_NUMBER})\s{{0,4}},\s{{0,4}}({_NUMBER})\s{{0,4}}\]")

_FORMS: dict[Policy, re.Pattern[str]] = {
    "timer1": re.compile(
        r"\s*<think>(?:(?!</?think>|</?answer>).)*</think>\s*<answer>(?:(?!</?answer>|</?think>).)*</answer>\s*", re.DOTALL
    ),
    "timer1_eval": re.compile(r".*", re.DOTALL),
    "tvg_r1": re.compile(
        rf"\s*<think>(?:(?!</?think>|</?time>).)*</think>\s*(?:\\boxed\{{[^{{}}]*\}}\s*)?"
        rf"<time>\s*\[\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\]\s*</time>\s*(?:\\boxed\{{[^{{}}]*\}}\s*)?",
        re.DOTALL,
    ),
    "timelens": re.compile(r".*", re.DOTALL),
}


@dataclass(frozen=True, slots=True)
class Parsed:
    """A parsed answer. `start` and `end` are seconds, both None where the text holds no span.

    `end` may lie before `start`: what the model said is kept, and scores 0.
    """

    start: float | None
    end: float | None
    form: bool

    @property
    def span(self) -> Window | None:
        return None if self.start is None or self.end is None else (self.start, self.end)


def parse(text: str, policy: Policy = "timer1") -> Parsed:
    """Read the segment that `text` answers.

    Policies:
        timer1: the last `<answer>` block, and in it the last "S to E" or "S and E" (Time-R1's trainer).
        timer1_eval: the last pair "S to E", "S and E" or "S - E" anywhere (Time-R1's evaluation script).
        tvg_r1: the last `[S, E]` in the last `<time>` block.
        timelens: the last pair in any of these notations, a bracket included, anywhere.
    """
    form = follows_form(text, policy)
    tail = text[-MAX_CHARACTERS:]
    if policy == "timer1":
        body = _last_block(tail, "answer")
        pairs = _PAIR.findall(body) if body is not None else []
    elif policy == "timer1_eval":
        pairs = _PAIR_ANY.findall(tail)
    elif policy == "tvg_r1":
        body = _last_block(tail, "time")
        pairs = _BRACKET.findall(body) if body is not None else []
    else:
        pairs = _PAIR_ANY.findall(tail)
    if not pairs:
        return Parsed(None, None, form)
    start, end = float(pairs[-1][0]), float(pairs[-1][1])
    if not (math.isfinite(start) and math.isfinite(end)):
        return Parsed(None, None, form)
    return Parsed(start, end, form)


def follows_form(text: str, policy: Policy) -> bool:
    """Whether the whole text has the policy's form and holds a span where the form has a place for one."""
    if len(text) > MAX_CHARACTERS:
        return False
    return _FORMS[policy].fullmatch(text) is not None


def _last_block(text: str, tag: str) -> str | None:
    """Inside of the last `<tag>...</tag>`; None where none is closed."""
    end = text.rfind(f"</{tag}>")
    if end < 0:
        return None
    start = text.rfind(f"<{tag}>", 0, end)
    return None if start < 0 else text[start + len(tag) + 2 : end]
