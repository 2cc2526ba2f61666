"""One phase of reinforcement learning: a model, some samples, rewards, and the video trainer."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from timer1lib.errors import Timer1Error
from timer1lib.files import append_jsonl, atomic_write_jsonl, read_jsonl, resolve
from timer1lib.forms import AnswerForm, load
from timer1lib.models.features import FeatureCache
from timer1lib.models.inputs import banned_token_ids
from timer1lib.models.load import LoadedModel, local_folder
from timer1lib.params.sections import GrpoParams, SharedParams
from timer1lib.rewards import Reward, RewardInput, parse_rewards
from timer1lib.schema import Sample
from timer1lib.training import common, feeding
from timer1lib.training.outer_loop import PhasePlan
from timer1lib.training.parallel import load_optimizer
from timer1lib.training.video_grpo import VideoGRPOConfig
from timer1lib.training.video_grpo.trainer import VideoGRPOTrainer
from timer1lib.workers.team import team

Encode = Callable[[LoadedModel, Sample], dict[str, torch.Tensor]]

# trl says so of every configuration that tells how the reference is loaded
logging.getLogger("trl.trainer.grpo_trainer").addFilter(lambda record: "`model_init_kwargs` will be" not in record.getMessage())

SAME_IN_TRL = {
    *(
        "num_generations",
        "num_iterations",
        "max_completion_length",
        "temperature",
        "warmup_steps",
        "beta",
        "epsilon",
        "epsilon_high",
    ),
    *("loss_type", "scale_rewards", "dynamic_sampling", "scoring", "rollouts"),
}


class RewardFunction:
    """A reward as trl calls it, over the samples that the rows' ids name.

    Where a reward of one's own fails its value is NaN, which the trainer stops at, and `failures` says why.
    """

    def __init__(self, name: str, reward: Reward, samples: Mapping[str, Sample], form: AnswerForm) -> None:
        self.__name__ = name
        self._reward, self._samples, self._form = reward, samples, form
        self.failures: list[str] = []

    def __call__(self, completions: list[str], sample_id: list[str], **_: Any) -> list[float]:
        return [self._value(text, key) for text, key in zip(completions, sample_id, strict=True)]

    def _value(self, text: str, key: str) -> float:
        try:
            return self._reward(RewardInput.of(text, self._samples[key], self._form))
        except Timer1Error as error:
            self.failures.append(f"sample {key!r}: {error}")
            return math.nan


@common.frees_memory
def train_phase(
    plan: PhasePlan,
    samples: Mapping[str, Sample],
    encode: Encode,
    params: GrpoParams,
    shared: SharedParams,
    log_path: Path,
    rollouts_path: Path,
    read_ahead: feeding.ReadAhead | None = None,
) -> list[dict[str, Any]]:
    """Train one epoch into `plan.out_dir`; a killed one goes on from its last checkpoint.

    `log_path` and `rollouts_path` are JSONL of the whole training, in which rows of earlier epochs stay. Returns the log's.
    """
    from datasets import Dataset

    settings = {"ids": plan.ids, "start_from": Path(plan.start_from).name, "steps": plan.steps}
    work, checkpoint = common.begin(plan.out_dir.with_name(f"{plan.out_dir.name}.work"), settings)
    loaded = common.load_trained(plan.start_from, params, shared)
    loaded.model.config._name_or_path = local_folder(plan.reference)  # where trl reads the reference from
    rewards = parse_rewards(params.rewards)
    form = load(shared.form)
    before = team.agree([row for row in read_jsonl(log_path) if row["epoch"] <= plan.number] if log_path.is_file() else [])
    offset = before[-1]["step"] if before else 0
    epoch = plan.number + 1
    log = common.TrainingLog(log_path, f"GRPO epoch {epoch}", plan.steps, before, {"epoch": epoch})
    if team.first:
        _forget_rollouts(rollouts_path, offset + (common.step_of(checkpoint) if checkpoint else 0))
    groups = params.prompts_per_step * params.updates_per_rollout
    rows = list(islice(cycle(plan.ids), max(groups, len(plan.ids))))  # trl leaves out a batch that is not full
    trainer = VideoGRPOTrainer(
        loaded.model,
        [RewardFunction(name, reward, samples, form) for name, (reward, _) in rewards.items()],
        trainer_config(plan, params, shared, loaded, [weight for _, weight in rewards.values()], work),
        encode_prompt=lambda row: encode(loaded, samples[row["sample_id"]]),
        feature_cache=(cache := feature_cache(params, shared, loaded)),
        on_rollouts=_RolloutLog(rollouts_path, samples, form, params.log_rollouts_every, offset),
        train_dataset=Dataset.from_list([{"sample_id": name, "prompt": samples[name].query} for name in rows]),
        processing_class=loaded.processor,
        peft_config=common.lora_config(params.lora_rank, loaded.family),
        callbacks=[log, common.StopAfter(plan.steps), *([_Carry(plan.carry_from)] if plan.carry_from and not checkpoint else [])],
    )
    if trainer.ref_model is not None:
        trainer.ref_model.to(getattr(torch, shared.dtype))
        loaded.family.install_rule(trainer.ref_model, shared.clock_rule)
    common.prepare(trainer)
    trainer.shard = shared.parallel == "fsdp2"
    if read_ahead is not None:
        done, again = common.step_of(checkpoint) if checkpoint else 0, params.num_iterations
        whole = rows[: len(rows) // groups * groups]
        share = (team.rank, team.size)
        read_ahead(feeding.order_of_groups(whole, params.prompts_per_step, -(-plan.steps // again), done // again, share))
    common.train_on(trainer, checkpoint, plan.steps)
    logged = log.write(trainer.state.log_history)
    carried = work / f"checkpoint-{plan.steps}" if params.phase_policy == "carry" else None
    common.save_model(trainer, loaded.processor, plan.out_dir, work, plan.start_from, shared, carried)
    if cache is not None:
        sys.stdout.write(f"vision features: {cache.costs}\n")
    return logged


def trainer_config(
    plan: PhasePlan, params: GrpoParams, shared: SharedParams, loaded: LoadedModel, weights: list[float], work: Path
) -> VideoGRPOConfig:
    """trl's configuration from ours; what is not named here is trl's default."""
    unit = params.groups_per_forward or params.prompts_per_step
    share = params.prompts_per_step // team.size
    forward = math.gcd(share, unit)  # a rank's forward never reaches over the groups that one process takes together
    return VideoGRPOConfig(
        max_steps=plan.schedule_steps,
        per_device_train_batch_size=forward * params.num_generations,
        gradient_accumulation_steps=share // forward,
        steps_per_generation=share // forward * params.updates_per_rollout,
        groups_per_loss=unit,
        lr_scheduler_type=params.lr_schedule if params.lr_schedule != "constant" else "constant_with_warmup",
        entropy_coef=params.entropy_coefficient,
        model_init_kwargs=_reference_settings(params, shared),
        reward_weights=weights,
        banned_token_ids=banned_token_ids(loaded),
        shuffle_dataset=False,
        encode_threads=feeding.decoding_threads(shared),
        log_completions=False,
        **params.model_dump(include=SAME_IN_TRL),
        **common.trainer_settings(params, shared, loaded, work, between_saves=params.updates_per_rollout * params.num_iterations),
    )


def _reference_settings(params: GrpoParams, shared: SharedParams) -> dict[str, Any] | None:
    """How trl loads the reference, where it loads one: it only answers, so it is in the type of computation."""
    if params.beta == 0 or params.lora_rank:
        return None
    return {"dtype": getattr(torch, shared.dtype), "device_map": None, "use_safetensors": True}


def feature_cache(params: GrpoParams, shared: SharedParams, loaded: LoadedModel) -> FeatureCache | None:
    """The disk cache of the frozen tower's outputs, where it is asked for and possible.

    `auto` keeps none on a GPU: there the tower takes less than finding and reading what it made.
    """
    wanted = loaded.device.type == "cpu" if params.cache_features == "auto" else params.cache_features
    return FeatureCache(resolve(shared.cache_dir), disk_gb=shared.cache_gb) if wanted and params.freeze_vision else None


class _RolloutLog:
    """Keeps some steps' rollouts for inspection: completions, rewards and spans beside the truth."""

    def __init__(self, path: Path, samples: Mapping[str, Sample], form: AnswerForm, every: int, offset: int) -> None:
        self._path, self._samples, self._form, self._every, self._offset = path, samples, form, every, offset

    def __call__(self, step: int, rows: list[dict[str, Any]]) -> None:
        if step % self._every:
            return
        written = []
        for row in rows:
            sample = self._samples[row["id"]]
            form = self._form.of_sample(sample, grounded=True)
            spans = [form.span(text) for text in row["completions"]]
            windows = [list(window) for window in sample.windows]
            said: dict[str, Any] = {"gt": windows[0] if windows else None, "spans": [list(s) if s else None for s in spans]}
            if len(windows) > 1:
                said["windows"] = windows
            written.append({**row, "step": self._offset + step, **said})
        append_jsonl(self._path, written)


def _forget_rollouts(path: Path, step: int) -> None:
    """Drop the rollouts of `step` and later: a resumed training samples them again."""
    if path.is_file():
        atomic_write_jsonl(path, [row for row in read_jsonl(path, torn_tail=True) if row["step"] < step])


class _Carry(TrainerCallback):
    """Gives a phase the optimizer and the schedule of the phase before it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        load_optimizer(kwargs["optimizer"], self._folder)
        kwargs["lr_scheduler"].load_state_dict(torch.load(self._folder / "scheduler.pt", weights_only=True))
