"""Colours and patterns of every row of a timeline: readable for the colour-blind, on light and dark pages.

Colours are Okabe and Ito's (jfly.uni-koeln.de/color); every row also has its own pattern and its name, so no
meaning hangs on colour alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Pattern = Literal["solid", "diagonal", "dots", "back", "vertical", "cross"]

TRUTH_COLOUR = "#7a7f87"
THINKING_COLOUR = "#cc79a7"


@dataclass(frozen=True, slots=True)
class Style:
    """Fill of one row's bars."""

    colour: str
    pattern: Pattern


_KNOWN: dict[str, Style] = {
    "base": Style("#e69f00", "diagonal"),
    "sft": Style("#56b4e9", "dots"),
    "grpo": Style("#009e73", "solid"),
}
_SPARE: tuple[Style, ...] = (
    Style("#0072b2", "back"),
    Style("#d55e00", "vertical"),
    Style("#b8a500", "cross"),
    Style("#cc79a7", "diagonal"),
    Style("#8a6fd1", "dots"),
)


def styles(checkpoints: list[str]) -> dict[str, Style]:
    """A style for each checkpoint: base, sft and grpo always have the same one."""
    spare = [name for name in checkpoints if name not in _KNOWN]
    return {name: _KNOWN.get(name) or _SPARE[spare.index(name) % len(_SPARE)] for name in checkpoints}
