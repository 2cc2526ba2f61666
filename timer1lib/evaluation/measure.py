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
from timer1lib.evaluation.scored import Scored, join, pair
from timer1lib.evaluation.signatures import find_signatures
from timer1lib.files import read_jsonl
from timer1lib.forms import AnswerForm
from timer1lib.progress import Progress
from timer1lib.schema import Prediction, Sample

WHOLE_VIDEO = "whole video"


def baseline_predictions(samples: Sequence[Sample], train: Sequence[Sample] | None = None) -> dict[str, list[Prediction]]:
    """Predictions of each baseline.

    `whole video` answers everything; `window prior` the one relative window that does best on the training split;
    `query words + prior` the window that the query's words and the video's length suggest, fitted there too, or on the
    other videos of `samples` (5 folds) where there is no usable `train`. A sample without a duration or a window gets no answer.
    """
    asked = usable(samples)
    if not asked:
        return {WHOLE_VIDEO: []}
    answers = blind_answers(asked, train if train and usable(train) else None)
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

    def by_checkpoint(self, kind: str, split: str) -> dict[str, Sequence[Prediction]]:
        """{checkpoint: predictions} on a split, in the order of training."""
        return {name: self.answers[kind, name, split] for name in CHECKPOINTS if (kind, name, split) in self.answers}


def measure_run(evidence: Evidence, form: AnswerForm, comparison: Comparison, resamples: int, seed: int) -> dict[str, Any]:
    """The contents of `metrics.json`: see docs/evaluation.md. Times and machines play no part in it."""
    result: dict[str, Any] = {
        "comparison": comparison,
        "form": form.name,
        "asked": form.identity(),
        "resamples": resamples,
        **{name: {} for name in ("splits", "baselines", "paired", "questions", "signatures")},
        "failed": _failed(evidence),
    }
    ruler = {"comparison": comparison, "resamples": resamples, "seed": seed}
    progress = Progress("scoring", len(evidence.splits))
    reference: dict[str, Scored] = {}
    for split, (kind, samples) in evidence.splits.items():
        if kind == "questions":
            parts = _questions(evidence, split, samples, ruler)
        else:
            asked = [sample for sample in samples if sample.windows]
            scored = {name: join(asked, rows, form) for name, rows in evidence.by_checkpoint("grounding", split).items()}
            parts = _grounding(evidence, scored, ruler)
            parts["signatures"] = _signatures(evidence, split, scored, reference, seed)
            reference = reference or scored
        for name, part in parts.items():
            result[name][split] = part
        progress.update()
    return result


def _grounding(evidence: Evidence, scored: Mapping[str, Scored], ruler: dict[str, Any]) -> dict[str, Any]:
    asked = next(iter(scored.values())).samples if scored else ()
    baselines = baseline_predictions(asked, evidence.train)
    return {
        "splits": {name: summary(rows, **ruler) for name, rows in scored.items()},
        "baselines": {name: summary(join(asked, rows), **ruler, groups=()) for name, rows in baselines.items()},
        "paired": {f"{one} → {two}": paired(scored[one], scored[two], **ruler) for one, two in pairs(list(scored))},
    }


def _signatures(
    evidence: Evidence, split: str, scored: Mapping[str, Scored], reference: Mapping[str, Scored], seed: int
) -> dict[str, Any]:
    made = {}
    last = list(scored)[-1:] == ["grpo"]
    for name, rows in scored.items():
        swapped, shuffled = (
            {row.id: row for row in evidence.answers.get((kind, name, split), ())} for kind in ("swap", "shuffle")
        )
        found = find_signatures(
            rows,
            train=evidence.train,
            reference=reference.get(name),
            swapped=swapped,
            swapped_durations=evidence.swapped_durations.get(split),
            shuffled=shuffled,
            rollouts=read_jsonl(evidence.rollouts, torn_tail=True) if last and name == "grpo" and evidence.rollouts else None,
            seed=seed,
        )
        made[name] = {signature.name: signature.to_json() for signature in found}
    return made


def _questions(evidence: Evidence, split: str, samples: Sequence[Sample], ruler: dict[str, Any]) -> dict[str, Any]:
    drawn = {name: ruler[name] for name in ("resamples", "seed")}
    given = {name: pair(samples, rows) for name, rows in evidence.by_checkpoint("questions", split).items()}
    scores = {
        name: questions.accuracy(samples, rows, **drawn) | {"letters": questions.by_letter(samples, rows)}
        for name, rows in given.items()
    }
    differences = {
        f"{one} → {two}": {"accuracy": as_json(questions.compare(samples, given[one], given[two], **drawn))}
        for one, two in pairs(list(given))
    }
    entries: dict[str, dict[str, Any]] = {}
    for name, row in scores.items():
        measured = {"value": row["accuracy"], "interval": row["interval"].get("accuracy")}
        entries[name] = {"accuracy": measured, "chance": row["chance"], "always_one_letter": row["always"], "n": row["n"]}
        both = evidence.answers.get(("grounded", name, split))
        if both is not None:
            windowed = [sample for sample in samples if sample.windows]
            table = questions.grounded(windowed, pair(windowed, both), **ruler)
            for metric, ends in table["interval"].items():
                entries[name][f"grounded {metric}"] = {"value": table[metric], "interval": ends}
    return {"splits": scores, "paired": differences, "questions": entries}


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
