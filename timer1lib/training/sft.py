"""Supervised fine-tuning on videos with trl's SFTTrainer: the cold start before reinforcement learning.

trl ignores a video column, so the collator does the work: it decodes, asks and answers with the same inputs as
inference does. The loss counts the completion only.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from timer1lib.errors import Timer1Error
from timer1lib.models.fast_vision import speed_up_vision
from timer1lib.models.inputs import collate
from timer1lib.models.load import LoadedModel, load_shared
from timer1lib.params.sections import SftParams, SharedParams
from timer1lib.training import common

log = logging.getLogger(__name__)

Encode = Callable[[LoadedModel, str], dict[str, torch.Tensor]]
"""From a model and a row's id to the batch of 1 with labels that it learns from."""


@dataclass(frozen=True, slots=True)
class SftJob:
    """One training: `ids` name the rows, `encode` turns one into tensors."""

    ids: Sequence[str]
    encode: Encode
    out_dir: Path
    work_dir: Path
    log_path: Path
    settings: dict[str, Any]  # what the training depends on; checkpoints of other settings are not believed
    read_ahead: common.ReadAhead | None = None


@common.frees_memory
def train_sft(job: SftJob, params: SftParams, shared: SharedParams) -> list[dict[str, Any]]:
    """Train and keep the model in `job.out_dir`; a killed training goes on from its last checkpoint.

    Returns the log's rows: step, loss, learning_rate, grad_norm, mean_token_accuracy, and time/encode: seconds that the steps
    since the row before waited for data.
    """
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    if not job.ids:
        raise Timer1Error("SFT has no samples: data/cold_start.jsonl is empty; see 01_curate, or switch sft.enabled off")
    work = common.open_work_folder(job.work_dir, job.settings)
    checkpoint = common.resume_point(work)
    # a checkpoint's names are the file's, not the modules': only from_pretrained reads them all
    loaded = load_shared(checkpoint if checkpoint and params.lora_rank == 0 else shared.model, shared)
    speed_up_vision(loaded.model)
    if params.freeze_vision:
        common.freeze_vision_tower(loaded.model)
    log = common.TrainingLog(job.log_path, "SFT", params.steps)
    collator = _Collator(loaded, job.encode, common.decoding_threads(shared))
    trainer = SFTTrainer(
        model=loaded.model,
        args=SFTConfig(
            max_steps=params.steps,
            per_device_train_batch_size=(batch := min(params.batch_size, params.micro_batch_size)),
            gradient_accumulation_steps=(accumulate := max(1, params.batch_size // params.micro_batch_size)),
            lr_scheduler_type=params.schedule,
            warmup_steps=math.ceil(params.warmup_share * params.steps),
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            **common.trainer_settings(params, shared, loaded, work),
        ),
        train_dataset=Dataset.from_list([{"id": name} for name in job.ids]),
        data_collator=collator,
        processing_class=loaded.processor,
        peft_config=common.lora_config(params.lora_rank, loaded.family),
        callbacks=[_Waiting(collator), log],
    )
    share = (trainer.accelerator.process_index, trainer.accelerator.num_processes)
    done = common.step_of(checkpoint) if checkpoint else 0
    order = common.order_of_rows(job.ids, batch, accumulate, shared.seed, params.steps, done, share)
    collator.expect(order)
    if job.read_ahead is not None:
        job.read_ahead(order)
    common.train_on(trainer, checkpoint, params.steps)
    rows = log.write(trainer.state.log_history)
    common.save_model(trainer.accelerator.unwrap_model(trainer.model), loaded.processor, job.out_dir)
    shutil.rmtree(work)
    return rows


class _Collator:
    """Rows of ids to a right-padded batch with labels; threads encode the next batch while the model learns from this one."""

    def __init__(self, loaded: LoadedModel, encode: Encode, threads: int) -> None:
        self._loaded = loaded
        self._encoder = common.EncodeAhead(lambda row: encode(loaded, row["sample_id"]), threads)
        self._order: deque[str] = deque()
        self._left_out: set[str] = set()
        self._last: list[dict[str, torch.Tensor]] = []
        self.waited_s = 0.0

    def expect(self, order: Sequence[str]) -> None:
        """The ids that will be asked for."""
        self._order = deque(order)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Rows whose video cannot be read are left out; where none is left, the last batch is learned once more."""
        started = time.perf_counter()
        encoded: list[Any] = []
        for row in rows:
            try:
                encoded.append(self._encoder.get({"sample_id": row["id"]}))
            except Timer1Error as error:
                if not encoded and not self._last and row is rows[-1]:
                    raise
                if row["id"] not in self._left_out:
                    self._left_out.add(row["id"])
                    log.warning("SFT goes on without %s (%d left out so far): %s", row["id"], len(self._left_out), error)
        self._last = encoded or self._last
        self._announce([row["id"] for row in rows])
        batch = collate(self._loaded, self._last, side="right")
        self.waited_s += time.perf_counter() - started
        return batch

    def _announce(self, had: list[str]) -> None:
        """Start on the next batch; nothing is done where the order is not the expected one."""
        if [self._order.popleft() for _ in had if self._order] == had:
            self._encoder.announce([{"sample_id": name} for name in islice(self._order, len(had))])
        else:
            self._order.clear()


class _Waiting(TrainerCallback):
    """Puts the seconds that the steps since the last row waited for data into each row of the log."""

    def __init__(self, collator: _Collator) -> None:
        self._collator, self._before = collator, 0.0

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if "loss" in state.log_history[-1]:
            state.log_history[-1]["time/encode"] = round(self._collator.waited_s - self._before, 4)
            self._before = self._collator.waited_s
