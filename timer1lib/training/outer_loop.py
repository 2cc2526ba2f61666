"""TimeRFT's outer loop: short trainings, and between them the question which samples are still worth learning from.

trl's sampler fixes its length when a training starts, so that samples cannot leave during one. Each epoch is a
training of its own (Time-R1's official script does the same), after it the model answers its samples greedily, and
the schedule chooses the next epoch's.

    restart   fresh optimizer and learning-rate schedule, the last epoch's model as policy and as KL reference; the
              first epoch runs on a schedule as long as all epochs, and is stopped after one (the official script)
    carry     optimizer and schedule go on through all epochs, the KL reference stays the first model
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from timer1lib.data.schedules import Epoch, filter_epoch, plan_epoch
from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_jsonl, read_jsonl
from timer1lib.params.sections import GrpoParams

Measure = Callable[[str, Sequence[str], int], Mapping[str, float | None]]
"""Greedy IoU (0 to 1, None where there is no answer) of a model folder on samples; the int names the epoch."""

TrainPhase = Callable[["PhasePlan"], None]
"""Trains a plan's phase into its `out_dir`."""


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """What an epoch trains."""

    number: int  # from 0
    ids: list[str]  # of samples, in the order of training; one may stand several times
    note: str
    start_from: str  # folder of the policy's weights
    reference: str  # folder of the KL reference's weights, read where beta > 0
    steps: int
    schedule_steps: int  # length of the learning-rate schedule, at least `steps`
    out_dir: Path
    carry_from: Path | None  # folder whose optimizer and schedule go on; None starts them fresh

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "out_dir": str(self.out_dir), "carry_from": self.carry_from and str(self.carry_from)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> PhasePlan:
        carried = row["carry_from"]
        return cls(**{**row, "out_dir": Path(row["out_dir"]), "carry_from": Path(carried) if carried else None})


def run_epochs(
    pool: Sequence[str],
    difficulty: Mapping[str, float | None],
    first_model: str,
    work_dir: Path,
    filter_path: Callable[[int], Path],
    params: GrpoParams,
    seed: int,
    train: TrainPhase,
    measure: Measure,
    keep: Callable[[str, float, int], bool] | None = None,
) -> list[PhasePlan]:
    """Run all epochs; those that are finished on disk are not run again.

    Args:
        pool: ids of the selected samples.
        difficulty: IoU of each before training, 0 to 1.
        first_model: the policy before training.
        filter_path: where epoch k (from 1) leaves its rows: id, iou, kept, reason.
        keep: sample filtering's rule of one's own: (id, IoU, epochs so far) -> whether the next epoch trains on it.

    Returns:
        The plans of the epochs that were run; fewer than asked for where no sample is left.
    """
    plans: list[PhasePlan] = []
    current: Mapping[str, float | None] = difficulty
    members: Sequence[str] = pool
    model = first_model
    for number in range(params.epochs):
        try:
            epoch = plan_epoch(
                params.schedule, number, params.epochs, members, current,
                seed=seed, low=params.filter_low, high=params.filter_high, bands=params.stage_bands,
                keep=partial(_keeps, keep, number) if keep else None,
            )  # fmt: skip
        except Timer1Error:
            if number == 0:
                raise
            break  # everything is solved or hopeless: there is nothing left to learn from
        plan = _phase(epoch, model, first_model, work_dir, params, plans)
        kept = ("optimizer.pt", "scheduler.pt") if params.phase_policy == "carry" else ()
        if not (plan.out_dir.is_dir() and all((plan.out_dir / name).is_file() for name in kept)):
            train(plan)
        plans.append(plan)
        model = str(plan.out_dir)
        path, trained = filter_path(number + 1), list(dict.fromkeys(plan.ids))
        if params.schedule != "sample_filtering":
            atomic_write_jsonl(path, ({"id": i, "iou": current.get(i), "kept": True, "reason": plan.note} for i in trained))
            continue
        if not path.is_file():
            rule = partial(_keeps, keep, number + 1) if keep else None
            rows = filter_epoch(trained, measure(model, trained, number + 1), params.filter_low, params.filter_high, rule)
            atomic_write_jsonl(path, rows)
        members, current = trained, {row["id"]: row["iou"] for row in read_jsonl(path)}
    return plans


def _keeps(keep: Callable[[str, float, int], bool], epochs: int, name: str, iou: float) -> bool:
    return keep(name, iou, epochs)


def _phase(epoch: Epoch, model: str, first_model: str, work_dir: Path, params: GrpoParams, before: list[PhasePlan]) -> PhasePlan:
    number = len(before)
    groups = params.prompts_per_step * params.updates_per_rollout  # of one batch of rollouts
    steps = params.steps_per_epoch or max(1, len(epoch.ids) // groups) * params.updates_per_rollout * params.num_iterations
    carry = params.phase_policy == "carry"
    if carry:
        schedule_steps = max(params.epochs * (before[0].steps if before else steps), sum(p.steps for p in before) + steps)
    else:
        schedule_steps = params.epochs * steps if number == 0 else steps
    return PhasePlan(
        number=number,
        ids=epoch.ids,
        note=epoch.note,
        start_from=model,
        reference=first_model if carry else model,
        steps=steps,
        schedule_steps=schedule_steps,
        out_dir=work_dir / f"epoch{number + 1}",
        carry_from=before[-1].out_dir if carry and before else None,
    )
