"""From predictions to `metrics.json`: every checkpoint on every split, baselines, differences, signatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from timer1lib.data.quality import blind_answers, usable
from timer1lib.evaluation import questions
from timer1lib.evaluation.columns import CHECKPOINTS
from timer1lib.evaluation.metrics import Comparison, as_json, paired, summary
from timer1lib.evaluation.scored import Scored, join
from timer1lib.evaluation.signatures import find_signatures
from timer1lib.files import read_jsonl
from timer1lib.forms import AnswerForm
from timer1lib.progress import Progress
from timer1lib.schema import Prediction, Sample

WHOLE_VIDEO = "whole video"


def baseline_predictions(samples: Sequence[Sample], train: Sequence[Sample] | None = None) -> dict[str, list[Prediction]]:
    """Predictions of each baseline.

    `whole video` answers everything; `window prior` the one relative window that does best on the training split;
    `query words + prior` the window that the query's words and the video's length suggest, fitted there too. A sample
    without a duration or a window gets no answer.

    Args:
        train: training samples. None or none usable: the priors are fitted on the other videos of `samples` (5 folds).
    """
    asked = usable(samples)
    if not asked:
        return {WHOLE_VIDEO: []}
    fitted = train if train and usable(train) else None
    answers = blind_answers(asked, fitted)
    return {
        name: [Prediction(s.id, float(start), float(end), model=name) for s, (start, end) in zip(asked, spans, strict=True)]
        for name, spans in answers.items()
    }


@dataclass(frozen=True, slots=True)
class Evidence:
    """What there is to measure.

    Attributes:
        splits: {split: (grounding or questions, its samples)}.
        answers: predictions by (kind, checkpoint, split); kinds as in `stages.evaluate.Task`.
        train: the training split, for priors and out-of-distribution queries.
        swapped_durations: {split: {sample id: seconds of the video that was put in}}.
        rollouts: the training log of rollouts, for reward without IoU of the last checkpoint.
    """

    splits: Mapping[str, tuple[str, Sequence[Sample]]]
    answers: Mapping[tuple[str, str, str], Sequence[Prediction]]
    train: Sequence[Sample] | None = None
    rollouts: Path | None = None
    swapped_durations: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)


def measure_run(evidence: Evidence, form: AnswerForm, comparison: Comparison, resamples: int, seed: int) -> dict[str, Any]:
    """The contents of `metrics.json`: see docs/evaluation.md. Times and machines play no part in it."""
    result: dict[str, Any] = {
        "comparison": comparison,
        "form": form.name,
        "asked": form.identity(),
        "resamples": resamples,
        "splits": {},
        "baselines": {},
        "paired": {},
        "questions": {},
        "signatures": {},
        "failed": _failed(evidence),
    }
    progress = Progress("scoring", len(evidence.splits))
    reference: dict[str, Scored] = {}
    for split, (kind, samples) in evidence.splits.items():
        if kind == "questions":
            _questions(result, evidence, split, samples, comparison, resamples, seed)
        else:
            asked = [sample for sample in samples if sample.windows]
            scored = {
                name: join(asked, rows, form)
                for name in CHECKPOINTS
                if (rows := evidence.answers.get(("grounding", name, split))) is not None
            }
            _grounding(result, evidence, split, scored, comparison, resamples, seed)
            _signatures(result, evidence, split, scored, reference, seed)
            reference = reference or scored
        progress.update()
    return result


def _grounding(
    result: dict[str, Any],
    evidence: Evidence,
    split: str,
    scored: Mapping[str, Scored],
    comparison: Comparison,
    resamples: int,
    seed: int,
) -> None:
    result["splits"][split] = {name: summary(rows, comparison, resamples=resamples, seed=seed) for name, rows in scored.items()}
    asked = next(iter(scored.values())).samples if scored else ()
    result["baselines"][split] = {
        name: summary(join(asked, rows), comparison, resamples=resamples, seed=seed, groups=())
        for name, rows in baseline_predictions(asked, evidence.train).items()
    }
    result["paired"][split] = {
        f"{first} → {second}": paired(scored[first], scored[second], comparison, resamples=resamples, seed=seed)
        for first, second in pairs(list(scored))
    }


def _signatures(
    result: dict[str, Any],
    evidence: Evidence,
    split: str,
    scored: Mapping[str, Scored],
    reference: Mapping[str, Scored],
    seed: int,
) -> None:
    result["signatures"][split] = {}
    last = list(scored)[-1:] == ["grpo"]
    for name, rows in scored.items():
        swapped, shuffled = (evidence.answers.get((kind, name, split)) for kind in ("swap", "shuffle"))
        rollouts = list(read_jsonl(evidence.rollouts, torn_tail=True)) if last and name == "grpo" and evidence.rollouts else None
        found = find_signatures(
            rows,
            train=evidence.train,
            reference=reference.get(name),
            swapped={row.id: row for row in swapped} if swapped is not None else None,
            swapped_durations=evidence.swapped_durations.get(split),
            shuffled={row.id: row for row in shuffled} if shuffled is not None else None,
            rollouts=rollouts,
            seed=seed,
        )
        result["signatures"][split][name] = {signature.name: signature.to_json() for signature in found}


def _questions(
    result: dict[str, Any],
    evidence: Evidence,
    split: str,
    samples: Sequence[Sample],
    comparison: Comparison,
    resamples: int,
    seed: int,
) -> None:
    given = {
        name: questions.pair(samples, rows)
        for name in CHECKPOINTS
        if (rows := evidence.answers.get(("questions", name, split))) is not None
    }
    result["splits"][split] = {
        name: questions.accuracy(samples, rows, resamples=resamples, seed=seed) | {"letters": questions.by_letter(samples, rows)}
        for name, rows in given.items()
    }
    result["paired"][split] = {
        f"{first} → {second}": {
            "accuracy": as_json(questions.compare(samples, given[first], given[second], resamples=resamples, seed=seed))
        }
        for first, second in pairs(list(given))
    }
    result["questions"][split] = {}
    for name, row in result["splits"][split].items():
        entry: dict[str, Any] = {
            "accuracy": {"value": row["accuracy"], "interval": row["interval"].get("accuracy")},
            "chance": row["chance"],
            "always_one_letter": row["always"],
            "n": row["n"],
        }
        both = evidence.answers.get(("grounded", name, split))
        if both is not None:
            windowed = [sample for sample in samples if sample.windows]
            table = questions.grounded(
                windowed, questions.pair(windowed, both), comparison=comparison, resamples=resamples, seed=seed
            )
            for metric, ends in table["interval"].items():
                entry[f"grounded {metric}"] = {"value": table[metric], "interval": ends}
        result["questions"][split][name] = entry


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Each step of training, and the whole way where it has several."""
    steps = list(pairwise(names))
    return [*steps, (names[0], names[-1])] if len(names) > 2 else steps


def _failed(evidence: Evidence) -> list[dict[str, str]]:
    """Every sample that got no answer because something broke."""
    return [
        {"id": row.id, "split": split, "checkpoint": checkpoint, "asked": kind, "error": row.error}
        for (kind, checkpoint, split), rows in evidence.answers.items()
        for row in rows
        if row.error is not None
    ]
