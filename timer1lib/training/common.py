"""What SFT and GRPO share: which weights train, adapters, checkpoints and going on after a kill, the training log."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import logging
import re
import shutil
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

import torch
from torch import nn
from transformers import PrinterCallback, TrainerCallback, TrainerState

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, atomic_write_jsonl, read_json
from timer1lib.models.config import family_of_model, sampling_for
from timer1lib.models.family import Family
from timer1lib.models.inputs import encode_prompt, sample_prompt
from timer1lib.params.sections import GrpoParams, SftParams, SharedParams
from timer1lib.progress import Progress
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Sample
from timer1lib.video.store import AHEAD, open_store

if TYPE_CHECKING:
    from timer1lib.models.load import LoadedModel

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
Row = dict[str, Any]
ReadAhead = Callable[[Sequence[str]], None]
"""Told the ids of the samples that will be asked for, in the order of need."""
SETTINGS = "settings.json"
OPTIMIZER = ("optimizer.pt", "scheduler.pt")

# trl 1.16 uses the old name of a setting that transformers 5.23 renames; nothing a user can mend
warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)


def freeze_vision_tower(model: Any) -> None:
    """Freeze the vision tower but for its mergers, which belong to the language side (Time-R1 trains merger + LLM)."""
    family = family_of_model(model)
    tower = family.tower(model)
    tower.requires_grad_(False)
    for part in family.mergers(tower):
        part.requires_grad_(True)


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


def save_model(model: Any, processor: Any, folder: Path, optimizer_from: Path | None = None) -> None:
    """Keep a model, adapters merged into it, with its processor as an ordinary folder that appears only when complete.

    Optimizer and learning-rate schedule of the checkpoint `optimizer_from` are kept beside it.
    """
    merged = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    temporary = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    merged.save_pretrained(temporary)
    processor.save_pretrained(temporary)
    if optimizer_from is not None:
        for name in OPTIMIZER:
            shutil.copyfile(optimizer_from / name, temporary / name)
    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary.rename(folder)


def open_work_folder(folder: Path, settings: dict[str, Any]) -> Path:
    """A folder for checkpoints that belong to these settings; what other settings left there is removed."""
    path = folder / SETTINGS
    wanted = json.loads(json.dumps(settings))
    try:
        known = read_json(path) == wanted
    except Timer1Error:
        known = False
    if folder.is_dir() and not known:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_json(path, wanted)
    return folder


def resume_point(output_dir: str | Path) -> Path | None:
    """The newest complete `checkpoint-N` in `output_dir`, or None where there is none.

    A checkpoint that a kill left half written is passed over, with a warning that says what is wrong with it.
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

    for name in ("trainer_state.json", *OPTIMIZER, "rng_state.pth"):
        if not (folder / name).is_file():
            raise Timer1Error(f"no {name}")
    if (step := read_json(folder / "trainer_state.json")["global_step"]) != step_of(folder):
        raise Timer1Error(f"its state is of step {step}")
    for name in OPTIMIZER:
        torch.load(folder / name, map_location="cpu", weights_only=True, mmap=True)
    with zipfile.ZipFile(folder / "rng_state.pth") as archive:  # holds more than tensors: only whether it is whole
        if archive.testzip():
            raise Timer1Error("rng_state.pth is damaged")
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
    fresh: Any = type(model).from_pretrained(str(checkpoint), dtype=next(model.parameters()).dtype)  # type: ignore[attr-defined]
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


def trainer_settings(params: SftParams | GrpoParams, shared: SharedParams, loaded: LoadedModel, work: Path) -> dict[str, Any]:
    """What SFT and GRPO tell transformers' Trainer alike."""
    return {
        **params.model_dump(include={"learning_rate", "weight_decay", "max_grad_norm", "gradient_checkpointing"}),
        "output_dir": str(work),
        "logging_steps": 1,
        "save_steps": params.save_every,
        "save_total_limit": 2,
        "seed": shared.seed,
        "data_seed": shared.seed,
        "use_cpu": loaded.device.type == "cpu",
        "bf16": shared.dtype == "bfloat16",
        "fp16": False,
        "report_to": "none",
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


Share = tuple[int, int]
"""Which of how many processes: (0, 1) is the only one."""


def order_of_groups(ids: Sequence[str], per_step: int, steps: int, done: int = 0, share: Share = (0, 1)) -> list[str]:
    """The samples that GRPO asks for in steps `done` to `steps`, in this order: `ids` over and over, whole steps alone.

    Args:
        ids: in the order of training; those of a last step that is not full are left out, as trl does.
        per_step: groups a step, over all processes; each process takes its part of every step.
    """
    rank, ranks = share
    a_pass = max(1, len(ids) // per_step)
    own = range(rank * per_step // ranks, (rank + 1) * per_step // ranks)
    return [ids[step % a_pass * per_step + i] for step in range(done, steps) for i in own if i < len(ids)]


def order_of_rows(
    ids: Sequence[str], batch: int, accumulate: int, seed: int, steps: int, done: int = 0, share: Share = (0, 1)
) -> list[str]:
    """The rows that transformers' Trainer asks for in steps `done` to `steps`: an epoch's order follows from seed and epoch.

    Args:
        batch: rows of a micro-batch; they go to the processes in turn, `accumulate` of them make a step.
    """
    rank, ranks = share
    order: list[str] = []
    step = epoch = 0
    while step < steps and ids:
        drawn = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed + epoch)).tolist()
        batches = [drawn[i : i + batch] for i in range(0, len(drawn), batch)][rank::ranks] or [drawn]
        for first in range(0, len(batches), accumulate):
            if done <= step < steps:
                order += [ids[i] for rows in batches[first : first + accumulate] for i in rows]
            step += 1
        epoch += 1
    return order


def decoding_threads(shared: SharedParams) -> int:
    """Threads that encode the next step's samples; most of their time they wait for a worker or for the disk."""
    return max(1, min(shared.workers, 8))


class EncodeAhead:
    """Encodes rows (by their `sample_id`) in threads before the step that needs them; a failure is kept for that step.

    GRPO's data loader asks for the next batch before the current one is trained on, and `announce` is its collate
    function: so the next step's videos are decoded (by `encode`, which may itself use worker processes)
    while the model works.
    """

    def __init__(self, encode: Callable[[Row], Any], threads: int) -> None:
        self._encode = encode
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="encode") if threads else None
        self._pending: dict[str, Future[Any]] = {}

    def announce(self, rows: list[Row]) -> list[Row]:
        """Start on `rows` and hand them on unchanged."""
        if self._pool is not None:
            for row in rows:
                name = str(row.get("sample_id"))
                if name not in self._pending:
                    self._pending[name] = self._pool.submit(self._encode, row)
        return rows

    def get(self, row: Row) -> Any:
        """The encoded row; raises what `encode` raised."""
        future = self._pending.pop(str(row.get("sample_id")), None)
        return self._encode(row) if future is None else future.result()


class SampleEncoder:
    """Encodes samples of a run for training. Close it to end the decoding workers."""

    def __init__(self, run: RunFolder, shared: SharedParams, *, grounded: bool = False) -> None:
        self._run, self._shared, self._grounded = run, shared, grounded
        self._sampling, self._store = sampling_for(shared), open_store(shared)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._store.close()
        sys.stdout.write(f"frames: {self._store.costs}\n")

    def prefetch(self, samples: Iterable[Sample], ahead: int = AHEAD) -> None:
        """Let workers decode these samples' videos ahead of need, in this order, instead of what they were told before."""
        requests: list[Any] = []
        for sample in samples:
            with contextlib.suppress(Timer1Error):  # said where the sample is encoded
                requests.append((self._run.video(sample), self._sampling, (sample.video_start, sample.video_end)))
        self._store.prefetch(requests, ahead=ahead)

    def encode(self, loaded: LoadedModel, sample: Sample, completion: str | None = None) -> dict[str, Any]:
        """The model's inputs for a sample, with labels where there is a completion; a Timer1Error names a broken video.

        Several threads may call it: they decode side by side, and go through the processor, which is not made for it, in turn.
        """
        frames = self._store.get(self._run.video(sample), self._sampling, (sample.video_start, sample.video_end))
        prompt = sample_prompt(sample, self._shared, grounded=self._grounded and sample.is_question, duration=frames.duration_s)
        with self._lock:
            return encode_prompt(loaded, frames, prompt, completion)
