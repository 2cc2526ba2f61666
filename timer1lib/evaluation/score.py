"""Scoring a predictions file against an annotation file, as `timer1 score` does: repairs, numbers, and the text of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from timer1lib import forms
from timer1lib.data.checks import clip, faults
from timer1lib.data.readers import read_annotations
from timer1lib.errors import Timer1Error
from timer1lib.evaluation import qvhighlights
from timer1lib.evaluation.answers import EXAMPLES, Matched, match, read_answers
from timer1lib.evaluation.columns import shown
from timer1lib.evaluation.intervals import RESAMPLES
from timer1lib.evaluation.metrics import GROUPINGS, Comparison, summary
from timer1lib.evaluation.scored import score_pairs
from timer1lib.evaluation.tables import present, score_cell, table_of, text_table
from timer1lib.schema import Sample, Window

Treatment = Literal["keep", "clip", "swap", "drop", "repair"]


@dataclass(slots=True)
class Repaired:
    """`samples` with None where a sample was left out; what happened, by code, as sample ids."""

    samples: list[Sample | None]
    changed: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)


def repair(samples: Sequence[Sample], treatment: Treatment = "keep") -> Repaired:
    """Treat every window in one way.

    Treatments (a Timer1Error for any other):
        keep: nothing; a window that no answer can meet scores 0, as published tables count it.
        clip: cut to the video (past_end, negative).
        swap: exchange the ends (reversed).
        drop: leave out samples whose window has any fault.
        repair: swap, clip, then leave out what is still broken (empty, not finite, outside the video).
    """
    if treatment not in get_args(Treatment):
        raise Timer1Error(f"repairs {treatment!r}: one of {', '.join(get_args(Treatment))}")
    result = Repaired([])
    result.samples = [s if treatment == "keep" or not s.windows else _repair(s, treatment, result) for s in samples]
    return result


def _repair(sample: Sample, treatment: Treatment, result: Repaired) -> Sample | None:
    windows: list[Window] = []
    for window in sample.windows:
        found = faults(window, sample.duration)
        if treatment in ("swap", "repair") and "reversed" in found:
            window = (window[1], window[0])
            _note(result.changed, "reversed", sample)
        if treatment in ("clip", "repair"):
            for code in {"past_end", "negative"} & set(found):
                _note(result.changed, code, sample)
            window = clip(window, sample.duration) if {"past_end", "negative"} & set(found) else window
        if treatment in ("drop", "repair") and (still := faults(window, sample.duration)):
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


def _note(table: dict[str, list[str]], code: str, sample: Sample) -> None:
    ids = table.setdefault(code, [])
    if not ids or ids[-1] != sample.id:
        ids.append(sample.id)


def score_files(
    predictions: str | Path,
    annotations: str | Path,
    format: str | None = None,
    form: str | None = None,
    treatment: Treatment = "keep",
    comparison: Comparison = ">=",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Score a predictions JSONL (`answers.read_answers`) against an annotation file of any format that the readers know.

    Args:
        annotations: read as published: a broken window stays in and counts as wrong where no answer can meet it.
        format: of the annotations; None recognises it from the file.
        form: how completions are read, a name of `forms.FORMS` or a file; None is `timer1`, where a row has no span alone.
        treatment: of broken windows (`repair`).
        resamples: of the bootstrap over videos; 0 leaves the intervals out.

    Returns:
        n, answered, unparsable, missing, R1@m and mIoU in percent and the rest of `metrics.summary`; `rows`,
        `unreadable`, `repaired`, `left_out`, `duplicates`, `unknown`; mAP, mAP@0.5, mAP@0.75 and `by_length` where
        predictions are ranked windows.

    Raises:
        Timer1Error: an unreadable file; no prediction that fits the annotations; an unknown form or treatment.
    """
    read_as = forms.load(form or "timer1")
    answers = read_answers(predictions, read_as if form else None)
    read = read_annotations(annotations, format)
    samples = list(read.samples)
    unreadable = [str(problem) for problem in read.problems if problem.severity == "error" and problem.repair == "drop"]
    matched = match(samples, answers)
    if len(matched.unknown) == len(answers):
        first = answers[0]
        named = repr(first.prediction.id) if first.prediction.id else f"video {first.video!r}, query {first.query!r}"
        sample = f"id {samples[0].id!r}, video {samples[0].video!r}" if samples else "none"
        raise Timer1Error(
            f"{predictions}: none of its {len(answers)} predictions is about a sample of {annotations}; "
            f"the first is {named}, the annotations' first sample is {sample}"
        )
    repaired = repair(samples, treatment)
    keep = [i for i, sample in enumerate(repaired.samples) if sample is not None and sample.windows]
    asked = [sample for sample in (repaired.samples[i] for i in keep) if sample is not None]
    rows = [matched.rows[i] for i in keep]
    if not asked:
        raise Timer1Error(f"{annotations}: no sample with a window to score against")
    scored = score_pairs(asked, rows, read_as)
    result: dict[str, Any] = summary(scored, comparison, resamples=resamples, seed=seed)
    if any(row is not None and row.windows for row in rows):
        result.update(qvhighlights.evaluate(asked, rows, comparison))
    result |= {"form": read_as.name, "treatment": treatment, "format": read.format}
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
        "repaired": {code: _few(ids) for code, ids in repaired.changed.items()},
        "left_out": {"n": len(dropped), **{code: _few(ids) for code, ids in left_out.items()}},
        "duplicates": _few(matched.duplicates),
        "unknown": _few(matched.unknown),
        "shared_answers": matched.shared,
    }


def _few(names: Sequence[str]) -> dict[str, Any]:
    return {"n": len(names), "examples": list(names[:EXAMPLES])}


_BREAKDOWNS = {f"by_{grouping}": grouping.replace("_", " ") for grouping in GROUPINGS}
_BREAKDOWNS |= {"by_type": "query type", "by_length": "window length (QVHighlights)"}


def score_text(value: Mapping[str, Any]) -> str:
    """Lines for the result of `score_files`; percent, with 95% intervals over videos where they were drawn."""
    columns = present(shown("score", "grounding"), [value])
    head = [{"measure": column.title, "percent, 95% interval": score_cell(value, column)} for column in columns]
    parts = [
        f"{value['n']} asked, {value['answered']} answered, {value['unparsable']} unparsable, {value.get('missing', 0)} missing; "
        f"R1@m counts IoU {value['comparison']} m; answers read as {value['form']}, annotations read as {value['format']}",
        text_table(table_of(head)),
    ]
    parts += [_breakdown(title, value[key]) for key, title in _BREAKDOWNS.items() if value.get(key)]
    return "\n\n".join(filter(None, [*parts, _fates(value)]))


def _breakdown(title: str, groups: Mapping[str, Mapping[str, Any]]) -> str:
    columns = present(shown("score", "grounding"), list(groups.values()))
    rows = [
        {title: group, "n": row.get("n"), **{column.title: score_cell(row, column, brief=True) for column in columns}}
        for group, row in groups.items()
    ]
    return text_table(table_of(rows))


def _fates(value: Mapping[str, Any]) -> str:
    """One line for everything that did not simply fit."""
    told = {f"repaired ({value['treatment']}) {code}": few for code, few in value.get("repaired", {}).items()}
    told |= {f"left out {code}": few for code, few in value.get("left_out", {}).items() if isinstance(few, Mapping)}
    titles = {"unreadable": "unreadable rows", "duplicates": "answered twice", "unknown": "about no known sample"}
    told |= {words: value.get(name, {}) for name, words in titles.items()}
    lines = [
        f"{words}: {few['n']}, such as {', '.join(map(str, few['examples']))}" for words, few in told.items() if few.get("n")
    ]
    return "\n".join(lines)
