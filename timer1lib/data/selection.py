"""Which samples of a pool are trained on, by how hard the model finds them; every row's weight and fate is kept.

Difficulty is the model's IoU, 0 to 1: 1 is easy, 0 is hard.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_jsonl, read_jsonl, sha256_sample
from timer1lib.schema import Prediction, Sample, finite
from timer1lib.spans import best_iou
from timer1lib.video.images import content_digest

Floats = NDArray[np.float64]
Row = Mapping[str, Any]
"""{id, iou, ...}; `reward_std` too where `top_variance` is asked for. An `iou` of None was not answered."""


@dataclass(frozen=True, slots=True)
class Selection:
    """`chosen` in the pool's order; `table` has a row for each of the pool: {id, iou, weight, chosen, fate}.

    `weight` is relative (0: could not be drawn); `fate` says in words why a row is in or out.
    """

    rule: str
    wanted: int
    seed: int
    settings: dict[str, float]
    chosen: list[str]
    table: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        eligible = sum(row["weight"] > 0 for row in self.table)
        summary = {"rule": self.rule, "wanted": self.wanted, "seed": self.seed, **self.settings}
        return {**summary, "pool": len(self.table), "eligible": eligible, "chosen": len(self.chosen), "table": self.table}


@dataclass(frozen=True, slots=True)
class _Pool:
    ids: list[str]
    ious: Floats
    """(N,), NaN where there was no answer."""
    spread: Floats
    """(N,), standard deviation of the reward over sampled answers; NaN where unknown."""
    seconds: Floats
    """(N,), length of the video or clip; 0 where unknown."""


Rule = Callable[[_Pool, int, np.random.Generator, Mapping[str, float]], tuple[Floats, list[int]]]


def select(
    rows: Sequence[Row],
    rule: str = "gaussian",
    n: int = 0,
    seed: int = 0,
    *,
    given: Sequence[float] | None = None,
    **bounds: float,
) -> Selection:
    """Choose `n` rows without replacement (0, or more than can be had: all that can be).

    `given` are weights of one's own, one a row: successive draws by them, and `rule` is only their name.

    Rules:
        gaussian: by weight exp(-(IoU - mean)^2 / (2 std^2)), successive draws, only IoU > 0 (Time-R1's filter);
            `mean`, `std`, and `low` for another bound than 0. With `even` as in TimeLens: as many from each band of video
            length (30 s wide up to 240 s, then one), weights over the number of the band's rows in a twentieth of IoU.
        uniform: as many from each of `bins` equal steps of IoU in (`low`, 1], as far as there are.
        band: any with `low` < IoU <= `high`.
        random, all: any, or every one, that was answered.
        top_variance: those whose reward varies most (`reward_std`): a group without spread teaches GRPO nothing.

    Raises:
        Timer1Error: an unknown rule or bound, a bound out of range, a pool without `reward_std`, nothing to choose from.
    """
    if rule not in RULES and given is None:
        raise Timer1Error(f"selection rule {rule!r}: one of {', '.join(RULES)}")
    settings = _settings(rule, bounds) if given is None else {}
    pool = _Pool(
        [str(row["id"]) for row in rows],
        np.array([math.nan if row.get("iou") is None else float(row["iou"]) for row in rows], dtype=np.float64),
        np.array([math.nan if row.get("reward_std") is None else float(row["reward_std"]) for row in rows], dtype=np.float64),
        np.array([float(row.get("duration") or 0.0) for row in rows], dtype=np.float64),
    )
    rng = np.random.default_rng([seed, 6])
    with np.errstate(invalid="ignore"):  # no answer, no difficulty: NaN
        wanted = n if n > 0 else len(pool.ids)
        if given is not None:
            weights = np.where(np.isnan(pool.ious), 0.0, np.asarray(given, dtype=np.float64))
            drawn = _draw(weights, wanted, rng)
        else:
            weights, drawn = RULES[rule](pool, wanted, rng, settings)
    if not drawn:
        raise Timer1Error(f"selection {rule!r} with {settings} leaves no sample of a pool of {len(rows)}")
    taken = set(drawn)
    table = []
    for i, (name, iou, weight) in enumerate(zip(pool.ids, pool.ious.tolist(), weights.tolist(), strict=True)):
        fate = _fate(rule, iou, weight, i in taken, settings)
        table.append({"id": name, "iou": finite(iou), "weight": weight, "chosen": i in taken, "fate": fate})
    return Selection(rule, n, seed, settings, [pool.ids[i] for i in sorted(taken)], table)


def everything(ids: Sequence[str], seed: int = 0) -> Selection:
    """All samples of a pool that nobody was asked about."""
    table = [{"id": name, "iou": None, "weight": 1.0, "chosen": True, "fate": "chosen"} for name in ids]
    return Selection("all", 0, seed, {}, list(ids), table)


_DEFAULTS: dict[str, dict[str, float]] = {
    "gaussian": {"mean": 0.3, "std": 0.2, "low": 0.0, "even": 0.0},  # Time-R1's, arXiv 2503.13377
    "uniform": {"bins": 10, "low": 0.0},
    "band": {"low": 0.0, "high": 0.7},
    "random": {},
    "top_variance": {},
    "all": {},
}


def _settings(rule: str, bounds: Mapping[str, float]) -> dict[str, float]:
    settings = dict(_DEFAULTS[rule])
    if unknown := [name for name in bounds if name not in settings]:
        raise Timer1Error(f"selection {rule!r} has no bound {unknown[0]!r}; it has {', '.join(settings) or 'none'}")
    settings.update(bounds)
    if settings.get("std", 1) <= 0:
        raise Timer1Error(f"selection gaussian: std {settings['std']} must be above 0")
    if settings.get("bins", 1) < 1:
        raise Timer1Error(f"selection uniform: bins {settings['bins']} must be at least 1")
    if "high" in settings and settings["low"] >= settings["high"]:
        raise Timer1Error(f"selection band: low {settings['low']} must be below high {settings['high']}")
    return settings


def _draw(weights: Floats, n: int, rng: np.random.Generator) -> list[int]:
    """Successive draws without replacement, each by weight among what is left.

    Done at once: with E_i exponential, the n smallest E_i / w_i are such a draw (Efraimidis & Spirakis 2006).
    """
    keys = rng.exponential(size=len(weights))
    with np.errstate(divide="ignore"):
        keys = np.where(weights > 0, keys / weights, np.inf)
    order = np.argsort(keys, kind="stable")[: min(n, int((weights > 0).sum()))]
    return [int(i) for i in order]


LENGTH_BANDS = tuple(range(30, 241, 30))
"""Seconds up to which a band of video lengths goes; the last is open (`_build_default_filter_args`, TimeLens' hybrid.py)."""

IOU_STEPS = 20
"""Of which TimeLens takes the density (`_filter_annos` in its grounding.py)."""


def _gaussian(pool: _Pool, n: int, rng: np.random.Generator, s: Mapping[str, float]) -> tuple[Floats, list[int]]:
    # Far tails would be 0 in floating point, and then could not be drawn at all.
    exponent = np.maximum(-((pool.ious - s["mean"]) ** 2) / (2 * s["std"] ** 2), -600.0)
    weights = np.where(pool.ious > s["low"], np.exp(exponent), 0.0)
    if not s["even"]:
        return weights, _draw(weights, n, rng)
    band = np.searchsorted(LENGTH_BANDS, pool.seconds, side="left")
    step = np.clip(np.nan_to_num(pool.ious) * IOU_STEPS, 0, IOU_STEPS - 1).astype(np.int64)
    drawn: list[int] = []
    for number in range(len(LENGTH_BANDS) + 1):
        rows = np.flatnonzero((band == number) & ~np.isnan(pool.ious))
        weights[rows] /= np.maximum(np.bincount(step[rows], minlength=IOU_STEPS), 1)[step[rows]]
        drawn += [int(rows[i]) for i in _draw(weights[rows], n // (len(LENGTH_BANDS) + 1), rng)]
    return weights, drawn


def _band(pool: _Pool, n: int, rng: np.random.Generator, s: Mapping[str, float]) -> tuple[Floats, list[int]]:
    weights = ((pool.ious > s["low"]) & (pool.ious <= s["high"])).astype(np.float64)
    return weights, _draw(weights, n, rng)


def _random(pool: _Pool, n: int, rng: np.random.Generator, s: Mapping[str, float]) -> tuple[Floats, list[int]]:
    weights = (~np.isnan(pool.ious)).astype(np.float64)
    return weights, _draw(weights, n, rng)


def _all(pool: _Pool, n: int, rng: np.random.Generator, s: Mapping[str, float]) -> tuple[Floats, list[int]]:
    weights = (~np.isnan(pool.ious)).astype(np.float64)
    return weights, np.flatnonzero(weights).tolist()


def _uniform(pool: _Pool, n: int, rng: np.random.Generator, s: Mapping[str, float]) -> tuple[Floats, list[int]]:
    """Equal shares of `bins` steps; what a short step cannot give, the others give in equal parts.

    The weight of a row is its chance of being drawn.
    """
    bins, low = int(s["bins"]), s["low"]
    inside = (pool.ious > low) & (pool.ious <= 1)
    step = np.clip(np.ceil((pool.ious - low) / (1 - low) * bins) - 1, 0, bins - 1)
    members = [np.flatnonzero(inside & (step == b)) for b in range(bins)]
    quota = _quotas([len(m) for m in members], n, rng)
    weights = np.zeros(len(pool.ids))
    drawn: list[int] = []
    for rows, count in zip(members, quota, strict=True):
        if len(rows):
            weights[rows] = count / len(rows)
            drawn += [int(i) for i in rng.permutation(rows)[:count]]
    return weights, drawn


def _quotas(sizes: Sequence[int], n: int, rng: np.random.Generator) -> list[int]:
    """Split n over bins as evenly as their sizes allow; a rest smaller than the number of bins goes to random ones."""
    quota = [0] * len(sizes)
    left = min(n, sum(sizes))
    while left:
        open_bins = [i for i, size in enumerate(sizes) if quota[i] < size]
        share = left // len(open_bins)
        if share == 0:
            for i in rng.permutation(open_bins)[:left]:
                quota[int(i)] += 1
            break
        for i in open_bins:
            given = min(share, sizes[i] - quota[i])
            quota[i] += given
            left -= given
    return quota


def _top_variance(pool: _Pool, n: int, rng: np.random.Generator, s: Mapping[str, float]) -> tuple[Floats, list[int]]:
    if np.isnan(pool.spread).all():
        raise Timer1Error("selection 'top_variance' needs sampled answers: set difficulty.rollouts to 2 or more")
    weights = np.nan_to_num(pool.spread, nan=0.0)
    tie = rng.permutation(len(weights))
    order = np.lexsort((tie, -weights))
    return weights, [int(i) for i in order[:n] if weights[i] > 0]


RULES: dict[str, Rule] = {
    "gaussian": _gaussian,
    "uniform": _uniform,
    "band": _band,
    "random": _random,
    "top_variance": _top_variance,
    "all": _all,
}


def _fate(rule: str, iou: float, weight: float, chosen: bool, s: Mapping[str, float]) -> str:
    if chosen:
        return "chosen"
    if math.isnan(iou):
        return "not answered"
    if weight > 0:
        return "not among the largest spreads" if rule == "top_variance" else "not drawn"
    if rule == "top_variance":
        return "all its sampled answers earn the same"
    if rule not in RULES:
        return f"weight 0 by {rule}"
    if "low" in s and iou <= s["low"]:
        return f"IoU not above {s['low']:g}"
    if "high" in s and iou > s["high"]:
        return f"IoU above {s['high']:g}"
    return "not drawn"


log = logging.getLogger(__name__)


def difficulty_rows(samples: Sequence[Sample], predictions: Iterable[Prediction]) -> list[dict[str, Any]]:
    """Rows {id, iou, start, end, completion}; `iou` is None where the video could not be read."""
    by_id = {prediction.id: prediction for prediction in predictions}
    if missing := next((sample for sample in samples if sample.id not in by_id), None):
        raise Timer1Error(f"no answer to sample {missing.id!r}: difficulty needs one for every sample of the pool")
    return [_difficulty_row(sample, by_id[sample.id]) for sample in samples]


def _difficulty_row(sample: Sample, answer: Prediction) -> dict[str, Any]:
    value = None if answer.error else best_iou(answer.span, sample.windows)
    row = {"id": sample.id, "iou": value, "start": answer.start, "end": answer.end, "completion": answer.completion}
    return {**row, "error": answer.error} if answer.error else row


def published_rows(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Difficulty recomputed from the answers that TimeRFT publishes with its rows (`pred`): a Timer1Error without one."""
    rows = []
    for sample in samples:
        pred = sample.extra.get("pred")
        if not isinstance(pred, (list, tuple)) or len(pred) != 2:
            needed = "difficulty_model=published needs TimeRFT's file"
            raise Timer1Error(f"sample {sample.id!r} brings no published answer (pred); {needed}")
        rows.append(_difficulty_row(sample, Prediction(sample.id, float(pred[0]), float(pred[1]))))
    return rows


def spread(rewards: Sequence[float]) -> float:
    """Population standard deviation of one group's rewards: what its advantages are made of."""
    mean = math.fsum(rewards) / len(rewards)
    return math.sqrt(math.fsum((r - mean) ** 2 for r in rewards) / len(rewards))


def answer_key(sample: Sample, video: Path | None, asked: Mapping[str, Any]) -> str:
    """Digest of what an answer depends on: the question, the video by content, the model and the prompt."""
    seen = None
    if video is not None and video.exists():
        seen = sha256_sample(video) if video.is_file() else content_digest(video)
    parts = [sample.query, sample.duration, sample.video_start, sample.video_end, sample.options, seen, dict(asked)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


class AnswerCache:
    """A folder of answers by key, shared by all runs: whole files that are written once, so that no process disturbs another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows: dict[str, list[dict[str, Any]]] = {}
        for path in sorted(folder.glob("*.jsonl")):
            try:
                for row in read_jsonl(path):
                    self._rows[str(row["key"])] = list(row["answers"])
            except (Timer1Error, KeyError, TypeError) as error:
                log.warning("%s: not a file of answers (%s); its samples are asked again", path, error)

    def get(self, key: str, sample: Sample) -> list[Prediction] | None:
        """The answers under a key, as answers to this sample."""
        rows = self._rows.get(key)
        return None if rows is None else [Prediction.from_json({**row, "id": sample.id}, str(self.folder)) for row in rows]

    def add(self, answers: Mapping[str, Sequence[Prediction]]) -> None:
        """Keep new answers; those that failed are not kept, so that they are asked again."""
        fresh = {key: [a.to_json() for a in found] for key, found in answers.items() if not any(a.error for a in found)}
        if fresh:
            name = hashlib.sha256("".join(sorted(fresh)).encode()).hexdigest()[:16]
            atomic_write_jsonl(self.folder / f"{name}.jsonl", ({"key": key, "answers": rows} for key, rows in fresh.items()))
            self._rows.update(fresh)
