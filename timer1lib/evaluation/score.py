"""Scoring a predictions file against an annotation file, as `timer1 score` does: repairs, numbers, and the text of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from timer1lib.data.readers import read_annotations
from timer1lib.errors import Timer1Error
from timer1lib.evaluation import qvhighlights
from timer1lib.evaluation.answers import EXAMPLES, Answer, Matched, match, read_answers
from timer1lib.evaluation.intervals import RESAMPLES
from timer1lib.evaluation.metrics import Comparison, summary
from timer1lib.evaluation.scored import score_pairs
from timer1lib.evaluation.tables import text_table
from timer1lib.parsing import POLICIES, Policy
from timer1lib.schema import Prediction, Sample, Window

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


def score_files(
    predictions: str | Path,
    annotations: str | Path,
    format: str | None = None,
    parser: Policy | None = None,
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
        parser: how completions are read; None reads them as `timer1`, and only where a row has no start and end.
        policy: what to do with broken windows (`repairs.repair`).
        comparison: whether R1@m counts IoU >= m or IoU > m.
        resamples: of the bootstrap over videos; 0 leaves the intervals out.

    Returns:
        n, answered, unparsable, missing, R1@m and mIoU in percent and the rest of `metrics.summary`; `rows`,
        `unreadable`, `repaired`, `left_out`, `duplicates`, `unknown`; mAP, mAP@0.5, mAP@0.75 and `by_length` where
        predictions are ranked windows.

    Raises:
        Timer1Error: an unreadable file; no prediction that fits the annotations; an unknown parser or policy.
    """
    if parser is not None and parser not in POLICIES:
        raise Timer1Error(f"parser {parser!r}: one of {', '.join(POLICIES)}")
    answers = read_answers(predictions, parser)
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
    scored = score_pairs(asked, rows, parser or "timer1")
    result: dict[str, Any] = summary(scored, comparison, resamples=resamples, seed=seed)
    if any(row is not None and row.windows for row in rows):
        result.update(qvhighlights.evaluate(asked, rows, comparison))
    result["parser"] = parser or "timer1"
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


MEASURES = ("mIoU", "R1@0.3", "R1@0.5", "R1@0.7", "mAP", "mAP@0.5", "mAP@0.75")
_BREAKDOWNS = {
    "by_type": "query type",
    "by_video_length": "video length",
    "by_window_length": "window length",
    "by_window_position": "window position",
    "by_source": "source",
    "by_length": "window length (QVHighlights)",
}


def score_text(value: Mapping[str, Any]) -> str:
    """Lines for the result of `score_files`; percent, with 95% intervals over videos where they were drawn."""
    intervals = value.get("interval", {})
    head = []
    for name in MEASURES:
        if name in value:
            low_high = intervals.get(name)
            interval = f"{low_high[0]:.1f} to {low_high[1]:.1f}" if low_high else "-"
            head.append({"measure": name, "percent": f"{value[name]:.1f}", "95% interval": interval})
    parts = [
        f"{value['n']} asked, {value['answered']} answered, {value['unparsable']} unparsable, {value.get('missing', 0)} missing; "
        f"R1@m counts IoU {value['comparison']} m; parser {value['parser']}, annotations read as {value['format']}",
        text_table(head),
    ]
    for key, title in _BREAKDOWNS.items():
        groups = value.get(key)
        if isinstance(groups, Mapping) and groups:
            parts.append(_breakdown(title, groups))
    parts += _fates(value)
    return "\n\n".join(parts)


def _breakdown(title: str, groups: Mapping[str, Mapping[str, Any]]) -> str:
    names = [name for name in MEASURES if any(name in group for group in groups.values())]
    rows = []
    for group, numbers in groups.items():
        cells = {name: f"{numbers[name]:.1f}" for name in names if isinstance(numbers.get(name), int | float)}
        rows.append({title: group, "n": str(numbers.get("n", "")), **cells})
    return text_table(rows)


def _fates(value: Mapping[str, Any]) -> list[str]:
    """One line for everything that did not simply fit."""
    lines = []
    for code, few in value.get("repaired", {}).items():
        lines.append(f"repaired ({value['repair_policy']}) {code}: {few['n']}, such as {', '.join(map(str, few['examples']))}")
    for code, few in value.get("left_out", {}).items():
        if isinstance(few, Mapping):
            lines.append(f"left out {code}: {few['n']}, such as {', '.join(map(str, few['examples']))}")
    titles = {"unreadable": "unreadable rows", "duplicates": "answered twice", "unknown": "about no known sample"}
    for name, words in titles.items():
        few = value.get(name, {})
        if few.get("n"):
            lines.append(f"{words}: {few['n']}, such as {', '.join(map(str, few['examples']))}")
    return ["\n".join(lines)] if lines else []
