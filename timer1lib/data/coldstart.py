"""What SFT imitates: chains of thought that name times, written by a template or by a stronger model and filtered."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from timer1lib.errors import Timer1Error
from timer1lib.files import read_jsonl
from timer1lib.parsing import Policy, parse
from timer1lib.schema import Sample, Window
from timer1lib.spans import iou

COLD_TEMPLATES: dict[str, str] = {
    "brief": "<think>seen from {start} to {end}</think><answer>{start} to {end}</answer>",
    "direct": "<answer>{start} to {end}</answer>",
    "timer1": (
        "<think>The question is about: {query}. {before}Then, in <timestep>{start} to {end}</timestep>, it happens. "
        "{after}So the moment lasts from {start} to {end} seconds.</think><answer>{start} to {end}</answer>"
    ),
    "tvg_r1": (
        "<think>The question is about: {query}. {before}Then, from {start} to {end} seconds, it happens. "
        "{after}</think> <time>[{start}, {end}]</time>"
    ),
}
"""Completions of our own wording. Fields: start, end, duration (seconds), query, and before / after, sentences that name
the time ranges in which the event is not seen (empty where there is none). `brief` is the embedded tiny model's."""

_FIELD = re.compile(r"\{(\w+)\}")

Times = Callable[[Sample], Window]
"""Which times a completion names for a sample, in seconds; `exact` the window's own."""


def exact(sample: Sample) -> Window:
    """The annotated window."""
    return sample.window


def load_template(template: str) -> str:
    """A named template, or a file's text.

    Raises:
        Timer1Error: neither, or one without {start} and {end}.
    """
    path = Path(template)
    if template not in COLD_TEMPLATES and not path.is_file():
        raise Timer1Error(f"cold start template {template!r}: neither a file nor one of {', '.join(COLD_TEMPLATES)}")
    text = COLD_TEMPLATES.get(template) or path.read_text().strip()
    fields = set(_FIELD.findall(text))
    if not {"start", "end"} <= fields:
        raise Timer1Error(f"cold start template {template!r}: needs the fields {{start}} and {{end}}")
    unknown = fields - {"start", "end", "duration", "query", "before", "after"}
    if unknown:
        raise Timer1Error(f"cold start template {template!r}: unknown field {{{sorted(unknown)[0]}}}")
    return text


def write_completion(template: str, sample: Sample, window: Window, decimals: int = 2) -> str:
    """Fill a template's text for one sample; times in seconds with `decimals` digits."""

    def number(value: float) -> str:
        return f"{value:.{decimals}f}"

    start, end = window
    first = f"From {number(0)} to {number(start)} seconds it does not happen yet. " if start > 0.5 else ""
    last = ""
    if sample.duration is not None and sample.duration - end > 0.5:
        last = f"From {number(end)} to {number(sample.duration)} seconds it is over. "
    values = {
        "start": number(start),
        "end": number(end),
        "duration": "unknown" if sample.duration is None else number(sample.duration),
        "query": " ".join(sample.query.split()).rstrip(".").replace("<", "(").replace(">", ")"),
        "before": first,
        "after": last,
    }
    return _FIELD.sub(lambda match: values[match[1]], template).replace(" </think>", "</think>")


def from_template(
    samples: Sequence[Sample],
    template: str,
    n: int = 0,
    seed: int = 0,
    *,
    decimals: int = 2,
    policy: Policy = "timer1",
    times: Times = exact,
) -> list[dict[str, Any]]:
    """Rows of `data/cold_start.jsonl`: a sample's own row plus `completion`. Questions and samples without a window stay out.

    Args:
        n: how many samples, drawn at random; 0 takes all.
        policy: the parser that must read the written times back.

    Raises:
        Timer1Error: a template whose completions the parser does not read as they are meant.
    """
    text = load_template(template)
    usable = [sample for sample in samples if sample.windows and not sample.is_question]
    if n and n < len(usable):
        picks = np.random.default_rng([seed, 2]).permutation(len(usable))[:n]
        usable = [usable[int(i)] for i in sorted(picks)]
    rows = []
    for sample in usable:
        window = times(sample)
        completion = write_completion(text, sample, window, decimals)
        read = parse(completion, policy).span
        if read is None or max(abs(read[0] - window[0]), abs(read[1] - window[1])) > 0.51 * 10**-decimals:
            raise Timer1Error(f"cold start template {template!r}: the parser {policy!r} reads {read} from {completion[-80:]!r}")
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


def from_annotations(path: str | Path, samples: Iterable[Sample], policy: Policy, rules: Filter) -> Filtered:
    """Filter a JSONL of {id, completion}, a stronger model's annotations of our samples.

    An annotation is matched by `id`, or by `video` and `query`. The rules are applied in turn; each one's own share is
    told too.

    Raises:
        Timer1Error: a row without text, or none that belongs to a sample.
    """
    known = [sample for sample in samples if sample.windows]
    by_id = {sample.id: sample for sample in known}
    by_query = {(sample.video, sample.query.strip()): sample for sample in known}
    annotated: list[tuple[Sample, str]] = []
    read = 0
    for number, row in enumerate(read_jsonl(path), 1):
        read += 1
        completion = next(
            (row[name] for name in ("completion", "response", "output", "text") if isinstance(row.get(name), str)), None
        )
        if completion is None:
            raise Timer1Error(f"{path}, row {number}: no completion (text of the stronger model)")
        sample = by_id.get(str(row.get("id", row.get("qid", "")))) or by_query.get(
            (str(row.get("video")), str(row.get("query")).strip())
        )
        if sample is not None:
            annotated.append((sample, completion))
    if not annotated:
        raise Timer1Error(f"{path}: none of its {read} rows belongs to a sample (matched by id, or by video and query)")
    tests: Mapping[str, Callable[[Sample, str], bool]] = {
        f"IoU >= {rules.min_iou:g}": lambda s, c: max(iou(parse(c, policy).span, w) for w in s.windows) >= rules.min_iou,
        f"form {policy}": lambda s, c: not rules.require_form or parse(c, policy).form,
        f"{rules.min_characters} to {rules.max_characters} characters": lambda s, c: (
            rules.min_characters <= len(c) <= rules.max_characters
        ),
    }
    left = annotated
    table: dict[str, dict[str, float]] = {"belongs to a sample": {"alone": len(annotated) / read, "left": len(annotated)}}
    for name, test in tests.items():
        alone = sum(test(s, c) for s, c in annotated) / len(annotated)
        left = [(s, c) for s, c in left if test(s, c)]
        table[name] = {"alone": alone, "left": len(left)}
    return Filtered([{**s.to_json(), "completion": c} for s, c in left], table, read)
