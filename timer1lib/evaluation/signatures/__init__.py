"""All failure signatures of one checkpoint on one split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from timer1lib.evaluation.scored import Scored
from timer1lib.evaluation.signatures.exploitation import (
    form_without_content,
    one_answer,
    parse_failures,
    prior_following,
    reward_without_iou,
)
from timer1lib.evaluation.signatures.misplaced import out_of_distribution, scale_bias, semantic_misalignment, temporal_drift
from timer1lib.evaluation.signatures.signature import Signature
from timer1lib.schema import Prediction, Sample


def find_signatures(
    scored: Scored,
    *,
    train: Sequence[Sample] | None = None,
    reference: Scored | None = None,
    swapped: Mapping[str, Prediction] | None = None,
    swapped_durations: Mapping[str, float | None] | None = None,
    shuffled: Mapping[str, Prediction] | None = None,
    rollouts: Iterable[Mapping[str, Any]] | None = None,
    seed: int = 0,
) -> list[Signature]:
    """Measure every signature; one that lacks its material says so in `note` and is not flagged.

    Args:
        train: training samples, for out-of-distribution queries.
        reference: answers of the same checkpoint on a split like the training set, to compare those queries with.
        swapped, shuffled: answers by id to changed videos; `swapped_durations` are those videos' seconds by sample id.
        rollouts: rows of the training log, for reward without IoU; None leaves that signature out.
    """
    alike = one_answer(scored, seed)
    found = [
        temporal_drift(scored, seed, alike.flagged),
        scale_bias(scored, seed, alike.flagged),
        semantic_misalignment(scored, seed),
        prior_following(scored, swapped, "swap", seed, swapped_durations),
        prior_following(scored, shuffled, "shuffle", seed),
        form_without_content(scored, seed),
        alike,
        parse_failures(scored, seed),
        out_of_distribution(scored, train, seed, reference),
    ]
    if rollouts is not None:
        found.append(reward_without_iou(rollouts, seed))
    return found
