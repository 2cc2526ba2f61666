"""Typed parameters: the base of every section (scalars only, nothing unknown), and what of them can change a result."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from pydantic import BaseModel, ConfigDict

from timer1lib.errors import Timer1Error, shown

CANNOT_CHANGE_RESULTS = frozenset({"cache_dir", "cache_gb", "workers", "processes", "parallel", "report_to"})
"""Parameters that say where and how fast something is worked out, never what: no key and no ledger holds them.

`processes` and `parallel` say how many ranks share a step, and how weights lie on them. Rollouts are seeded by their place
in the whole step, and losses are divided by the whole step's counts, so that N ranks compute what one does; answers are
the same to the byte. A training's gradient is summed in another order, though: weights agree to float tolerance (1e-6
after twenty steps), and where that turns over a sampled token, two trainings go on apart as two seeds would. A finished
stage is not run again for that. docs/scale.md has what was measured.

`device` and `threads` are not among them: another device, or another number of CPU threads, adds numbers up in another
order and so changes their last bits, after which a sampled token and a whole training may differ. They count as they
are written, wherever a model computes (02 to 05, and the answers that 03 keeps for all runs). `auto` stays `auto`, so
that a run that was moved to another machine is found unchanged there. 01, 06 and 07 compute with no model and read
neither.
"""

_SIGHT = ("sampling", "fps", "frames", "min_frame_pixels", "total_pixels", "time_scale", "clock_rule", "timestamps")
_RANKS = ("processes", "parallel")
_HOW = ("dtype", "attention", "asking", "device", "threads", "cache_dir", "cache_gb", "workers", *_RANKS)
_MODEL = ("model", "revision", "form", *_SIGHT, *_HOW)

SHARED_READ: dict[str, frozenset[str]] = {
    "curate": frozenset({"seed", "model", "revision", "form", *_SIGHT, "cache_dir", "cache_gb", "workers"}),
    "sft": frozenset({"seed", *_MODEL, "report_to"}),
    "difficulty": frozenset({"seed", *_MODEL}),
    "grpo": frozenset({"seed", *_MODEL, "report_to"}),
    "evaluate": frozenset({"seed", *_MODEL}),
    "inspect": frozenset({"form", "cache_dir"}),
    "compare": frozenset({"seed"}),
}
"""The shared parameters that each stage reads: all that its notebook is given, shows, and has in its key.

A stage cannot read another one (`stages.Stage.shared` has no such attribute), so that this table stays true.
"""


class Section(BaseModel):
    """One section of a params file. Lists are written as comma-separated text, so that papermill can inject them."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def split_list(text: str) -> list[str]:
    """`"a, b"` -> `["a", "b"]`; empty text is an empty list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_bands(text: str) -> list[tuple[float, float]]:
    """`"0.5:1, 0.2:0.7"` -> `[(0.5, 1.0), (0.2, 0.7)]`; anything else is a Timer1Error."""
    bands = []
    for part in map(str.strip, text.split(",")):
        try:
            low, high = (float(value) for value in part.split(":"))
        except ValueError:
            raise Timer1Error(f"difficulty bands {text!r}: {part!r} is not low:high") from None
        if not -1 <= low < high <= 1:
            raise Timer1Error(f"difficulty bands {text!r}: {part!r} is no range of IoU (-1 <= low < high <= 1)")
        bands.append((low, high))
    return bands


def parse_shard(text: str) -> tuple[int, int]:
    """`"2/4"` -> (2, 4): the second of four, counted from 1; anything else is a Timer1Error."""
    match = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text)
    if match and 1 <= int(match[1]) <= int(match[2]):
        return int(match[1]), int(match[2])
    raise Timer1Error(f"shard {shown(text)}: write it as k/n with 1 <= k <= n, such as 1/4")


def result_parameters(section: Section, *, but: Collection[str] = ()) -> dict[str, Any]:
    """A section's values without those that cannot change a result, and without those in `but`, known another way."""
    return section.model_dump(exclude={*CANNOT_CHANGE_RESULTS, *but})
