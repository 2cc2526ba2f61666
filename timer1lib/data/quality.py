"""What a data set covers, and what in it can be guessed without looking: numbers for plots and for a decision."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from timer1lib.data.bias import blind_report, usable
from timer1lib.schema import Sample

BINS = 10
_WORD = re.compile(r"[^\W_]+")


def quality_report(
    samples: Sequence[Sample], train: Sequence[Sample] | None = None, *, limit: float = 25.0, seed: int = 0
) -> dict[str, Any]:
    """Coverage and bias of one split.

    Args:
        train: the training split, from which blind answers are fitted and against which words are called new.
        limit: percent R1@0.5 that a blind answer must not surely pass.

    Returns:
        n, videos, questions; `seconds` and `share` (numbers for histograms); `cells` (BINS x BINS counts of window centre
        by window length), `cells_filled` (share), `evenness` (entropy of the cells over its maximum, 0 to 1); `types`,
        `sources` (counts); `words`; `bias` (see `bias.blind_report`); `warnings` (sentences, shown in red).
    """
    grounded = usable(samples)
    report: dict[str, Any] = {
        "n": len(samples),
        "videos": len({s.video for s in samples}),
        "questions": sum(s.is_question for s in samples),
        "without_duration": sum(s.duration is None for s in samples),
        "types": dict(Counter(s.type or "(none)" for s in samples).most_common()),
        "sources": dict(Counter(s.source or "(none)" for s in samples).most_common()),
        "seconds": {
            "video": [_round(s.duration) for s in grounded],
            "window": [_round(w[1] - w[0]) for s in grounded for w in s.windows],
        },
        "words": words(samples, train),
        **_cells(grounded),
    }
    report["bias"] = blind_report(samples, train, limit=limit, seed=seed)
    report["warnings"] = _warnings(report)
    return report


def _round(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 3)


def _cells(samples: Sequence[Sample]) -> dict[str, Any]:
    """How window centres and lengths, as shares of the video, fill a square."""
    cells = [[0] * BINS for _ in range(BINS)]
    centres, lengths = [], []
    for sample in samples:
        for start, end in sample.windows:
            duration = sample.duration or 1.0
            first, last = max(0.0, start) / duration, min(end, duration) / duration
            centre, length = (first + last) / 2, last - first
            if math.isfinite(centre) and length >= 0:
                centres.append(round(centre, 4))
                lengths.append(round(length, 4))
                cells[_bin(length)][_bin(centre)] += 1
    flat = [n for row in cells for n in row if n]
    total = sum(flat)
    entropy = -sum(n / total * math.log(n / total) for n in flat) if total else 0.0
    # A window of length l has its centre in [l/2, 1 - l/2]: cells outside that triangle cannot be filled.
    possible = sum(1 for i in range(BINS) for j in range(BINS) if i < 2 * (j + 1) and 2 * j <= 2 * BINS - i)
    return {
        "share": {"centre": centres, "length": lengths},
        "cells": cells,
        "cells_filled": min(1.0, len(flat) / possible),
        "evenness": min(1.0, entropy / math.log(possible)),
    }


def _bin(value: float) -> int:
    return min(BINS - 1, max(0, int(value * BINS + 1e-9)))


def words(samples: Sequence[Sample], train: Sequence[Sample] | None = None, top: int = 30) -> dict[str, Any]:
    """Vocabulary of the queries: size, length of a query in words, the most frequent, and what training never showed."""
    said = [_WORD.findall(sample.query.lower()) for sample in samples]
    counts = Counter(word for query in said for word in query)
    report: dict[str, Any] = {
        "vocabulary": len(counts),
        "words": sum(counts.values()),
        "words_a_query": [len(query) for query in said],
        "once": sum(n == 1 for n in counts.values()),
        "top": dict(counts.most_common(top)),
    }
    if train is not None:
        known = {word for sample in train for word in _WORD.findall(sample.query.lower())}
        report["new_words"] = sum(word not in known for word in counts)
        report["queries_with_new_words"] = sum(any(word not in known for word in query) for query in said)
        asked = {" ".join(_WORD.findall(sample.query.lower())) for sample in train}
        report["queries_seen_in_training"] = sum(" ".join(query) in asked for query in said)
    return report


def _warnings(report: dict[str, Any]) -> list[str]:
    warnings = []
    bias = report["bias"]
    if bias["strong"]:
        name, best = max(bias["answers"].items(), key=lambda item: item[1]["R1@0.5"])
        low, high = best["interval"]["R1@0.5"]
        warnings.append(
            f"A model that never sees the video ({name}) reaches R1@0.5 = {best['R1@0.5']:.1f} % "
            f"[{low:.1f}, {high:.1f}] and mIoU {best['mIoU']:.1f}: results on this split say little about looking."
        )
    if report["n"] and report["cells_filled"] < 0.3:
        warnings.append(f"Windows fill only {100 * report['cells_filled']:.0f} % of the possible places and lengths.")
    if 0 < report["videos"] < 30:
        warnings.append(f"Only {report['videos']} videos: intervals over videos will be wide.")
    return warnings
