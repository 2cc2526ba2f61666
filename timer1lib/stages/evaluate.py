"""05_evaluate: ask every checkpoint the same questions, and say what the answers are worth."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timer1lib import forms
from timer1lib.errors import Timer1Error
from timer1lib.evaluation.answers import asked
from timer1lib.evaluation.columns import CHECKPOINTS
from timer1lib.evaluation.measure import Evidence, measure_run
from timer1lib.evaluation.metrics import COMPARISONS
from timer1lib.evaluation.scored import Scored, join
from timer1lib.files import atomic_write_json, read_json
from timer1lib.inference.ledger import swap_videos
from timer1lib.models.config import base_name
from timer1lib.params import parse_shard, split_list
from timer1lib.params.sections import EvaluateParams
from timer1lib.schema import Prediction, Sample
from timer1lib.stages import Stage
from timer1lib.stages.work import do

if TYPE_CHECKING:
    from timer1lib.models.load import LoadedModel
    from timer1lib.video.store import FrameStore

EvaluateStage = Stage[EvaluateParams]


@dataclass(frozen=True, slots=True)
class Task:
    """One file of predictions. `kind` is grounding, questions, grounded, swap or shuffle."""

    checkpoint: str
    split: str
    kind: str
    path: Path
    samples: tuple[Sample, ...]


def checkpoints(stage: EvaluateStage) -> dict[str, str]:
    """{name: folder or hub id} of the asked-for checkpoints that the run has, base first; a Timer1Error where it has none."""
    asked = split_list(stage.params.checkpoints)
    found = {}
    for name in CHECKPOINTS:
        folder = stage.run.checkpoint(name)
        if name in asked and name == "base":
            found[name] = base_name(stage.shared)
        elif name in asked and ((folder / "config.json").is_file() or (folder / "adapter_config.json").is_file()):
            found[name] = str(folder)
    if not found:
        raise Timer1Error(
            f"{stage.run.root}: none of the checkpoints {', '.join(asked)} is there; run 02_sft or 04_grpo, or add base"
        )
    return found


def splits(stage: EvaluateStage) -> dict[str, str]:
    """{split: grounding or questions}; a Timer1Error on a split that the run has not, or where there is none to evaluate."""
    known = {name: str(entry["kind"]) for name, entry in stage.run.splits().items()}
    asked = split_list(stage.params.splits) or [name for name in known if not name.startswith("train")]
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise Timer1Error(f"evaluate.splits: no split {unknown[0]!r}; there are {', '.join(known)}")
    if not asked:
        raise Timer1Error("evaluate.splits: only a training split is there; name it to evaluate on it")
    return {name: known[name] for name in asked}


def tasks(stage: EvaluateStage) -> list[Task]:
    """Every file of predictions that the parameters ask for, checkpoint by checkpoint."""
    p, run = stage.params, stage.run
    kinds = split_list(p.perturb)
    made = []
    for name in checkpoints(stage):
        for split, kind in splits(stage).items():
            samples = tuple(asked(run.read_samples(split), kind))
            if kind == "questions":
                if p.question_method != "none":
                    made.append(Task(name, split, "questions", run.predictions(name, split), samples))
                windowed = tuple(s for s in samples if s.windows)
                if p.grounded_questions and windowed:
                    made.append(Task(name, split, "grounded", run.predictions(name, split, "grounded"), windowed))
                continue
            made.append(Task(name, split, "grounding", run.predictions(name, split), samples))
            few = some_videos(samples, p.perturb_samples)
            if len({(s.video, s.video_start) for s in few}) > 1:
                made += [Task(name, split, kind, run.predictions(name, split, kind), few) for kind in kinds]
    return made


def some_videos(samples: Sequence[Sample], count: int) -> tuple[Sample, ...]:
    """About `count` samples: every sample of evenly chosen videos."""
    if count >= len(samples):
        return tuple(samples)
    videos = list(dict.fromkeys(sample.video for sample in samples))
    keep = max(0, round(len(videos) * count / max(1, len(samples))))
    chosen = {videos[i * len(videos) // keep] for i in range(keep)}
    return tuple(sample for sample in samples if sample.video in chosen)


def answer(stage: EvaluateStage) -> bool:
    """Ask all questions that have no answer yet. A killed call goes on where it stopped.

    Returns:
        Whether every file of predictions is whole. With `evaluate.shard` this machine's share is done; a call without it,
        once all shares lie in `predictions/`, joins them and asks what is missing.
    """
    if not stage.finished:
        _remove_strangers(stage, tasks(stage))
        do(stage, "ask")
    return not stage.params.shard


def ask(stage: EvaluateStage) -> None:
    """What each rank does of `answer`."""
    from timer1lib.models.load import load_shared
    from timer1lib.video.store import open_store

    shard = parse_shard(stage.params.shard) if stage.params.shard else None
    todo, models = tasks(stage), checkpoints(stage)
    with open_store(stage.shared) as store:
        for name, source in models.items():
            loaded = load_shared(source, stage.shared)
            for task in todo:
                if task.checkpoint == name:
                    _ask(stage, loaded, task, shard, store)
            del loaded
        sys.stdout.write(f"frames: {store.costs}\n")


PHASES = {"ask": ask}


def _ask(
    stage: EvaluateStage, loaded: LoadedModel, task: Task, shard: tuple[int, int] | None, store: FrameStore
) -> list[Prediction]:
    from timer1lib.inference.generate import predict
    from timer1lib.inference.likelihood import choose

    p = stage.params
    keep = task.checkpoint == "base"  # which runs of any seed ask the same
    label = f"{task.checkpoint} on {task.split}" + ("" if task.kind in ("grounding", "questions") else f" ({task.kind})")
    if task.kind == "questions" and p.question_method == "likelihood":
        return choose(
            loaded, task.samples, stage.run.videos().file, stage.shared, task.path,
            batch_size=p.batch_size, shard=shard, store=store, label=label, keep=keep,
        )  # fmt: skip
    return predict(
        loaded, task.samples, stage.run.videos().file, stage.shared, task.path,
        batch_size=p.batch_size, shard=shard, store=store, label=label, repetition_penalty=p.repetition_penalty,
        max_new_tokens=p.grounded_tokens if task.kind == "grounded" else p.max_new_tokens, grounded=task.kind == "grounded",
        perturb="swap" if task.kind == "swap" else "shuffle" if task.kind == "shuffle" else None, keep=keep,
    )  # fmt: skip


def _remove_strangers(stage: EvaluateStage, todo: Sequence[Task]) -> None:
    """Take away predictions of checkpoints and splits that are no longer asked, so that nothing stale is shown."""
    folder = stage.run.at("predictions")
    wanted = {task.path for task in todo}
    for path in folder.glob("**/*.jsonl"):
        stem = path.name.split(".")
        owner = path.with_name(".".join(stem[:2]) + ".jsonl")
        if owner not in wanted:
            path.unlink()
            path.with_suffix(".meta.json").unlink(missing_ok=True)


def measure(stage: EvaluateStage) -> dict[str, Any]:
    """Score every file of predictions and write `metrics.json`.

    Raises:
        Timer1Error: predictions are missing, as while shards of other machines are.
    """
    if stage.finished:
        metrics: dict[str, Any] = read_json(stage.run.metrics)
        return metrics
    todo = tasks(stage)
    for task in todo:
        if not task.path.is_file():
            raise Timer1Error(f"{task.path}: not there yet; run every shard, then 05_evaluate with evaluate.shard empty")
    run, shared = stage.run, stage.shared
    evidence = Evidence(
        {name: (kind, run.read_samples(name)) for name, kind in splits(stage).items()},
        {(task.kind, task.checkpoint, task.split): _read(stage, task) for task in todo},
        run.read_samples("train") if run.data("train").is_file() else None,
        run.log("rollouts") if run.log("rollouts").is_file() else None,
        {task.split: {s.id: s.duration for s in swap_videos(task.samples)} for task in todo if task.kind == "swap"},
    )
    form, comparison = forms.load(shared.form), COMPARISONS[stage.params.comparison]
    metrics = {"model": base_name(shared), **measure_run(evidence, form, comparison, stage.params.resamples, shared.seed)}
    metrics["question_method"] = stage.params.question_method
    atomic_write_json(run.metrics, metrics)
    return metrics


def _read(stage: EvaluateStage, task: Task) -> list[Prediction]:
    own = task.kind if task.kind not in ("grounding", "questions") else ""
    return stage.run.read_predictions(task.checkpoint, task.split, own)


NOTHING_YET: dict[str, Any] = {"splits": {}, "baselines": {}, "paired": {}, "questions": {}, "signatures": {}, "failed": []}
"""What a machine that answers one shard shows in place of metrics."""


def overview(stage: EvaluateStage) -> list[dict[str, Any]]:
    """A row for every file of predictions: who is asked what, and how many questions."""
    return [{"checkpoint": t.checkpoint, "split": t.split, "asked": t.kind, "questions": len(t.samples)} for t in tasks(stage)]


def of_kind(metrics: dict[str, Any], kind: str) -> list[str]:
    """Splits of kind `grounding` or `questions` in the metrics."""
    measure = "accuracy" if kind == "questions" else "mIoU"
    return [split for split, rows in metrics["splits"].items() if any(measure in row for row in rows.values())]


def by_checkpoint(metrics: dict[str, Any], measure: str) -> dict[str, dict[str, Any]]:
    """{checkpoint: {split: scores}} of the splits that have a measure, for `view.figures.by_group`."""
    table: dict[str, dict[str, Any]] = {}
    for split, rows in metrics["splits"].items():
        for name, row in rows.items():
            if row.get(measure) is not None:
                table.setdefault(name, {})[split] = row
    return table


def by_group(metrics: dict[str, Any], split: str, grouping: str) -> dict[str, dict[str, Any]]:
    """{checkpoint: {group: scores}} of one split, by type, video_length, window_length, window_position or source."""
    return {name: row.get(f"by_{grouping}", {}) for name, row in metrics["splits"][split].items()}


def ious(stage: EvaluateStage, split: str) -> dict[str, list[float]]:
    """{checkpoint: IoU of every sample of a split}, in [0, 1]."""
    return {name: scored.iou.tolist() for name, scored in _scored(stage, split).items()}


def offsets(stage: EvaluateStage, split: str) -> dict[str, list[float]]:
    """{checkpoint: signed offset of every answer's centre from the window's, as a share of the video}; positive is late."""
    result = {}
    for name, scored in _scored(stage, split).items():
        off = (scored.span.mean(axis=1) - scored.window.mean(axis=1)) / scored.duration
        result[name] = [float(value) for value in off if abs(value) <= 1]
    return result


def answers_to(stage: EvaluateStage, split: str, name: str) -> tuple[Sample, dict[str, Prediction]]:
    """A sample of a split by its id, and every checkpoint's answer to it."""
    sample = next(sample for sample in stage.run.read_samples(split) if sample.id == name)
    found = {task.checkpoint: _read(stage, task) for task in tasks(stage) if task.split == split and task.kind == "grounding"}
    return sample, {checkpoint: answer for checkpoint, rows in found.items() for answer in rows if answer.id == name}


def worst(metrics: dict[str, Any], split: str) -> list[dict[str, Any]]:
    """The last checkpoint's failure signatures on a split that list samples, those flagged first: {name, flagged, id}."""
    found = list(metrics["signatures"].get(split, {}).items())[-1:]
    rows = [
        {"name": name, "flagged": bool(row["flagged"]), "id": row["samples"][0]}
        for _, signatures in found
        for name, row in signatures.items()
        if row["samples"] and name != "reward_without_iou"  # whose samples are of training
    ]
    return sorted(rows, key=lambda row: not row["flagged"])


def _scored(stage: EvaluateStage, split: str) -> dict[str, Scored]:
    return {
        task.checkpoint: join(task.samples, _read(stage, task), forms.load(stage.shared.form))
        for task in tasks(stage)
        if task.split == split and task.kind == "grounding"
    }
