"""What SFT imitates: chains of thought that name times, written by the form or by a stronger model and filtered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from timer1lib.clock.frames import Sampling, choose_frames
from timer1lib.clock.told import Timestamps, seen, told_times
from timer1lib.errors import Timer1Error
from timer1lib.files import read_jsonl
from timer1lib.forms import AnswerForm
from timer1lib.models.config import temporal_geometry
from timer1lib.schema import Sample, Window
from timer1lib.spans import best_iou
from timer1lib.video.decode import clip_frames
from timer1lib.video.probe import timeline

Times = Callable[[Sample], Window]
"""Which times a completion names for a sample, in seconds; `exact` the window's own."""


def exact(sample: Sample) -> Window:
    """The annotated window."""
    return sample.window


def from_form(
    samples: Sequence[Sample], form: AnswerForm, n: int = 0, seed: int = 0, *, times: Times = exact
) -> list[dict[str, Any]]:
    """Rows of `data/cold_start.jsonl`: a sample's own row plus the `completion` that the form writes.

    Questions and samples without a window stay out; `n` samples are drawn at random, 0 takes all.

    Raises:
        Timer1Error: a form whose completions are not read back as they are meant, or that writes none.
    """
    usable = [sample for sample in samples if sample.windows and not sample.is_question]
    if n and n < len(usable):
        picks = np.random.default_rng([seed, 2]).permutation(len(usable))[:n]
        usable = [usable[int(i)] for i in sorted(picks)]
    rows = []
    for sample in usable:
        window = times(sample)
        completion = form.write(sample, window)
        read = form.of_sample(sample, grounded=False).span(completion)
        if read is None or max(abs(read[0] - window[0]), abs(read[1] - window[1])) > 0.51 * 10**-form.decimals:
            raise Timer1Error(f"form {form.name!r}: what it writes is read as {read}: {completion[-80:]!r}")
        rows.append({**sample.to_json(), "completion": completion})
    return rows


@dataclass(frozen=True, slots=True)
class Filter:
    """TVG-R1's curation of a stronger model's chains of thought: the answer's IoU, the form, the length in characters."""

    min_iou: float = 0.5
    require_form: bool = True
    min_characters: int = 20
    max_characters: int = 4000


@dataclass(frozen=True, slots=True)
class Filtered:
    """`rows` that stay, and what each rule did: {rule: {"alone": share it keeps of all, "left": rows left after it}}."""

    rows: list[dict[str, Any]]
    rules: dict[str, dict[str, float]]
    read: int


def from_annotations(path: str | Path, samples: Iterable[Sample], form: AnswerForm, rules: Filter) -> Filtered:
    """Filter a JSONL of {id, completion}, a stronger model's annotations of our samples, by one rule after the other.

    Raises:
        Timer1Error: a row without text, or none that belongs to a sample (by `id`, or by `video` and `query`).
    """
    known = [sample for sample in samples if sample.windows]
    by_id = {sample.id: sample for sample in known}
    by_query = {(sample.video, sample.query.strip()): sample for sample in known}
    annotated: list[tuple[Sample, str]] = []
    read = 0
    for read, row in enumerate(read_jsonl(path), 1):
        texts = [row[name] for name in ("completion", "response", "output", "text") if isinstance(row.get(name), str)]
        if not texts:
            raise Timer1Error(f"{path}, row {read}: no completion (text of the stronger model)")
        completion, asked = texts[0], (str(row.get("video")), str(row.get("query")).strip())
        if sample := by_id.get(str(row.get("id", row.get("qid", "")))) or by_query.get(asked):
            annotated.append((sample, completion))
    if not annotated:
        raise Timer1Error(f"{path}: none of its {read} rows belongs to a sample (matched by id, or by video and query)")
    low, high = rules.min_characters, rules.max_characters
    tests: Mapping[str, Callable[[Sample, str], bool]] = {
        f"IoU >= {rules.min_iou:g}": lambda s, c: best_iou(form.of_sample(s, grounded=False).span(c), s.windows) >= rules.min_iou,
        f"form {form.name}": lambda s, c: not rules.require_form or form.of_sample(s, grounded=False).fits(c),
        f"{low} to {high} characters": lambda s, c: low <= len(c) <= high,
    }
    left = annotated
    table: dict[str, dict[str, float]] = {"belongs to a sample": {"alone": len(annotated) / read, "left": len(annotated)}}
    for name, test in tests.items():
        alone = sum(test(s, c) for s, c in annotated) / len(annotated)
        left = [(s, c) for s, c in left if test(s, c)]
        table[name] = {"alone": alone, "left": len(left)}
    return Filtered([{**s.to_json(), "completion": c} for s, c in left], table, read)


def told_window(
    resolve_video: Callable[[Sample], Path], sampling: Sampling, model: str, timestamps: Timestamps = "auto"
) -> Callable[[Sample], Window]:
    """A function from a sample to the first and last told time inside its window (the nearest one where none is inside).

    A boundary between two sampled frames cannot be seen, and as a target it only teaches noise. Times are the true
    ones: `time_scale` of the wrong-clock experiment changes what is told, never what is right.

    Args:
        resolve_video: the file of a sample's video; only its timestamps are read.
        model: folder or hub id, of which only `config.json` is read.
        timestamps: how that model is told times.
    """
    patch, rate = temporal_geometry(model, timestamps)
    sampling = replace(sampling, time_scale=1.0)

    def window(sample: Sample) -> Window:
        _, times, _ = clip_frames(timeline(resolve_video(sample)), (sample.video_start, sample.video_end))
        choice = choose_frames(times, sampling, patch)
        told = told_times(times[choice.indices], choice.step_s, patch, rate, 1.0)
        return seen(sample.window, list(dict.fromkeys(float(t) for t in told)))

    return window
