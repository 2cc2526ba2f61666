"""Which samples an epoch trains on: TimeRFT's multi-epoch and sample filtering, curricula, difficulty bands.

Pure: the outer loop trains, asks the model, and calls these in between. Difficulty is IoU, 0 to 1 (1 is easy).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from timer1lib.errors import Timer1Error
from timer1lib.params import parse_bands

LOW, HIGH = 0.0, 0.7
"""TimeRFT keeps 0 < IoU <= 0.7 after each epoch (Time-R1, arXiv 2503.13377)."""

SCHEDULES = ("multi_epoch", "sample_filtering", "easy_to_hard", "hard_to_easy", "staged")

KEPT, SOLVED, HOPELESS, SILENT, RULED_OUT = "kept", "too easy", "too hard", "no answer", "by your rule"


@dataclass(frozen=True, slots=True)
class Epoch:
    """`ids` in the order in which they are trained; an id may stand several times."""

    ids: list[str]
    note: str

    def __post_init__(self) -> None:
        if not self.ids:
            raise Timer1Error(f"this epoch has no sample to train on ({self.note}); widen the bounds or stop earlier")


def plan_epoch(
    schedule: str,
    epoch: int,
    epochs: int,
    pool: Sequence[str],
    difficulty: Mapping[str, float | None],
    *,
    seed: int = 0,
    low: float = LOW,
    high: float = HIGH,
    bands: str = "0.5:1, 0.2:0.7, 0:0.5",
    keep: Callable[[str, float], bool] | None = None,
) -> Epoch:
    """What epoch `epoch` (from 0) of `epochs` trains on.

    Schedules:
        multi_epoch: the whole pool, every epoch.
        sample_filtering: the whole pool in epoch 0; afterwards what of the pool has low < IoU <= high. Call it with the
            epoch before's ids as `pool` and the IoU that the model has now: a sample that went does not come back.
        easy_to_hard: the pool, ordered by IoU, is cut into `epochs` slices of the same size, easy ones first; an epoch
            trains its slice `epochs` times, so that all schedules cost the same.
        hard_to_easy: the same from the other end.
        staged: epoch k trains on the k-th of `bands` (low:high, comma-separated; low < IoU <= high), the last one
            standing for all epochs after it.

    Args:
        difficulty: IoU by id; None or absent where the model did not answer, which counts as 0.
        keep: sample filtering's rule of one's own (id, IoU), in place of the bounds.

    Raises:
        Timer1Error: an unknown schedule, an epoch out of range, a band that is none, an epoch without samples.
    """
    if schedule not in SCHEDULES:
        raise Timer1Error(f"schedule {schedule!r}: one of {', '.join(SCHEDULES)}")
    if not 0 <= epoch < epochs:
        raise Timer1Error(f"epoch {epoch} of {epochs}: epochs count from 0")
    rng = np.random.default_rng([seed, 4, epoch])
    if schedule == "multi_epoch" or (schedule == "sample_filtering" and epoch == 0):
        return _shuffled(list(pool), rng, f"all {len(pool)} samples")
    if schedule in ("sample_filtering", "staged"):
        if schedule == "staged":
            low, high = parse_bands(bands)[: epoch + 1][-1]
        rule = keep if schedule == "sample_filtering" else None
        kept = [row["id"] for row in filter_epoch(pool, difficulty, low, high, rule) if row["kept"]]
        which = "by your rule" if rule else f"with {low:g} < IoU <= {high:g}"
        return _shuffled(kept, rng, f"{len(kept)} of {len(pool)} samples {which}")
    sign = -1 if schedule == "easy_to_hard" else 1
    ranked = sorted(pool, key=lambda name: sign * (difficulty.get(name) or 0.0))
    part = slice_of(ranked, epoch, epochs)
    ids = [part[int(i)] for _ in range(epochs) for i in rng.permutation(len(part))]
    name = "easiest" if schedule == "easy_to_hard" else "hardest"
    return Epoch(ids, f"slice {epoch + 1} of {epochs}, {name} first: {len(part)} samples, {epochs} times")


def filter_epoch(
    ids: Sequence[str],
    ious: Mapping[str, float | None],
    low: float = LOW,
    high: float = HIGH,
    keep: Callable[[str, float], bool] | None = None,
) -> list[dict[str, Any]]:
    """One row a sample, {id, iou, kept, reason}: kept where low < IoU <= high, else `too easy`, `too hard` or `no answer`.

    IoU 0 goes under TimeRFT's bounds too: a group in which nothing overlaps has no advantage to learn from. A rule of
    one's own, `keep` (id, IoU), stands in the bounds' place; what was not answered goes under any.
    """
    if low >= high:
        raise Timer1Error(f"sample filtering: low {low:g} must be below high {high:g}")
    rows = []
    for name in ids:
        iou = ious.get(name)
        if iou is None:
            reason = SILENT
        elif keep is not None:
            reason = KEPT if keep(name, iou) else RULED_OUT
        else:
            reason = HOPELESS if iou <= low else SOLVED if iou > high else KEPT
        rows.append({"id": name, "iou": iou, "kept": reason == KEPT, "reason": reason})
    return rows


def slice_of(ids: Sequence[str], k: int, count: int) -> list[str]:
    """The k-th of `count` consecutive slices, whose sizes differ by one at most."""
    return list(ids[k * len(ids) // count : (k + 1) * len(ids) // count])


def _shuffled(ids: list[str], rng: np.random.Generator, note: str) -> Epoch:
    return Epoch([ids[int(i)] for i in rng.permutation(len(ids))], note)
