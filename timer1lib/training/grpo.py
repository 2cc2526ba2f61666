"""One phase of reinforcement learning: a model, some samples, rewards, and the video trainer."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from timer1lib.files import append_jsonl, atomic_write_jsonl, read_jsonl, resolve
from timer1lib.forms import AnswerForm, load
from timer1lib.models.features import FeatureCache
from timer1lib.models.inputs import banned_token_ids
from timer1lib.models.load import LoadedModel, load_shared
from timer1lib.params.sections import GrpoParams, SharedParams
from timer1lib.rewards import REWARDS, RewardInput, parse_rewards
from timer1lib.schema import Sample
from timer1lib.training import common
from timer1lib.training.outer_loop import PhasePlan
from timer1lib.training.video_grpo import VideoGRPOConfig
from timer1lib.training.video_grpo.trainer import VideoGRPOTrainer

Encode = Callable[[LoadedModel, Sample], dict[str, torch.Tensor]]

SAME_IN_TRL = {
    *("num_generations", "max_completion_length", "temperature", "warmup_steps", "beta", "epsilon", "epsilon_high"),
    *("loss_type", "scale_rewards", "dynamic_sampling", "scoring", "rollouts"),
}


def reward_function(name: str, samples: Mapping[str, Sample], form: AnswerForm) -> Callable[..., list[float]]:
    """A reward as trl calls it, over the samples that the rows' ids name."""
    reward = REWARDS[name]

    def scored(completions: list[str], sample_id: list[str], **_: Any) -> list[float]:
        return [reward(reward_input(text, samples[key], form)) for text, key in zip(completions, sample_id, strict=True)]

    scored.__name__ = name
    return scored


def reward_input(text: str, sample: Sample, form: AnswerForm) -> RewardInput:
    """What the rewards of a completion look at; questions that are trained on are asked for their time span too."""
    options = tuple(sample.options) if sample.options is not None else None
    asked = form.of_sample(sample, grounded=True)
    return RewardInput(text, tuple(sample.windows), sample.duration or 0.0, asked, options, sample.answer)


@common.frees_memory
def train_phase(
    plan: PhasePlan,
    samples: Mapping[str, Sample],
    encode: Encode,
    params: GrpoParams,
    shared: SharedParams,
    log_path: Path,
    rollouts_path: Path,
    read_ahead: common.ReadAhead | None = None,
) -> list[dict[str, Any]]:
    """Train one epoch into `plan.out_dir`; a killed one goes on from its last checkpoint.

    `log_path` and `rollouts_path` are JSONL of the whole training, in which rows of earlier epochs stay. Returns the log's.
    """
    from datasets import Dataset

    settings = {"ids": plan.ids, "start_from": Path(plan.start_from).name, "steps": plan.steps}
    work = common.open_work_folder(plan.out_dir.with_name(f"{plan.out_dir.name}.work"), settings)
    checkpoint = common.resume_point(work)
    loaded = load_shared(plan.start_from, shared)
    if params.freeze_vision:
        common.freeze_vision_tower(loaded.model)
    loaded.model.config._name_or_path = str(resolve(plan.reference))  # where trl reads the reference from
    weights = parse_rewards(params.rewards)
    form = load(shared.form)
    before = [row for row in read_jsonl(log_path) if row["epoch"] <= plan.number] if log_path.is_file() else []
    offset = before[-1]["step"] if before else 0
    epoch = plan.number + 1
    log = common.TrainingLog(log_path, f"GRPO epoch {epoch}", plan.steps, before, {"epoch": epoch})
    _forget_rollouts(rollouts_path, offset + (common.step_of(checkpoint) if checkpoint else 0))
    trainer = VideoGRPOTrainer(
        loaded.model,
        [reward_function(name, samples, form) for name in weights],
        trainer_config(plan, params, shared, loaded, list(weights.values()), work),
        encode_prompt=lambda row: encode(loaded, samples[row["sample_id"]]),
        feature_cache=(cache := feature_cache(params, shared, loaded)),
        on_rollouts=_RolloutLog(rollouts_path, samples, form, params.log_rollouts_every, offset),
        train_dataset=Dataset.from_list([{"sample_id": name, "prompt": samples[name].query} for name in plan.ids]),
        processing_class=loaded.processor,
        peft_config=common.lora_config(params.lora_rank, loaded.family),
        callbacks=[log, common.StopAfter(plan.steps), *([_Carry(plan.carry_from)] if plan.carry_from and not checkpoint else [])],
    )
    if trainer.ref_model is not None:
        trainer.ref_model.to(loaded.model.dtype)
        loaded.family.install_rule(trainer.ref_model, shared.clock_rule)
    if read_ahead is not None:
        share = (trainer.accelerator.process_index, trainer.accelerator.num_processes)
        done = common.step_of(checkpoint) if checkpoint else 0
        read_ahead(common.order_of_groups(plan.ids, params.prompts_per_step, plan.steps, done, share))
    common.train_on(trainer, checkpoint, plan.steps)
    rows = log.write(trainer.state.log_history)
    carried = work / f"checkpoint-{plan.steps}" if params.phase_policy == "carry" else None
    common.save_model(trainer.accelerator.unwrap_model(trainer.model), loaded.processor, plan.out_dir, carried)
    shutil.rmtree(work)
    if cache is not None:
        sys.stdout.write(f"vision features: {cache.costs}\n")
    return rows


def trainer_config(
    plan: PhasePlan, params: GrpoParams, shared: SharedParams, loaded: LoadedModel, weights: list[float], work: Path
) -> VideoGRPOConfig:
    """trl's configuration from ours; what is not named here is trl's default."""
    forward = params.groups_per_forward or params.prompts_per_step
    return VideoGRPOConfig(
        max_steps=plan.schedule_steps,
        per_device_train_batch_size=forward * params.num_generations,
        gradient_accumulation_steps=params.prompts_per_step // forward,
        steps_per_generation=params.prompts_per_step // forward,
        num_iterations=1,
        lr_scheduler_type=params.lr_schedule if params.lr_schedule != "constant" else "constant_with_warmup",
        entropy_coef=params.entropy_coefficient,
        mask_truncated_completions=False,
        reward_weights=weights,
        banned_token_ids=banned_token_ids(loaded),
        shuffle_dataset=False,
        encode_threads=common.decoding_threads(shared),
        log_completions=False,
        **params.model_dump(include=SAME_IN_TRL),
        **common.trainer_settings(params, shared, loaded, work),
    )


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
        kwargs["optimizer"].load_state_dict(torch.load(self._folder / "optimizer.pt", weights_only=True))
        kwargs["lr_scheduler"].load_state_dict(torch.load(self._folder / "scheduler.pt", weights_only=True))
