"""Ground truth that is broken as published: counted as it stands unless a person asks for repairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from timer1lib.errors import Timer1Error
from timer1lib.schema import Sample, Window

RepairPolicy = Literal["keep", "clip", "swap", "drop", "repair"]


@dataclass(slots=True)
class Repaired:
    """`samples` with None where a sample was left out; what happened, by code, as sample ids."""

    samples: list[Sample | None]
    changed: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)


def faults(window: Window, duration: float | None) -> list[str]:
    """Codes of what is wrong with a window: not_finite, reversed, empty_window, negative, past_end."""
    start, end = window
    if not (math.isfinite(start) and math.isfinite(end)):
        return ["not_finite"]
    found = ["reversed"] if end < start else ["empty_window"] if end == start else []
    if min(start, end) < 0:
        found.append("negative")
    if duration is not None and max(start, end) > duration:
        found.append("past_end")
    return found


def repair(samples: Sequence[Sample], policy: RepairPolicy = "keep") -> Repaired:
    """Apply one policy to every window.

    Policies:
        keep: nothing; a window that no answer can meet scores 0, as published tables count it.
        clip: cut to the video (past_end, negative).
        swap: exchange the ends (reversed).
        drop: leave out samples whose window has any fault.
        repair: swap, clip, then leave out what is still broken (empty, not finite, outside the video).

    Raises:
        Timer1Error: no such policy.
    """
    if policy not in get_args(RepairPolicy):
        raise Timer1Error(f"repairs {policy!r}: one of {', '.join(get_args(RepairPolicy))}")
    result = Repaired([])
    for sample in samples:
        result.samples.append(sample if policy == "keep" or not sample.windows else _repair(sample, policy, result))
    return result


def _repair(sample: Sample, policy: RepairPolicy, result: Repaired) -> Sample | None:
    windows: list[Window] = []
    for window in sample.windows:
        found = faults(window, sample.duration)
        if policy in ("swap", "repair") and "reversed" in found:
            window = (window[1], window[0])
            _note(result.changed, "reversed", sample)
        if policy in ("clip", "repair"):
            for code in {"past_end", "negative"} & set(found):
                _note(result.changed, code, sample)
            window = _clip(window, sample.duration) if {"past_end", "negative"} & set(found) else window
        if policy in ("drop", "repair") and (still := faults(window, sample.duration)):
            for code in still:
                _note(result.left_out, code, sample)
            continue
        windows.append(window)
    if not windows:
        for ids in result.changed.values():
            ids[:] = [name for name in ids if name != sample.id]
        result.changed = {code: ids for code, ids in result.changed.items() if ids}
        return None
    return replace(sample, windows=windows)


def _clip(window: Window, duration: float | None) -> Window:
    limit = math.inf if duration is None else duration
    return min(max(window[0], 0.0), limit), min(max(window[1], 0.0), limit)


def _note(table: dict[str, list[str]], code: str, sample: Sample) -> None:
    ids = table.setdefault(code, [])
    if not ids or ids[-1] != sample.id:
        ids.append(sample.id)
