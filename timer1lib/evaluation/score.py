"""Scoring a predictions file against an annotation file, as `timer1 score` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timer1lib import forms
from timer1lib.data.readers import read_annotations
from timer1lib.errors import Timer1Error
from timer1lib.evaluation import qvhighlights
from timer1lib.evaluation.answers import EXAMPLES, Answer, Matched, match, read_answers
from timer1lib.evaluation.intervals import RESAMPLES
from timer1lib.evaluation.metrics import Comparison, summary
from timer1lib.evaluation.repairs import Repaired, RepairPolicy, repair
from timer1lib.evaluation.scored import score_pairs
from timer1lib.schema import Prediction, Sample


def score_files(
    predictions: str | Path,
    annotations: str | Path,
    format: str | None = None,
    form: str | None = None,
    policy: RepairPolicy = "keep",
    comparison: Comparison = ">=",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Score a predictions JSONL against an annotation file of any format that the readers know.

    Args:
        predictions: see `answers.read_answers`.
        annotations: read as published: a broken window stays in and counts as wrong where no answer can meet it.
        format: the annotations' format; None recognises it from the file.
        form: how completions are read, a name of `forms.FORMS` or a file; None is `timer1`, and only where a row has no
            start and end.
        policy: what to do with broken windows (`repairs.repair`).
        comparison: whether R1@m counts IoU >= m or IoU > m.
        resamples: of the bootstrap over videos; 0 leaves the intervals out.

    Returns:
        n, answered, unparsable, missing, R1@m and mIoU in percent and the rest of `metrics.summary`; `rows`,
        `unreadable`, `repaired`, `left_out`, `duplicates`, `unknown`; mAP, mAP@0.5, mAP@0.75 and `by_length` where
        predictions are ranked windows.

    Raises:
        Timer1Error: an unreadable file; no prediction that fits the annotations; an unknown form or policy.
    """
    read_as = forms.load(form or "timer1")
    answers = read_answers(predictions, read_as if form else None)
    read = read_annotations(annotations, format)
    samples = list(read.samples)
    unreadable = [str(problem) for problem in read.problems if problem.severity == "error" and problem.repair == "drop"]
    matched = match(samples, answers)
    if answers and len(matched.unknown) == len(answers):
        raise Timer1Error(
            f"{predictions}: none of its {len(answers)} predictions is about a sample of {annotations}; "
            f"the first is {_name(answers[0])}, the annotations' first sample is {_sample_name(samples)}"
        )
    repaired = repair(samples, policy)
    keep = [i for i, sample in enumerate(repaired.samples) if sample is not None and sample.windows]
    asked = [sample for sample in (repaired.samples[i] for i in keep) if sample is not None]
    rows = [matched.rows[i] for i in keep]
    if not asked:
        raise Timer1Error(f"{annotations}: no sample with a window to score against")
    scored = score_pairs(asked, rows, read_as)
    result: dict[str, Any] = summary(scored, comparison, resamples=resamples, seed=seed)
    if any(row is not None and row.windows for row in rows):
        result.update(qvhighlights.evaluate(asked, rows, comparison))
    result["form"] = read_as.name
    result["repair_policy"] = policy
    result["format"] = read.format
    result["rows"] = {"annotations": read.rows_in, "asked": len(asked), "predictions": len(answers)}
    result["unreadable"] = {"n": read.dropped, "examples": unreadable[:EXAMPLES]}
    result.update(_fate(samples, matched, repaired))
    return result


def _fate(samples: Sequence[Sample], matched: Matched, repaired: Repaired) -> dict[str, Any]:
    """What did not fit, was mended or was left out: counts, each with a few examples."""
    without = [sample.id for sample in samples if not sample.windows]
    left_out = {**repaired.left_out, **({"no_window": without} if without else {})}
    dropped = {s.id for s, kept in zip(samples, repaired.samples, strict=True) if kept is None or not s.windows}
    return {
        "repaired": _listed(repaired.changed),
        "left_out": {"n": len(dropped), **_listed(left_out)},
        "duplicates": _few(matched.duplicates),
        "unknown": _few(matched.unknown),
        "shared_answers": matched.shared,
    }


def _listed(table: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    return {code: _few(ids) for code, ids in table.items()}


def _few(names: Sequence[str]) -> dict[str, Any]:
    return {"n": len(names), "examples": list(names[:EXAMPLES])}


def _name(answer: Answer) -> str:
    return repr(answer.prediction.id) if answer.prediction.id else f"video {answer.video!r}, query {answer.query!r}"


def _sample_name(samples: Sequence[Sample]) -> str:
    return f"id {samples[0].id!r}, video {samples[0].video!r}" if samples else "none"


def failures(rows: Sequence[Prediction | None]) -> list[dict[str, str]]:
    """Samples that got no answer because something broke: {id, error} of each."""
    return [{"id": row.id, "error": row.error} for row in rows if row is not None and row.error is not None]
