"""What SFT and GRPO share: which weights train, adapters, checkpoints and going on after a kill, the training log."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from accelerate.utils import AutocastKwargs
from torch import nn
from transformers import PrinterCallback, TrainerCallback, TrainerState

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_jsonl, open_work_folder, read_json
from timer1lib.models.config import family_of_model
from timer1lib.models.family import Family
from timer1lib.models.load import LoadedModel, load_shared
from timer1lib.params import split_list
from timer1lib.params.sections import GrpoParams, SftParams, SharedParams
from timer1lib.params.trainer import QUANTISED, optimizer_arguments, parse_trl, weights_dtype
from timer1lib.progress import Progress
from timer1lib.training.parallel import is_sharded, whole_weights
from timer1lib.workers.team import team

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
Row = dict[str, Any]
OPTIMIZER = ("optimizer.pt", "scheduler.pt")

# trl 1.16 uses the old name of a setting that transformers 5.23 renames; nothing a user can mend
warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)


def load_trained(name: str | Path, params: SftParams | GrpoParams, shared: SharedParams) -> LoadedModel:
    """The model that a training starts from: weights in their own type, what does not train frozen, in `shared.dtype`."""
    quantised = params.weights if params.weights in QUANTISED else ""
    loaded = load_shared(name, shared, dtype=weights_dtype(params.weights, params.lora_rank, shared.dtype), quantised=quantised)
    if params.freeze_vision:
        freeze_vision_tower(loaded.model, getattr(torch, shared.dtype), params.freeze_early)
    return loaded


def freeze_vision_tower(model: Any, dtype: torch.dtype | None = None, last_only: bool = False) -> None:
    """Freeze the vision tower but for its mergers, which belong to the language side (Time-R1 trains merger + LLM).

    What is frozen needs no masters: it is kept in `dtype`, as in the reference, so that one pass serves both.
    `last_only` freezes all mergers but the last layer's, as TimeLens' `configure_vision_tower` does.
    """
    family = family_of_model(model)
    tower = family.tower(model)
    tower.requires_grad_(False)
    for part in family.mergers(tower)[: 1 if last_only else None]:
        part.requires_grad_(True)
    for parameter in tower.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


class Autocast(AutocastKwargs):  # type: ignore[misc]
    """Options of autocast, whose cache is on or off.

    accelerate finds out what differs from its defaults by emptying this process's environment for a moment, three times a step.
    Threads that encode read it meanwhile (the tokenizer, FFmpeg), and a `getenv` in the middle of that is a segmentation fault.
    """

    def to_kwargs(self) -> dict[str, Any]:
        return {"cache_enabled": self.cache_enabled}


def prepare(trainer: Any) -> None:
    """What a trainer needs before it trains.

    trl gives adapters of a quantised base bfloat16, where small steps round to nothing: they keep float32. And autocast would
    keep a copy of every weight through a forward, each of which is used once.
    """
    trainer.accelerator.autocast_handler = Autocast(cache_enabled=False)
    if hasattr(trainer.model, "peft_config"):
        for parameter in trainer.model.parameters():
            if parameter.requires_grad and parameter.dtype == torch.bfloat16:
                parameter.data = parameter.data.float()


def merged(model: Any, start_from: str | Path, shared: SharedParams, state: dict[str, Any] | None = None) -> Any:
    """A trained model without its adapters. `state`: its whole weights, where the model itself holds only a share of them.

    Into a base of few bits, small changes would round away as they are added: they are added to the base's own weights,
    read anew in float32 on the CPU.
    """
    if not hasattr(model, "merge_and_unload"):
        return model
    base = model.get_base_model()
    if state is None and not getattr(base, "is_quantized", False) and torch.finfo(base.dtype).bits >= 32:
        return model.merge_and_unload()
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    fresh = load_shared(start_from, shared, dtype="float32", device="cpu").model
    wrapped = get_peft_model(fresh, model.peft_config["default"])
    adapters = get_peft_model_state_dict(model, state_dict=state)
    set_peft_model_state_dict(wrapped, {name: value.cpu() for name, value in adapters.items()})
    return wrapped.merge_and_unload()


def lora_config(rank: int, family: Family) -> Any:
    """LoRA on every linear layer of the text model, alpha twice the rank; None for rank 0."""
    if rank == 0:
        return None
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=family.lora_targets, task_type="CAUSAL_LM")


def train_on(trainer: Any, checkpoint: Path | None, steps: int) -> None:
    """Train to `steps`, from a checkpoint where there is one; a checkpoint that is there already is taken as it stands.

    `Trainer` looks whether it is finished after a step only, and so takes one too many from such a checkpoint. Its own
    printing of log rows would double `TrainingLog`'s progress.
    """
    trainer.remove_callback(PrinterCallback)
    if checkpoint is not None and hasattr(trainer, "_total_train_tokens"):
        # trl's SFT counts the tokens that it has seen, and from nothing again after a resume
        history = read_json(checkpoint / "trainer_state.json")["log_history"]
        trainer._total_train_tokens = max((row["num_tokens"] for row in history if "num_tokens" in row), default=0)
    if checkpoint is None or step_of(checkpoint) < steps:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return
    trainer._load_from_checkpoint(str(checkpoint))
    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))


def save_model(
    trainer: Any, processor: Any, folder: Path, work: Path, start_from: str, shared: SharedParams, carried: Path | None = None
) -> None:
    """Keep a trained model, adapters merged into it, in the types that it has, with its processor as an ordinary folder.

    It appears only when complete.

    Of several ranks the first one writes, and takes the work folder away. Optimizer and learning-rate schedule of the
    checkpoint `carried` are kept beside the model. `start_from`: the model that the training started from.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    state = whole_weights(model) if is_sharded(model) else None
    if trainer.is_deepspeed_enabled:
        state = trainer.accelerator.get_state_dict(trainer.deepspeed)
    if team.first:
        trained = merged(model, start_from, shared, state)
        _save(trained, state if trained is model else None, processor, folder, carried)
        shutil.rmtree(work)
    team.wait()


def _save(model: Any, state: dict[str, Any] | None, processor: Any, folder: Path, optimizer_from: Path | None) -> None:
    temporary = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary, state_dict=state)
    processor.save_pretrained(temporary)
    if optimizer_from is not None:
        for name in OPTIMIZER:
            shutil.copyfile(optimizer_from / name, temporary / name)
    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary.rename(folder)


def begin(folder: Path, settings: dict[str, Any]) -> tuple[Path, Path | None]:
    """The work folder of a training (`files.open_work_folder`) and the checkpoint to go on from, the same on all ranks."""
    if team.first:
        open_work_folder(folder, settings)
    return folder, team.agree(resume_point(folder) if team.first else None)


def resume_point(output_dir: str | Path) -> Path | None:
    """The newest complete `checkpoint-N` in `output_dir`, or None where there is none.

    A checkpoint that a kill left half written is passed over, with a warning that says what is wrong with it. How many
    ranks wrote it does not matter: weights and optimizer are whole, and nothing that is drawn depends on a rank.
    """
    folders = [folder for folder in Path(output_dir).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", folder.name)]
    for folder in sorted(folders, key=step_of, reverse=True):
        try:
            _check(folder)
            return folder
        except Exception as error:
            logger.warning("%s is passed over: %s", folder, " ".join(str(error).split())[:200])
    return None


def step_of(checkpoint: Path) -> int:
    """Steps that a `checkpoint-N` has behind it."""
    return int(checkpoint.name.rpartition("-")[2])


def _check(folder: Path) -> None:
    """Read what a checkpoint must have; whatever is raised says what is wrong with it."""
    from safetensors import safe_open

    drawn = sorted(folder.glob("rng_state*.pth"))
    for name in ("trainer_state.json", *OPTIMIZER, drawn[0].name if drawn else "rng_state.pth"):
        if not (folder / name).is_file():
            raise Timer1Error(f"no {name}")
    if (step := read_json(folder / "trainer_state.json")["global_step"]) != step_of(folder):
        raise Timer1Error(f"its state is of step {step}")
    with contextlib.suppress(ImportError):
        import torchao.optim  # noqa: F401  # its moments are tensors of its own, which torch reads once it knows them
    for name in OPTIMIZER:
        torch.load(folder / name, map_location="cpu", weights_only=True, mmap=True)
    for path in drawn:
        with zipfile.ZipFile(path) as archive:  # holds more than tensors: only whether it is whole
            if archive.testzip():
                raise Timer1Error(f"{path.name} is damaged")
    weights = {file.name for file in folder.glob("*.safetensors")}
    index = folder / "model.safetensors.index.json"
    parts = set(read_json(index)["weight_map"].values()) if index.is_file() else weights
    if not weights or (missing := sorted(parts - weights)):
        raise Timer1Error(f"no {missing[0]}" if weights else "no weights")
    for name in weights:
        with safe_open(folder / name, framework="pt") as tensors:
            tensors.keys()


@torch.no_grad()
def load_weights(model: nn.Module, checkpoint: str | Path) -> None:
    """Give `model` the checkpoint's weights, every one of them.

    `Trainer` loads a checkpoint by the names in its file and only warns where they are not the model's. A
    checkpoint may be saved under other names than the modules have (for Qwen2.5-VL 1 of 81 keys agrees), so that a run
    would go on from its base weights. `from_pretrained` knows the renaming. A missing weight raises a RuntimeError.
    """
    widest = max((p.dtype for p in model.parameters()), key=lambda dtype: dtype.itemsize)  # a frozen tower's is narrower
    fresh: Any = type(model).from_pretrained(str(checkpoint), dtype=widest)  # type: ignore[attr-defined]
    model.load_state_dict(fresh.state_dict(), strict=True)


class TrainingLog(TrainerCallback):
    """Writes every logged step to a JSONL file and shows progress over `total` steps.

    The file is rewritten from the trainer's own history, which a resumed run restores, so that it has each step once.

    Args:
        before: rows of earlier phases, kept in front; their last step is where this phase's steps go on.
        extra: fields added to every row.
    """

    def __init__(self, path: Path, label: str, total: int, before: Sequence[Row] = (), extra: Row | None = None) -> None:
        self._path, self._label, self._total = path, label, total
        self._before, self._extra = list(before), extra or {}
        self._offset = self._before[-1]["step"] if self._before else 0
        self._progress: Progress | None = None
        # where TensorBoard's own callback writes, if it is asked for: its default is the work folder, which goes
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(path.with_suffix(".tensorboard")))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress = Progress(self._label, self._total, done=min(state.global_step, self._total))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._progress is not None:
            last = state.log_history[-1] if state.log_history else {}
            shown: dict[str, Any] = {key: float(last[key]) for key in ("reward", "loss") if key in last}
            self._progress.update(**shown)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.write(state.log_history)

    def write(self, history: list[Row]) -> list[Row]:
        """Write the rows of the log: a step each, counted over all phases, numbers only."""
        rows = list(self._before)
        for row in history:
            if "loss" in row:  # not the summary at the end of a training
                numbers = {k: v for k, v in row.items() if isinstance(v, int | float) and v == v and k not in ("step", "epoch")}
                rows.append({"step": self._offset + int(row["step"]), **self._extra, **numbers})
        if team.first:
            atomic_write_jsonl(self._path, rows)
        return rows


class StopAfter(TrainerCallback):
    """Ends a training after some steps of a longer learning-rate schedule."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= self._steps:
            control.should_training_stop = True
            control.should_save = True


def trainer_settings(
    params: SftParams | GrpoParams, shared: SharedParams, loaded: LoadedModel, work: Path, between_saves: int = 1
) -> dict[str, Any]:
    """What SFT and GRPO tell transformers' Trainer alike.

    Args:
        between_saves: steps whose multiples checkpoints fall on: rollouts are in no checkpoint, so that a training goes on
            where the next ones are sampled.
    """
    return {
        **params.model_dump(include={"learning_rate", "weight_decay", "max_grad_norm", "gradient_checkpointing"}),
        "output_dir": str(work),
        "logging_steps": 1,
        "save_steps": -(-params.save_every // between_saves) * between_saves,
        "save_total_limit": 2,
        "seed": shared.seed,
        "data_seed": shared.seed,
        "use_cpu": loaded.device.type == "cpu",
        "bf16": shared.dtype == "bfloat16",
        "fp16": False,
        "report_to": split_list(shared.report_to) or "none",
        "optim": params.optim,
        "optim_args": ",".join(f"{key}={value}" for key, value in optimizer_arguments(params.optim_args).items()) or None,
        **parse_trl(params.trl, "sft" if isinstance(params, SftParams) else "grpo", type(params).model_fields),
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
    }


def frees_memory(train: Callable[P, R]) -> Callable[P, R]:
    """`train`, after which nothing of it stays: trl's trainer and its model hold each other until garbage is collected."""

    @functools.wraps(train)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return train(*args, **kwargs)
        finally:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    return wrapped
