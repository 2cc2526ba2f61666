"""From a model's text to segments. One reader; where it looks and how strict it is has a name.

Every function is total: any text, however long or broken, gives a defined result and never an exception.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from timer1lib.schema import Window

Counts = Literal["last", "first"]

MAX_CHARACTERS = 20_000
"""Only the end of a longer text is read (its beginning where the first answer counts), so that scans stay linear."""

_NUMBER = r"\d{1,7}(?:\.\d{1,30})?(?!\d)"
_START = r"(?<![\d.])"  # a number is never read from its middle on, nor a part of a longer one
_PAIR = re.compile(rf"{_START}({_NUMBER})\s{{0,4}}(?:s|sec|seconds)?\s{{0,4}}(?:to|and)\s{{1,4}}({_NUMBER})", re.IGNORECASE)
_PAIR_ANY = re.compile(
    rf"{_START}({_NUMBER})\s{{0,4}}(?:s|sec|seconds)?\s{{0,4}}(?:to|and|-|–|—|,)\s{{0,4}}({_NUMBER})", re.IGNORECASE
)
_BRACKET = re.compile(rf"\[\s{{0,4}}({_NUMBER})\s{{0,4}},\s{{0,4}}({_NUMBER})\s{{0,4}}\]")
_THINK = r"\s*<think>(?:(?!</?think>|</?{tag}>).)*</think>\s*"
_ANSWER = r"<answer>(?:(?!</?answer>|</?think>).)*</answer>\s*"
_BOXED = r"(?:\\boxed\{[^{}]*\}\s*)?"

_WAYS: dict[str, tuple[str, re.Pattern[str], re.Pattern[str]]] = {
    "timer1": ("answer", _PAIR, re.compile(_THINK.format(tag="answer") + _ANSWER, re.DOTALL)),
    "timer1_direct": ("answer", _PAIR, re.compile(r"\s*" + _ANSWER, re.DOTALL)),
    "timer1_eval": ("", _PAIR_ANY, re.compile(r".*", re.DOTALL)),
    "tvg_r1": (
        "time",
        _BRACKET,
        re.compile(
            _THINK.format(tag="time") + _BOXED + rf"<time>\s*\[\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\]\s*</time>\s*" + _BOXED, re.DOTALL
        ),
    ),
    "timelens": ("", _PAIR_ANY, re.compile(r".*", re.DOTALL)),
}
"""By name: the tag of the block that is read ("" reads the whole text), a pair of times in it, the form of the whole text."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a text is read.

    Ways:
        timer1: the `<answer>` block, in it "S to E" or "S and E" (Time-R1's trainer); `<think>` and `<answer>`, nothing else.
        timer1_direct: the same block without any thinking.
        timer1_eval: a pair "S to E", "S and E" or "S - E" anywhere (Time-R1's evaluation script); any text fits.
        tvg_r1: `[S, E]` in the `<time>` block; `<think>` and `<time>`, with a `\\boxed{}` before or after.
        timelens: a pair in any of these notations, a bracket included, anywhere; any text fits.

    Attributes:
        way: one of these.
        counts: whether the last block and the last pair in it count, or the first.
        loose: the form asks only that the tags stand somewhere in their order, whatever else the text holds.
    """

    way: str
    counts: Counts = "last"
    loose: bool = False

    def read(self, text: str) -> list[Window]:
        """The segments that a text answers, in seconds; today at most one.

        An end may lie before its start: what the model said is kept, and scores 0.
        """
        tag, pair, _ = _WAYS[self.way]
        last = self.counts == "last"
        body = text[-MAX_CHARACTERS:] if last else text[:MAX_CHARACTERS]
        found = _block(body, tag, last) if tag else body
        pairs = pair.findall(found) if found is not None else []
        if not pairs:
            return []
        start, end = (float(number) for number in pairs[-1 if last else 0])
        return [(start, end)] if math.isfinite(start) and math.isfinite(end) else []

    def fits(self, text: str) -> bool:
        """Whether the whole text has the form, with a span in it where the form has a place for one."""
        tag, _, form = _WAYS[self.way]
        if len(text) > MAX_CHARACTERS:
            return False
        if not self.loose:
            return form.fullmatch(text) is not None
        at = 0
        tags = [f"{slash}{name}>" for name in _tags(self.way, tag) for slash in ("<", "</")]
        for mark in tags:
            at = text.find(mark, at)
            if at < 0:
                return False
            at += len(mark)
        return True


READINGS: dict[str, Reading] = {way: Reading(way) for way in _WAYS}


def _tags(way: str, tag: str) -> tuple[str, ...]:
    if not tag:
        return ()
    return (tag,) if way == "timer1_direct" else ("think", tag)


def _block(text: str, tag: str, last: bool) -> str | None:
    """Inside of the last (or first) `<tag>...</tag>`; None where none is closed."""
    if last:
        end = text.rfind(f"</{tag}>")
        start = text.rfind(f"<{tag}>", 0, end) if end >= 0 else -1
    else:
        start = text.find(f"<{tag}>")
        end = text.find(f"</{tag}>", start) if start >= 0 else -1
    return None if start < 0 or end < 0 else text[start + len(tag) + 2 : end]


_BOXED_LETTER = re.compile(r"\\boxed\{\s*\(?([A-Z])\)?[^{}]{0,200}\}")
_TAGGED = re.compile(r"<answer>((?:(?!</?answer>).){0,2000})</answer>", re.DOTALL)
_ALONE = re.compile(r"[\s(\[\"'*]*([A-Z])(?:[\s)\]\"'*]*|[.):]\s.*|[)\]]\s.*)", re.DOTALL)
_SAID = re.compile(r"\b(?:answer|option|choice)\s{0,3}(?:is|:)?\s{0,3}\(?([A-Z])\b(?!')")


def letter(index: int) -> str:
    """0 -> A, 1 -> B, ..."""
    return chr(ord("A") + index)


def list_options(options: Sequence[str]) -> str:
    """Options as a question lists them: `A. a cat`, a line each."""
    return "\n".join(f"{letter(i)}. {option}" for i, option in enumerate(options))


def boxed_letter(text: str) -> int | None:
    r"""Index of the last `\boxed{A}`-style letter in the text, None where there is none."""
    letters = _BOXED_LETTER.findall(text[-MAX_CHARACTERS:])
    return ord(letters[-1]) - ord("A") if letters else None


def parse_letter(text: str, options: Sequence[str]) -> int | None:
    r"""Index of the option that a text chooses, None where it chooses none of them. Total: any text is read.

    Read in this order: the last `\boxed{B}`; the last `<answer>` block; what follows the thinking. In these a letter
    alone ("B", "(B)", "B. a cup"), then "answer is B", then the text of exactly one option.
    """
    tail = text[-MAX_CHARACTERS:]
    index = boxed_letter(tail)
    if index is not None:
        return index if 0 <= index < len(options) else None
    blocks = _TAGGED.findall(tail)
    body = (blocks[-1] if blocks else tail.rpartition("</think>")[2]).strip()
    match = _ALONE.fullmatch(body)
    said = [match[1]] if match else _SAID.findall(body)
    if said:
        index = ord(said[-1]) - ord("A")
        return index if index < len(options) else None
    lower = body.lower()
    named = [i for i, option in enumerate(options) if option.strip() and option.strip().lower() in lower]
    if len(named) > 1:  # "a cup" stands in "a cup of tea": the longer one was meant
        longest = max(named, key=lambda i: len(options[i].strip()))
        inside = all(options[i].strip().lower() in options[longest].strip().lower() for i in named)
        named = [longest] if inside else named
    return named[0] if len(named) == 1 else None
