"""The letters of multiple-choice questions: which option a text chooses."""

from __future__ import annotations

import re
from collections.abc import Sequence

from timer1lib.forms.reading import MAX_CHARACTERS

_BOXED = re.compile(r"\\boxed\{\s*\(?([A-Z])\)?[^{}]{0,200}\}")
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
    letters = _BOXED.findall(text[-MAX_CHARACTERS:])
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
