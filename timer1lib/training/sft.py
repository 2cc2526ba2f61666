"""Supervised fine-tuning on videos with trl's SFTTrainer: the cold start before reinforcement learning.

trl ignores a video column, so the collator does the work: it decodes, asks and answers with the same inputs as
inference does. The loss counts the completion only.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from timer1lib.errors import Timer1Error
from timer1lib.models.config import base_name
from timer1lib.models.fast_vision import speed_up_vision
from timer1lib.models.inputs import collate
from timer1lib.models.load import LoadedModel
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


def train_sft(job: SftJob, params: SftParams, shared: SharedParams) -> list[dict[str, Any]]:
    """Train and keep the model in `job.out_dir`; a killed training goes on from its last checkpoint.

    Returns the log's rows: step, loss, learning_rate, grad_norm, mean_token_accuracy.
    """
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    if not job.ids:
        raise Timer1Error("SFT has no samples: data/cold_start.jsonl is empty; see 01_curate, or switch sft.enabled off")
    work = common.open_work_folder(job.work_dir, job.settings)
    checkpoint = common.resume_point(work)
    # a checkpoint's names are the file's, not the modules': only from_pretrained reads them all
    loaded = common.load_trained(checkpoint if checkpoint and params.lora_rank == 0 else base_name(shared), params, shared)
    speed_up_vision(loaded.model)
    log = common.TrainingLog(job.log_path, "SFT", params.steps)
    trainer = SFTTrainer(
        model=loaded.model,
        args=SFTConfig(
            max_steps=params.steps,
            per_device_train_batch_size=min(params.batch_size, params.micro_batch_size),
            gradient_accumulation_steps=max(1, params.batch_size // params.micro_batch_size),
            lr_scheduler_type=params.schedule,
            warmup_steps=math.ceil(params.warmup_share * params.steps),
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            **common.trainer_settings(params, shared, loaded, work),
        ),
        train_dataset=Dataset.from_list([{"id": name} for name in job.ids]),
        data_collator=_Collator(loaded, job.encode),
        processing_class=loaded.processor,
        peft_config=common.lora_config(params.lora_rank, loaded.family),
        callbacks=[log],
    )
    common.prepare(trainer)
    common.train_on(trainer, checkpoint, params.steps)
    rows = log.write(trainer.state.log_history)
    trained = common.merged(trainer.accelerator.unwrap_model(trainer.model), base_name(shared), shared)
    common.save_model(trained, loaded.processor, job.out_dir)
    shutil.rmtree(work)
    return rows


class _Collator:
    """Rows of ids to a right-padded batch with labels."""

    def __init__(self, loaded: LoadedModel, encode: Encode) -> None:
        self._loaded, self._encode = loaded, encode
        self._left_out: set[str] = set()
        self._last: list[dict[str, torch.Tensor]] = []

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Rows whose video cannot be read are left out; where none is left, the last batch is learned once more."""
        encoded = []
        for row in rows:
            try:
                encoded.append(self._encode(self._loaded, row["id"]))
            except Timer1Error as error:
                if not encoded and not self._last and row is rows[-1]:
                    raise
                if row["id"] not in self._left_out:
                    self._left_out.add(row["id"])
                    log.warning("SFT goes on without %s (%d left out so far): %s", row["id"], len(self._left_out), error)
        self._last = encoded or self._last
        return collate(self._loaded, self._last, side="right")
