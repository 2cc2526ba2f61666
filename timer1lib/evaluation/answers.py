"""Answers: those in a run's folder, and prediction files from anywhere, whose rows name samples by id or by video + query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from timer1lib.errors import Timer1Error
from timer1lib.evaluation.columns import Kind, in_order
from timer1lib.files import find_project, read_json, read_numbered
from timer1lib.forms import FORMS, AnswerForm, from_identity
from timer1lib.runfolder import SWEEP, RunFolder
from timer1lib.schema import Prediction, Sample

VIDEO_ENDINGS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v")
EXAMPLES = 5


def predicted(run: RunFolder) -> dict[str, list[str]]:
    """{split: checkpoints that answered it, in the order of training} of the files in a run's `predictions/`."""
    found: dict[str, list[str]] = {}
    for path in sorted((run.root / "predictions").glob("*.*.jsonl")):
        checkpoint, _, split = path.name.removesuffix(".jsonl").partition(".")
        if checkpoint:
            found.setdefault(split, []).append(checkpoint)
    return {split: in_order(names) for split, names in found.items()}


def read_metrics(run: RunFolder) -> dict[str, Any]:
    """A run's `metrics.json`; a Timer1Error where there is none, or it is not what 05_evaluate writes."""
    if not run.metrics.is_file():
        raise Timer1Error(f"{run.metrics}: no such file; run 05_evaluate of that run first")
    metrics = read_json(run.metrics)
    splits = metrics.get("splits") if isinstance(metrics, dict) else None
    rows = list(splits.values()) if isinstance(splits, dict) else [None]
    if not all(isinstance(row, dict) and all(isinstance(scores, dict) for scores in row.values()) for row in rows):
        raise Timer1Error(f"{run.metrics}: not a metrics file of 05_evaluate")
    return dict(metrics)


def split_kinds(metrics: Mapping[str, Any]) -> dict[str, Kind]:
    """What each split of a metrics file holds."""
    splits = {split: next(iter(rows.values())) for split, rows in metrics["splits"].items() if rows}
    return {split: "grounding" if "mIoU" in row else "questions" for split, row in splits.items()}


def form_of(metrics: Mapping[str, Any]) -> AnswerForm:
    """The form in which the run's answers were asked for and read; older files name how they were read alone."""
    if "asked" in metrics:
        return from_identity(metrics["form"], metrics["asked"])
    return FORMS.get(metrics.get("parser", "timer1"), FORMS["timer1"])


def asked(samples: Sequence[Sample], kind: str) -> list[Sample]:
    """The samples that have what a split of this kind is scored by."""
    return [s for s in samples if (s.is_question if kind == "questions" else bool(s.windows))]


def answered(run: RunFolder, checkpoint: str, split: str) -> list[Prediction]:
    """A checkpoint's predictions on a split; none where it was not asked."""
    return run.read_predictions(checkpoint, split) if run.predictions(checkpoint, split).is_file() else []


def find_run(run: str | Path) -> Path:
    """The folder of a run that is given as a path or as a name under `outputs/`; a Timer1Error names the runs there are."""
    root = find_project() or Path()
    outputs = root / "outputs"
    for folder in (Path(run).expanduser(), root / run, outputs / run) if str(run).strip() else ():
        if folder.is_dir():
            return folder
    known = ", ".join(sorted(path.name for path in outputs.glob("*") if (path / "data").is_dir())) or "none yet"
    raise Timer1Error(f"run {str(run)!r}: no such folder, nor one of that name under outputs/, which holds {known}")


def find_sweep(sweep: str | Path) -> Path | None:
    """The folder of a sweep that is given as a path or as a name under `outputs/sweeps/`; None where there is no such one."""
    root = find_project() or Path()
    places = (Path(sweep).expanduser(), root / sweep, root / "outputs" / "sweeps" / sweep)
    return next((place for place in places if str(sweep).strip() and (place / SWEEP).is_file()), None)


@dataclass(slots=True)
class Answer:
    """One row of a predictions file. `id` is "" where the row names its sample by video and query."""

    prediction: Prediction
    video: str
    query: str
    where: str


@dataclass(slots=True)
class Matched:
    """`rows[i]` answers `samples[i]`; what did not fit is listed, never dropped unsaid."""

    rows: list[Prediction | None]
    duplicates: list[str] = field(default_factory=list)
    """Rows beyond the first for one sample: where they stand. They do not count."""
    unknown: list[str] = field(default_factory=list)
    """Rows about no sample of the annotations: where they stand."""
    shared: int = 0
    """Samples with the same video and query as another one that took over its answer, there being only one."""


def read_answers(path: str | Path, form: AnswerForm | None = None) -> list[Answer]:
    """Rows of a predictions JSONL.

    A row has `id` or `qid`, or `video` (or `vid`) and `query` (or `sentence`); and one of `start` + `end` (seconds,
    null where there is no answer), `pred_relevant_windows` ([[start, end, score], ...], QVHighlights' submissions) or
    `completion` (text to parse). Other fields are passed over.

    `form` is how completions are read. None: as `timer1`, and only where the row has no start and end of its own; a
    named form reads every completion anew.

    Raises:
        Timer1Error: no such file; no row in it; a row that is no JSON object or lacks these fields, with its line.
    """
    numbered = enumerate(read_numbered(path), 1)
    places = ((row, f"row {n}" if n == line else f"line {line} (row {n})") for n, (line, row) in numbered)
    answers = [_answer(row, f"{path}, {place}", form) for row, place in places]
    if not answers:
        raise Timer1Error(f"{path}: it holds no answer; one row (JSON object) a line was expected")
    return answers


def _answer(row: Mapping[str, Any], where: str, form: AnswerForm | None) -> Answer:
    identity = next((row[name] for name in ("qid", "id") if row.get(name) is not None), None)
    video = next((row[name] for name in ("video", "vid") if isinstance(row.get(name), str)), "")
    query = next((row[name] for name in ("query", "sentence") if isinstance(row.get(name), str)), "")
    if identity is None and not (video and query):
        raise Timer1Error(f"{where}: a prediction needs qid (or id), or video and query")
    if isinstance(identity, (dict, list, bool)):
        raise Timer1Error(f"{where}: qid must be text or a number")
    if isinstance(identity, float) and identity.is_integer():
        identity = int(identity)
    text = row.get("completion")
    if text is not None and not isinstance(text, str):
        raise Timer1Error(f"{where}: completion must be text")
    model, failure = (row.get(name) for name in ("model", "error"))
    if isinstance(model, (dict, list)) or isinstance(failure, (dict, list)):
        raise Timer1Error(f"{where}: model and error must be text")
    prediction = Prediction(id="" if identity is None else str(identity), completion=text or "", model=str(row.get("model", "")))
    if failure is not None:
        prediction.error = str(failure)
    has_span = "start" in row and "end" in row
    if row.get("pred_relevant_windows") is not None or row.get("windows"):
        prediction.windows = _windows(row.get("pred_relevant_windows") or row.get("windows") or [], where)
        if prediction.windows:
            prediction.start, prediction.end = prediction.windows[0][:2]
    elif text is not None and (form is not None or not has_span):
        form = form or FORMS["timer1"]
        prediction.parser = form.reading.way
        prediction.start, prediction.end = form.span(text) or (None, None)
    elif has_span:
        prediction.start, prediction.end = _seconds(row["start"], "start", where), _seconds(row["end"], "end", where)
    elif prediction.error is None:
        raise Timer1Error(f"{where}: a prediction needs start and end, pred_relevant_windows, or a completion to parse")
    return Answer(prediction, video, query, where)


def _seconds(value: Any, name: str, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Timer1Error(f"{where}: {name} must be a number of seconds or null, not {value!r}"[:300])
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _windows(value: Any, where: str) -> list[tuple[float, float, float]]:
    try:
        if not isinstance(value, list) or any(isinstance(window, str) for window in value):
            raise TypeError
        return [(float(start), float(end), float(score)) for start, end, score in value]
    except (TypeError, ValueError, OverflowError):
        raise Timer1Error(f"{where}: pred_relevant_windows must be a list of [start, end, score]") from None


def match(samples: Sequence[Sample], answers: Sequence[Answer]) -> Matched:
    """Give each sample its answer.

    By id where the row has one (the sample's id, or its `qid` as published), else by video and query: the video's
    name as written, then without folder and ending. Samples that share video and query (two windows annotated for one
    question) are all asked: answers go to them in file order; where there are fewer answers than samples, the last one
    answers the rest, since it was given to the same question.
    """
    result = Matched([None] * len(samples))
    known: dict[tuple[str, ...], list[int]] = {}
    for index, sample in enumerate(samples):
        ids = {("id", sample.id), ("id", str(sample.extra.get("qid", sample.id)))}
        for key in ids | set(_query_keys(sample.video, sample.query)):
            known.setdefault(key, []).append(index)
    asked: dict[tuple[int, ...], int] = {}
    for answer in answers:
        keys = [("id", answer.prediction.id), *(_query_keys(answer.video, answer.query) if answer.video and answer.query else ())]
        rows = next((known[key] for key in keys if key in known), [])
        free = next((row for row in rows if result.rows[row] is None), None)
        if free is None:
            (result.duplicates if rows else result.unknown).append(answer.where)
            continue
        result.rows[free] = replace(answer.prediction, id=samples[free].id)
        if len(rows) > 1:
            asked[tuple(rows)] = free
    for group, last in asked.items():
        taken, question = result.rows[last], _query_keys(samples[last].video, samples[last].query)
        for row in group:
            same = _query_keys(samples[row].video, samples[row].query) == question
            if same and result.rows[row] is None and taken is not None:
                result.rows[row] = replace(taken, id=samples[row].id)
                result.shared += 1
    return result


def _query_keys(video: str, query: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a question is looked up by: the video's name as written, then without folder and ending."""
    words = " ".join(query.split())
    name = PurePosixPath(video.replace("\\", "/")).name
    ending = name[name.rfind(".") :].lower() if "." in name else ""
    return ("video", video, words), ("stem", name[: -len(ending)] if ending in VIDEO_ENDINGS else name, words)
