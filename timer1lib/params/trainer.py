"""What of transformers' and trl's own settings a person may write, checked without importing either.

`grpo.trl` and `sft.trl` are "key=value, ...": fields of trl's configuration classes, read from their source (importing
trl takes seconds). What the workbook decides itself is refused by name. Here too: optimizers by name, and the rule that
weights must be able to move.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from timer1lib.errors import Timer1Error, did_you_mean, shown
from timer1lib.extras import how_to_get
from timer1lib.params import split_list

Weights = Literal["auto", "float32", "bfloat16", "8bit", "4bit"]
QUANTISED = ("8bit", "4bit")

SLOWEST_BFLOAT16 = 2.0**-15
"""Learning rate below which AdamW cannot move most bfloat16 weights: about 3.1e-5.

A step of AdamW (arXiv 1711.05101) moves a weight by about the learning rate. bfloat16 has 8 significant bits: neighbours of
a weight in [2^e, 2^(e+1)) are 2^(e-7) apart, and a step below half of that, 2^(e-8), rounds to nothing. Half of the
weights of a model initialised with std 0.02 are above 0.0135 in size, where e = -7 or more.
"""
STOCHASTIC = ("adamw_torch_8bit", "adamw_torch_4bit")
"""Optimizers (torchao's) that round stochastically where `optim_args` says bf16_stochastic_round=True."""

REPORTERS = {
    "tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow", "comet_ml": "comet_ml",
    "clearml": "clearml", "swanlab": "swanlab", "neptune": "neptune", "codecarbon": "codecarbon",
}  # fmt: skip
"""What transformers can report to: name and the package that it needs."""

CONFIGS = {"grpo": ("trl/trainer/grpo_config.py", "GRPOConfig"), "sft": ("trl/trainer/sft_config.py", "SFTConfig")}
_BASES = {"_BaseConfig": "trl/trainer/base_config.py", "TrainingArguments": "transformers/training_args.py"}

_OURS: dict[str, str] = {
    "seed|data_seed|full_determinism": "shared.seed",
    "bf16|fp16|tf32|bf16_full_eval|fp16_full_eval": "shared.dtype and SECTION.weights",
    "use_cpu|no_cuda": "shared.device",
    "fsdp.*|deepspeed|parallelism_config|ddp_.*|accelerator_config|local_rank": "shared.parallel",
    "report_to|run_name|project|trackio_.*": "shared.report_to (its own variables, such as WANDB_PROJECT, name the rest)",
    "lr_scheduler_type": "SECTION.lr_schedule (sft.schedule)",
    "warmup_ratio": "SECTION.warmup_steps (sft.warmup_share)",
    "max_steps|num_train_epochs": "sft.steps, or grpo.epochs and grpo.steps_per_epoch",
    "per_device_train_batch_size|gradient_accumulation_steps|generation_batch_size|auto_find_batch_size|train_sampling_strategy":
    "sft.batch_size and sft.micro_batch_size, or grpo.prompts_per_step and grpo.groups_per_forward",
    "steps_per_generation": "grpo.updates_per_rollout",
    "reward_weights": "grpo.rewards",
    "entropy_coef": "grpo.entropy_coefficient",
    "save_.*": "SECTION.save_every",
    "sync_ref_model|ref_model_.*|use_adaptive_entropy|entropy_coef_.*|entropy_target":
    "nothing: its state is in no checkpoint, so that a run that goes on after a kill would be another one",
    "eval_.*|do_.*|per_device_eval_batch_size|num_generations_eval|prediction_loss_only|load_best_model_at_end|metric_for_.*|greater_is_.*"
    "|batch_eval_metrics|include_.*|label_names": "nothing: 05_evaluate asks the checkpoints",
    "push_to_hub.*|hub_.*|log_completions_hub_repo": "nothing: a training uploads nothing",
    "logging_.*|log_.*|disable_tqdm|num_completions_to_print": "nothing: every step is in logs/, rollouts in logs/rollouts.jsonl",
    "output_dir|resume_from_checkpoint|restore_callback_.*|ignore_data_skip|enable_jit_checkpoint":
    "nothing: the run's folder is the workbook's",
    "remove_unused_columns|dataloader_.*|dataset_.*|shuffle_dataset|max_length|packing.*|padding_free|eval_packing|pad_to_multiple_of"
    "|completion_only_loss|assistant_only_loss|truncation_mode|eos_token|pad_token|chat_template.*|group_by_length|length_column_name":
    "nothing: which samples are seen, in which order and how they are encoded is the workbook's",
    "generation_kwargs|cache_implementation|use_vllm|vllm_.*|use_transformers_.*|transformers_.*|max_tool_calling_iterations":
    "nothing: rollouts are sampled by the workbook with the model that is trained",
    "model_init_kwargs|trust_remote_code|router_aux_loss_coef|use_liger_kernel|liger_kernel_config|torch_compile.*|neftune_.*"
    "|activation_offloading|cast_lm_head_to_fp32|gradient_checkpointing_kwargs": "nothing: it does not go with the video trainer",
}  # fmt: skip
"""Patterns of what the workbook decides, and which parameter says it."""

_CHOICES = {
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
}


def parse_trl(text: str, section: Literal["sft", "grpo"], own: Collection[str]) -> dict[str, Any]:
    """`"top_p=0.9, delta=4"` -> `{"top_p": 0.9, "delta": 4.0}`: arguments of trl's configuration class.

    Args:
        own: the section's parameters, which say what they say.

    Raises:
        Timer1Error: an unknown key (with the nearest right one), a wrong type, or a key that the workbook decides.
    """
    found: dict[str, Any] = {}
    fields = config_fields(section) if split_list(text) else {}
    for part in split_list(text):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key:
            raise Timer1Error(f"{section}.trl {shown(part)}: write it as key=value, key=value")
        if key in found:
            raise Timer1Error(f"{section}.trl: {key} stands twice")
        if key in own:
            raise Timer1Error(f"{section}.trl: {key} is a parameter here: set {section}.{key}")
        instead = next((said for pattern, said in _OURS.items() if re.fullmatch(pattern, key)), None)
        if instead and (key in fields or key in ("no_cuda", "warmup_ratio")):
            raise Timer1Error(f"{section}.trl: {key} is the workbook's; in its place: {instead.replace('SECTION', section)}")
        if key not in fields:
            hint = did_you_mean(key, fields)
            raise Timer1Error(f"{section}.trl: trl's {CONFIGS[section][1]} has no {shown(key)}{f'; {hint}' if hint else ''}")
        found[key] = _value(f"{section}.trl: {key}", value, fields[key])
        if key in _CHOICES and found[key] not in _CHOICES[key]:
            raise Timer1Error(f"{section}.trl: {key} {shown(value)}: one of {', '.join(_CHOICES[key])}")
    return found


def _value(where: str, text: str, annotation: str) -> Any:
    """A text as the type that a field's annotation names."""
    kinds = set(re.findall(r"\w+", annotation))
    if text.lower() in ("none", "null") and "None" in kinds:
        return None
    if "bool" in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind, read in (("int", int), ("float", float)):
        if kind in kinds:
            try:
                return read(text)
            except ValueError:
                continue
    if "str" in kinds and not kinds & {"dict", "list"}:
        return text
    wanted = annotation.replace(" | None", "")
    raise Timer1Error(f"{where}: {shown(text)} is no {wanted}" if not kinds & {"dict", "list"} else f"{where}: takes a {wanted}, "
                      "which cannot be written here")  # fmt: skip


@lru_cache
def config_fields(section: str) -> dict[str, str]:
    """Fields of trl's configuration class with their annotations, its base classes' included."""
    file, name = CONFIGS[section]
    fields: dict[str, str] = {}
    while file:
        found, bases = _class(file, name)
        fields = {**found, **fields}
        name = next((base for base in bases if base in _BASES), "")
        file = _BASES.get(name, "")
    return fields


@lru_cache
def optimizer_names() -> tuple[str, ...]:
    """Names that transformers knows optimizers by."""
    tree = ast.parse(_file("transformers/training_args.py").read_text(encoding="utf-8"))
    names = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "OptimizerNames")
    values = [node.value for node in names.body if isinstance(node, ast.Assign)]
    return tuple(str(value.value) for value in values if isinstance(value, ast.Constant))


def _class(file: str, name: str) -> tuple[dict[str, str], list[str]]:
    tree = ast.parse(_file(file).read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    fields = {
        node.target.id: ast.unparse(node.annotation)
        for node in found.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    return fields, [base.id for base in found.bases if isinstance(base, ast.Name)]


def _file(path: str) -> Path:
    package, _, rest = path.partition("/")
    spec = importlib.util.find_spec(package)  # does not run the package
    if spec is None or not spec.submodule_search_locations:
        raise Timer1Error(f"{package} is not installed; its arguments cannot be checked: {how_to_get(package)}")
    return Path(spec.submodule_search_locations[0]) / rest


def check_optimizer(name: str) -> None:
    """A Timer1Error for a name that transformers does not know."""
    if name not in ("adamw_torch", "adamw_torch_fused") and name not in optimizer_names():
        hint = did_you_mean(name, optimizer_names(), cutoff=0.5)
        raise Timer1Error(f"transformers has no optimizer {shown(name)}{f'; {hint}' if hint else ''}")


def optimizer_arguments(text: str) -> dict[str, str]:
    """`"block_size=128, ..."` as transformers reads it; a Timer1Error for what is not key=value."""
    pairs = [part.partition("=") for part in split_list(text)]
    for key, equals, value in pairs:
        if not (key.strip() and equals and value.strip()):
            raise Timer1Error(f"optim_args {shown(key)}: write them as key=value, key=value")
    return {key.strip(): value.strip() for key, _, value in pairs}


def packages_needed(weights: Weights, optim: str, report_to: str) -> dict[str, str]:
    """Packages that are not among the project's own: what needs them, by name."""
    needed = {REPORTERS[name]: f"report_to {name}" for name in split_list(report_to)}
    if weights in QUANTISED:
        needed["bitsandbytes"] = f"weights {weights}"
    if optim in STOCHASTIC:
        needed["torchao"] = f"optim {optim}"
    elif re.search("8bit|bnb|paged|lion|ademamix", optim) and "galore" not in optim:
        needed["bitsandbytes"] = f"optim {optim}"
    return needed


def check_weights(weights: Weights, lora_rank: int, optim: str, optim_args: str, learning_rate: float) -> None:
    """Refuse what cannot learn.

    Raises:
        ValueError: quantised weights without adapters, and bfloat16 weights under an optimizer and a rate that rounding
            eats (`SLOWEST_BFLOAT16`).
    """
    if lora_rank:
        return
    if weights in QUANTISED:
        raise ValueError(f"weights {weights}: quantised weights do not train themselves; set lora_rank (QLoRA)")
    rounds = optimizer_arguments(optim_args).get("bf16_stochastic_round", "").lower() in ("true", "1", "yes")
    if weights == "bfloat16" and learning_rate < SLOWEST_BFLOAT16 and not (rounds and optim in STOCHASTIC):
        raise ValueError(
            f"weights bfloat16 with {optim} at learning_rate {learning_rate:g}: a step below half the distance of most weights "
            f"to their neighbours ({SLOWEST_BFLOAT16:.1e}) rounds to nothing; leave weights at auto (float32), or set "
            "optim: adamw_torch_8bit with optim_args: bf16_stochastic_round=True"
        )


def weights_dtype(weights: Weights, lora_rank: int, dtype: str) -> str:
    """The number type that trained weights are kept in: of the base under LoRA, with or without quantised layers."""
    if weights in ("float32", "bfloat16"):
        return weights
    return dtype if lora_rank or dtype == "float64" else "float32"
