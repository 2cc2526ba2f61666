"""From a model's text to segments. One reader; where it looks and how strict it is has a name.

Every function is total: any text, however long or broken, gives a defined result and never an exception.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from timer1lib.schema import Window

Counts = Literal["last", "first"]

MAX_CHARACTERS = 20_000
"""Only the end of a longer text is read (its beginning where the first answer counts), so that scans stay linear."""

_PUBLISHED = r"\d++(?:\.\d*+)?+"
_PUBLISHED_PAIR = rf"(?<!\d)({_PUBLISHED}) (?:to|and) ({_PUBLISHED})"
_BRACKET_NUMBER = r"\d{1,7}(?:\.\d{1,30})?(?!\d)"

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d{1,30})?|\d{1,7}(?:[.,]\d{1,30})?|\.\d{1,30})(?:e[+-]?\d{1,2})?"
_TIME = (
    r"(?:(?:(?P<ch>\d{1,3}):)?(?P<cm>\d{1,3}):(?P<cs>\d{2}(?:[.,]\d{1,30})?)"
    rf"|(?P<h>{_NUMBER})\s?(?:hours?|hrs?|h)(?![a-z])(?:\s{{0,2}}(?P<hm>{_NUMBER})\s?(?:minutes?|mins?|m)(?![a-z]))?(?:\s{{0,2}}(?P<hs>{_NUMBER}))?"
    rf"|(?P<m>{_NUMBER})\s?(?:minutes?|mins?|m)(?![a-z])(?:\s{{0,2}}(?P<ms>{_NUMBER}))?"
    rf"|(?P<s>{_NUMBER}))(?:\s{{0,4}}(?:seconds?|secs?|s))?"
)
_EDGE = r"(?<![\d.,:+\-−–—])"  # a number is never read from its middle on, nor without its sign
_LEFT = re.compile(rf"{_EDGE}{_TIME}\s{{0,4}}\Z", re.IGNORECASE)
_LEFT_IS_NUMBER = re.compile(r"\d(?:\s{0,4}(?:[hms]|hrs?|hours?|mins?|minutes?|secs?|seconds?))?\s{0,4}\Z", re.IGNORECASE)
_RIGHT = re.compile(rf"{_TIME}(?![\d%]|[.,:]\d|\s%|(?<=[hms])[a-z]|\s{{0,4}}(?:ms|msecs?|milliseconds?)\b)", re.IGNORECASE)
_RIGHT_IS_NUMBER = re.compile(r"[+\-−–.]?\d")
_LONGEST_TIME = 60
"""Characters that are looked through for one time, so that a scan stays linear."""

_WORDS = re.compile(r"(?:to|and)\s{1,4}", re.IGNORECASE)
_ANY_SIGN = re.compile(r"(?:to|and)\s{1,4}|(?:[-–—]|,(?!\d)|,(?=\d{1,7}(?:\.\d{0,30})?\s{0,4}\]))\s{0,4}", re.IGNORECASE)

_THINK = r"\s*<think>(?:(?!</?think>|</?{tag}>).)*</think>\s*"
_ANSWER = r"<answer>(?:(?!</?answer>|</?think>).)*</answer>\s*"
_THOUGHT_ANSWER = re.compile(_THINK.format(tag="answer") + _ANSWER, re.DOTALL)
_THEN_ANSWER = re.compile(r"</think>\s*<answer>")
_BOXED = r"(?:\\boxed\{[^{}]*\}\s*)?"
_ANYTHING = re.compile(r".*", re.DOTALL)
_BRACKETS = rf"<time>\s*\[\s*{_BRACKET_NUMBER}\s*,\s*{_BRACKET_NUMBER}\s*\]\s*</time>\s*"


def _matched(pattern: re.Pattern[str]) -> Callable[[str], Iterator[Window | None]]:
    return lambda text: ((float(start), float(end)) for start, end in pattern.findall(text))


def _said(separator: re.Pattern[str]) -> Callable[[str], Iterator[Window | None]]:
    """Pairs as a person reads them; None for one that stands there and cannot be read (a sign, a percentage, 12:75)."""

    def pairs(text: str) -> Iterator[Window | None]:
        free = 0
        for match in separator.finditer(text):
            at, end = match.span()
            if at < free or not _LEFT_IS_NUMBER.search(text, max(free, at - _LONGEST_TIME), at):
                continue
            if not _RIGHT_IS_NUMBER.match(text, end):
                continue
            first = _LEFT.search(text, max(free, at - _LONGEST_TIME), at)
            second = _RIGHT.match(text, end)
            free = second.end() if second else end
            yield _window(first, second) if first and second else None

    return pairs


def _window(first: re.Match[str], second: re.Match[str]) -> Window | None:
    start, end = _seconds(first), _seconds(second)
    if start is None or end is None:
        return None
    if first["s"] and "s" not in first[0].lower():  # "5 to 10 minutes"
        start *= 3600 if second["h"] else 60 if second["m"] else 1
    return start, end


def _seconds(time: re.Match[str]) -> float | None:
    """Seconds of a time; None for minutes or seconds of a clock from 60 on."""
    if time["cm"]:
        hours, minutes, seconds = float(time["ch"] or 0), float(time["cm"]), _number(time["cs"])
        return None if seconds >= 60 or (time["ch"] and minutes >= 60) else 3600 * hours + 60 * minutes + seconds
    if time["s"]:
        return _number(time["s"])
    minutes = _number(time["hm"] or time["m"])
    return 3600 * _number(time["h"]) + 60 * minutes + _number(time["hs"] or time["ms"])


def _number(text: str | None) -> float:
    """`1,234.5` has thousands, `12,5` a decimal comma."""
    if text is None:
        return 0.0
    thousands = re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?(?:e.*)?", text, re.IGNORECASE)
    return float(text.replace(",", "" if thousands else "."))


Pairs = Callable[[str], Iterator[Window | None]]

_WAYS: dict[str, tuple[str, Pairs, re.Pattern[str]]] = {
    "plain": ("answer", _said(_WORDS), _THOUGHT_ANSWER),
    "timer1": ("answer", _matched(re.compile(_PUBLISHED_PAIR, re.IGNORECASE)), _THOUGHT_ANSWER),
    "timer1_direct": ("answer", _said(_WORDS), re.compile(r"\s*" + _ANSWER, re.DOTALL)),
    "timer1_eval": ("", _matched(re.compile(_PUBLISHED_PAIR)), _ANYTHING),
    "tvg_r1": (
        "time",
        _matched(re.compile(rf"\[\s{{0,4}}({_BRACKET_NUMBER})\s{{0,4}},\s{{0,4}}({_BRACKET_NUMBER})\s{{0,4}}\]")),
        re.compile(_THINK.format(tag="time") + _BOXED + _BRACKETS + _BOXED, re.DOTALL),
    ),
    "timelens": ("", _said(_ANY_SIGN), _ANYTHING),
}
"""By name: the tag of the block that is read ("" reads the whole text), the pairs of times in it, the form of the whole text."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a text is read.

    Ways:
        plain: ours. The `<answer>` block, in it "S to E" or "S and E", times as a person writes them: 12.5, 12,5, 1,234.5,
            .5, 1e1, 00:12, 1:02:03, 5 m 3 s, with or without "s". A pair that stands there and is no span (a minus
            sign, a percentage, 12:75) is unparsable, also where an earlier one could be read; `<think>` and `<answer>`,
            nothing else.
        timer1: what Time-R1's trainer reads (`parse_timestamp_output` in its main.py): the last `<answer>` block, in it the
            last two runs of digits with at most one point each and " to " or " and " between them. So 00:12 to 00:17 is
            (12, 0), -5 to 10 is (5, 10), 12,5 to 17,8 is (5, 17), 1,234.5 to 1,240.0 is (234.5, 1), 1e1 to 2e1 is (1, 2),
            .5 to .9 and 5 m 3 s to 5 m 10 s are none. `<think>` and `<answer>`, nothing else.
        timer1_direct: the same block without any thinking, its times read as `plain` does.
        timer1_eval: the same two runs of digits, the last anywhere, lower case (`extract_answer` in Time-R1's evaluate.py);
            any text fits.
        tvg_r1: `[S, E]` in the `<time>` block, plain numbers alone; `<think>` and `<time>`, with a `\\boxed{}` before or
            after. (TVG-R1's tvg.py reads the block as JSON, so -5 and 1e1 too.)
        timelens: ours. A pair in any of these notations, "S - E" and a bracket included, anywhere; any text fits.

    Attributes:
        way: one of these.
        counts: whether the last block and the last pair in it count, or the first.
        loose: the form is the released code's own check. timer1 (`format_reward` in Time-R1's main.py): thinking first, the
            answer right after it and last, whatever stands inside them, further tags too. tvg_r1 (`tvg_format_reward` in
            TVG-R1's tvgonly.py): thinking first, then a `<time>` block anywhere, whatever stands between and after them.
    """

    way: str
    counts: Counts = "last"
    loose: bool = False

    def read(self, text: str) -> list[Window]:
        """The segments that a text answers, in seconds; today at most one.

        An end may lie before its start: what the model said is kept, and scores 0.
        """
        tag, pairs, _ = _WAYS[self.way]
        which = -1 if self.counts == "last" else 0
        body = text[-MAX_CHARACTERS:] if which else text[:MAX_CHARACTERS]
        blocks = _blocks(body, tag) if tag else [body]
        found = list(pairs(blocks[which])) if blocks else []
        window = found[which] if found else None
        return [window] if window is not None and all(map(math.isfinite, window)) else []

    def fits(self, text: str) -> bool:
        """Whether the whole text has the form, with a span in it where the form has a place for one."""
        tag, _, form = _WAYS[self.way]
        if len(text) > MAX_CHARACTERS:
            return False
        if not self.loose:
            return form.fullmatch(text) is not None
        if tag == "answer":
            body, first = text.strip(), "<answer>" if self.way == "timer1_direct" else "<think>"
            inside = len(first), len(body) - len("</answer>")
            framed = body.startswith(first) and body.endswith("</answer>") and inside[0] <= inside[1]
            return framed and (first == "<answer>" or _THEN_ANSWER.search(body, *inside) is not None)
        at = 0
        for mark in ("<think>", "</think>", "<time>", "</time>") if tag else ():
            found = text.find(mark, at)
            if found < 0 or (at == 0 and found > 0):
                return False
            at = found + len(mark)
        return True


READINGS: dict[str, Reading] = {way: Reading(way) for way in _WAYS}


def _blocks(text: str, tag: str) -> list[str]:
    """Inside of every `<tag>...</tag>`, each from the first mark after the block before it."""
    found = []
    start, end = text.find(f"<{tag}>"), 0
    while start >= 0 and (end := text.find(f"</{tag}>", start)) >= 0:
        found.append(text[start + len(tag) + 2 : end])
        start = text.find(f"<{tag}>", end)
    return found


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
