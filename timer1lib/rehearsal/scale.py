"""What of a recipe a rehearsal changes, and why: each rule names a parameter, and leaves it where it is small already."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from timer1lib.data.selection import LENGTH_BANDS
from timer1lib.params.load import validated
from timer1lib.params.sections import Params
from timer1lib.params.trainer import STOCHASTIC

Change = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Changed:
    """A parameter that the rehearsal sets otherwise."""

    key: str
    before: Any
    after: Any
    why: str

    def __str__(self) -> str:
        return f"{self.key}: {_short(self.before)} -> {_short(self.after)} ({self.why})"


def at_most(limit: float) -> Change:
    return lambda value: type(value)(min(value, limit))


def once(limit: int) -> Change:
    """As `at_most`, for a number whose 0 means all there is."""
    return lambda value: min(value, limit) if value else limit


def become(new: Any) -> Change:
    return lambda value: new


FEW, STEPS, LITTLE = "a handful of rows", "a handful of optimizer steps", "so that minutes are enough"

RULES: tuple[tuple[str, Change, str], ...] = (
    ("shared.frames", at_most(8), "few visual tokens"),
    ("shared.workers", at_most(1), LITTLE),
    ("shared.cache_gb", at_most(1.0), "its own cache"),
    ("shared.processes", at_most(2), "ranks that share two cores"),
    ("curate.train_videos", at_most(6), FEW),
    ("curate.test_videos", at_most(3), FEW),
    ("curate.ood_videos", at_most(3), FEW),
    ("curate.questions", at_most(4), FEW),
    ("curate.train_questions", at_most(4), FEW),
    ("curate.queries_a_video", at_most(2), FEW),
    ("curate.cold_start_n", once(6), FEW),
    ("sft.samples", once(6), FEW),
    ("sft.steps", at_most(2), STEPS),
    ("sft.batch_size", at_most(2), LITTLE),
    ("sft.micro_batch_size", at_most(2), LITTLE),
    ("sft.lora_rank", at_most(4), "adapters of a tiny model"),
    ("sft.save_every", at_most(1), "so that saving is rehearsed"),
    ("difficulty.batch_size", at_most(4), LITTLE),
    ("difficulty.rollouts", at_most(2), LITTLE),
    ("grpo.epochs", at_most(2), "one that filters, and one that goes on from it"),
    ("grpo.steps_per_epoch", once(1), STEPS),
    ("grpo.updates_per_rollout", at_most(2), STEPS),
    ("grpo.num_generations", at_most(4), LITTLE),
    ("grpo.warmup_steps", at_most(1), STEPS),
    ("grpo.lora_rank", at_most(4), "adapters of a tiny model"),
    ("grpo.save_every", at_most(1), "so that saving is rehearsed"),
    ("grpo.log_rollouts_every", at_most(1), "so that 06 has groups to show"),
    ("evaluate.batch_size", at_most(4), LITTLE),
    ("evaluate.resamples", at_most(100), LITTLE),
    ("evaluate.perturb_samples", at_most(4), FEW),
    ("evaluate.shard", become(""), "one machine answers all"),
    ("inspect.rollout_groups", at_most(8), LITTLE),
    ("inspect.static_samples", at_most(1), LITTLE),
    ("compare.runs", become(""), "the rehearsal alone"),
    ("compare.resamples", at_most(100), LITTLE),
)


def scaled(params: Params, given: Mapping[str, tuple[Any, str]], answer_tokens: int, factor: int) -> tuple[Params, list[Changed]]:
    """A recipe at the size of a rehearsal, and every parameter that differs from it.

    Args:
        given: {parameter: (value, why)} of what the rehearsal itself made: model, files, folders.
        answer_tokens: what the stand-in's longest answer takes.
        factor: sides of its frames are multiples of this many pixels.
    """
    tree = params.model_dump()
    changed: list[Changed] = []

    def put(key: str, value: Any, why: str) -> None:
        section, _, name = key.partition(".")
        before = tree[section].get(name)
        if name in tree[section] and value != before:
            tree[section][name] = value
            changed.append(Changed(key, before, value, why))

    for key, (value, why) in given.items():
        put(key, value, why)
    for key, change, why in RULES:
        section, _, name = key.partition(".")
        if name in tree[section] and not _idle(params, key):
            put(key, change(tree[section][name]), why)
    shared, grpo = tree["shared"], tree["grpo"]
    cell = factor * factor
    put("shared.min_frame_pixels", min(shared["min_frame_pixels"], 4 * cell), "few visual tokens")
    put("shared.total_pixels", min(shared["total_pixels"], 4 * cell * max(1, shared["frames"] // 2)), "few visual tokens")
    answer = answer_tokens + 6
    for key in ("difficulty.max_new_tokens", "evaluate.max_new_tokens", "grpo.max_completion_length", "grpo.filter_tokens"):
        section, _, name = key.partition(".")
        if not _idle(params, key):
            put(key, min(tree[section][name], answer), "what the stand-in answers is short")
    if params.evaluate.grounded_questions:
        put(
            "evaluate.grounded_tokens", min(tree["evaluate"]["grounded_tokens"], 2 * answer), "what the stand-in answers is short"
        )
    if not _idle(params, "difficulty.n"):
        few = 2 * (len(LENGTH_BANDS) + 1) if params.difficulty.even else 4  # as many from each band of lengths
        put("difficulty.n", min(tree["difficulty"]["n"], few), FEW)
    if not _idle(params, "grpo.prompts_per_step"):
        put("grpo.groups_per_forward", min(grpo["groups_per_forward"], 2), LITTLE)
        put("grpo.prompts_per_step", min(grpo["prompts_per_step"], 2), LITTLE)
    if not _idle(params, "difficulty.low") and params.difficulty.difficulty_model != "published":
        put("difficulty.low", -1.0, "a stand-in's answers may miss every window")
        put("difficulty.high", 1.0, "or hit one by chance")
    for key, (value, why) in _what_this_machine_lacks(tree).items():
        put(key, value, why)
    return validated(Params, tree, "rehearsal"), changed


def _idle(params: Params, key: str) -> bool:
    """Whether nobody reads a parameter in this recipe, so that changing it would only be read about."""
    section, _, name = key.partition(".")
    world = name.endswith("_videos") or name in ("questions", "train_questions", "queries_a_video")
    if section == "curate":
        return (world and params.curate.source != "world") or (name == "cold_start_n" and params.curate.cold_start != "template")
    off = {"sft": not params.sft.enabled, "grpo": not params.grpo.enabled}
    return off.get(section, section == "difficulty" and not (params.difficulty.enabled and params.grpo.enabled))


def _what_this_machine_lacks(tree: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Parameters that a machine without a GPU, or without a package, cannot follow."""
    import torch

    found: dict[str, tuple[Any, str]] = {}
    if torch.cuda.is_available():
        return found
    if tree["shared"]["device"] == "cuda":
        found["shared.device"] = ("auto", "no GPU here")
    if tree["shared"]["attention"] == "flash_attention_2":
        found["shared.attention"] = ("sdpa", "no GPU here")
    for section in ("sft", "grpo"):
        if str(tree[section].get("weights")) in ("4bit", "8bit") and importlib.util.find_spec("bitsandbytes") is None:
            found[f"{section}.weights"] = ("auto", "bitsandbytes is not installed here")
        optim = str(tree[section].get("optim"))
        if optim in STOCHASTIC and importlib.util.find_spec("torchao") is None:
            found[f"{section}.optim"] = ("adamw_torch_fused", "torchao is not installed here")
            found[f"{section}.weights"] = ("auto", "and plain AdamW could not move narrower ones")
        elif "bnb" in optim or optim.startswith("paged"):
            found[f"{section}.optim"] = ("adamw_torch_fused", "bitsandbytes' optimizers want a GPU")
    return found


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"
