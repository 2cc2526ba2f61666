"""What SFT and GRPO share: which weights train, adapters, how a finished model is kept, and the training log."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, atomic_write_jsonl
from timer1lib.models.fast_vision import vision_tower
from timer1lib.progress import Progress

SETTINGS = "settings.json"

# trl 1.16 uses the old name of a setting that transformers 5.23 renames; nothing a user can mend
warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)


def freeze_vision_tower(model: Any) -> None:
    """Freeze the vision tower but for its mergers, which belong to the language side (Time-R1 trains merger + LLM)."""
    tower = vision_tower(model)
    for name, parameter in tower.named_parameters():
        parameter.requires_grad_("merger" in name)


def lora_config(rank: int) -> Any:
    """LoRA on every linear layer of the text model, alpha twice the rank; None for rank 0."""
    if rank == 0:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
        task_type="CAUSAL_LM",
    )


def save_model(model: Any, processor: Any, folder: Path) -> None:
    """Keep a model, adapters merged into it, with its processor as an ordinary folder that appears only when complete."""
    merged = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    temporary = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    merged.save_pretrained(temporary)
    processor.save_pretrained(temporary)
    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary.rename(folder)


def open_work_folder(folder: Path, settings: dict[str, Any]) -> Path:
    """A folder for checkpoints that belong to these settings; what other settings left there is removed."""
    path = folder / SETTINGS
    wanted = json.loads(json.dumps(settings))
    if folder.is_dir() and (not path.is_file() or json.loads(path.read_text()) != wanted):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_json(path, wanted)
    return folder


class TrainingLog(TrainerCallback):
    """Writes every logged step to a JSONL file and shows progress.

    The file is rewritten from the trainer's own history, which a resumed run restores, so that it has each step once.

    Args:
        path: JSONL.
        label: what progress calls this training.
        total: steps of this training.
        before: rows of earlier phases, kept in front; their last step is where this phase's steps go on.
        extra: fields added to every row.
        shown: keys that progress shows.
    """

    def __init__(
        self,
        path: Path,
        label: str,
        total: int,
        *,
        before: list[dict[str, Any]] | None = None,
        extra: dict[str, Any] | None = None,
        shown: tuple[str, ...] = ("loss",),
    ) -> None:
        self._path, self._label, self._total, self._shown = path, label, total, shown
        self._before, self._extra = before or [], extra or {}
        self._offset = self._before[-1]["step"] if self._before else 0
        self._progress: Progress | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress = Progress(self._label, self._total, done=min(state.global_step, self._total))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._progress is not None:
            last = state.log_history[-1] if state.log_history else {}
            numbers: dict[str, Any] = {key.split("/")[-1]: float(last[key]) for key in self._shown if key in last}
            self._progress.update(**numbers)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.write(state.log_history)

    def write(self, history: list[dict[str, Any]]) -> None:
        atomic_write_jsonl(self._path, self.rows(history))

    def rows(self, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows of the log: a step each, counted over all phases, numbers only."""
        own = []
        for entry in history:
            if "loss" not in entry:
                continue  # the summary at the end of a training
            numbers = {k: v for k, v in entry.items() if isinstance(v, (int, float)) and v == v and k not in ("step", "epoch")}
            own.append({"step": self._offset + int(entry["step"]), **self._extra, **numbers})
        return self._before + own


class StopAfter(TrainerCallback):
    """Ends a training after some steps of a longer learning-rate schedule."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= self._steps:
            control.should_training_stop = True
            control.should_save = True


def precision(dtype: str) -> dict[str, Any]:
    """The trainer's own flags for a number type: weights are loaded in it already, so no autocast on top."""
    if dtype not in ("float32", "bfloat16", "float64"):
        raise Timer1Error(f"dtype {dtype!r}: use float32, bfloat16 or float64")
    return {"bf16": dtype == "bfloat16", "fp16": False}


def no_printing(trainer: Any) -> None:
    """Progress is shown by `TrainingLog`; the trainer's own printing of log rows would double it."""
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
