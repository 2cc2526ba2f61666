"""Supervised fine-tuning on videos with trl's SFTTrainer: the cold start before reinforcement learning.

trl ignores a video column, so the collator does the work: it decodes, asks and answers with the same inputs as
inference does. The loss counts the completion only.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from timer1lib.errors import Timer1Error
from timer1lib.models.config import base_name
from timer1lib.models.fast_vision import speed_up_vision
from timer1lib.models.inputs import collate
from timer1lib.models.load import LoadedModel
from timer1lib.params.sections import SftParams, SharedParams
from timer1lib.training import common, feeding
from timer1lib.training.parallel import SharedTraining
from timer1lib.workers.team import team

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
    read_ahead: feeding.ReadAhead | None = None


@common.frees_memory
def train_sft(job: SftJob, params: SftParams, shared: SharedParams) -> list[dict[str, Any]]:
    """Train and keep the model in `job.out_dir`; a killed training goes on from its last checkpoint.

    Returns the log's rows: step, loss, learning_rate, grad_norm, mean_token_accuracy, and time/encode: seconds that the steps
    since the row before waited for data.
    """
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig

    work, checkpoint = common.begin(job.work_dir, job.settings)
    # a checkpoint's names are the file's, not the modules': only from_pretrained reads them all
    loaded = common.load_trained(checkpoint if checkpoint and params.lora_rank == 0 else base_name(shared), params, shared)
    speed_up_vision(loaded.model)
    log = common.TrainingLog(job.log_path, "SFT", params.steps)
    collator = _Collator(loaded, job.encode, job.ids, feeding.decoding_threads(shared))
    micro = min(params.batch_size, params.micro_batch_size)
    plan = StepPlan(len(job.ids), micro, max(1, params.batch_size // params.micro_batch_size))
    trainer = trainer_class()(
        model=loaded.model,
        args=SFTConfig(
            max_steps=params.steps,
            per_device_train_batch_size=plan.forward,
            gradient_accumulation_steps=plan.forwards,
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
    common.prepare(trainer)
    trainer.shard, trainer.plan = shared.parallel == "fsdp2", plan
    # every completion token of a step counts alike, however many forwards and ranks the step takes
    trainer.model_accepts_loss_kwargs = True
    done = common.step_of(checkpoint) if checkpoint else 0
    order = feeding.order_of_rows(job.ids, plan.step, shared.seed, params.steps, done, (team.rank, team.size))
    collator.expect(order)
    if job.read_ahead is not None:
        job.read_ahead(order)
    common.train_on(trainer, checkpoint, params.steps)
    rows = log.write(trainer.state.log_history)
    common.save_model(trainer, loaded.processor, job.out_dir, work, base_name(shared), shared)
    return rows


class StepPlan:
    """Which rows each rank learns from in each forward pass.

    A step's rows are those of one process, in the same order; ranks take neighbouring shares of them, of which the last
    step of an epoch may leave a rank none.

    Args:
        rows: of the training.
        micro, accumulate: rows of a forward and forwards of a step, with one process.
    """

    def __init__(self, rows: int, micro: int, accumulate: int) -> None:
        self.rows, self.step = rows, micro * accumulate
        share = -(-self.step // team.size)
        self.forwards = -(-share // micro)
        self.forward = -(-share // self.forwards)

    def batches(self, order: Sequence[int]) -> Iterator[list[int]]:
        """This rank's forwards of an epoch whose rows come in `order`; an empty one where others have rows left."""
        for start in range(0, self.rows, self.step):
            rows = order[start : start + self.step]
            share = -(-len(rows) // team.size)
            own = rows[team.rank * share : (team.rank + 1) * share]
            for first in range(0, share, self.forward):
                yield list(own[first : first + self.forward])

    def __len__(self) -> int:
        return sum(1 for _ in self.batches(range(self.rows)))


class _SharedBatches:
    """A batch sampler that shuffles as one process does, and gives each rank its part (`NOTHING` where it has none)."""

    def __init__(self, plan: StepPlan, order: Any) -> None:
        self._plan, self._order = plan, order
        self.batch_sampler = self  # where transformers looks for `set_epoch`

    def set_epoch(self, epoch: int) -> None:
        self._order.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[list[int]]:
        return (batch or [self._plan.rows] for batch in self._plan.batches(list(self._order)))


NOTHING = "nothing"
"""In place of a row's id: a forward that teaches nothing, while other ranks have rows left."""


def trainer_class() -> type:
    """trl's SFTTrainer, on any number of ranks; made late, since trl takes seconds to import."""
    from accelerate.data_loader import SeedableRandomSampler
    from trl.trainer.sft_trainer import SFTTrainer

    class SharedSFTTrainer(SharedTraining, SFTTrainer):  # type: ignore[misc]
        plan: StepPlan

        def get_train_dataloader(self) -> Any:
            if team.size == 1:
                return super().get_train_dataloader()
            # accelerate's own order for one process; its sharding would fill up an epoch's last step with other rows
            order = SeedableRandomSampler(range(self.plan.rows), data_seed=self.args.data_seed)
            rows = [*self.train_dataset, {"id": NOTHING}]
            return DataLoader(rows, batch_sampler=_SharedBatches(self.plan, order), collate_fn=self.data_collator)  # type: ignore[arg-type]

    return SharedSFTTrainer


class _Collator:
    """Rows of ids to a right-padded batch with labels; threads encode the next batch while the model learns from this one."""

    def __init__(self, loaded: LoadedModel, encode: Encode, ids: Sequence[str], threads: int) -> None:
        self._loaded, self._encode, self._ids = loaded, encode, ids
        self._encoder = feeding.EncodeAhead(lambda row: encode(loaded, row["sample_id"]), threads)
        self._order: deque[str] = deque()
        self._left_out: set[str] = set()
        self._last: list[dict[str, torch.Tensor]] = []
        self.waited_s = 0.0

    def expect(self, order: Sequence[str]) -> None:
        """The ids that will be asked for."""
        self._order = deque(order)

    def _some(self, ids: Sequence[str]) -> dict[str, torch.Tensor]:
        """A row that can be read, to be learned from not at all."""
        for name in ids:
            with contextlib.suppress(Timer1Error):
                return self._encode(self._loaded, name)
        raise Timer1Error("SFT: no video of the cold start can be read; the log names every failure")

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Rows whose video cannot be read are left out; where none is left, the last batch is learned once more.

        Of several ranks one that has no row learns nothing in this step, but computes with the others.
        """
        started = time.perf_counter()
        encoded: list[Any] = []
        if team.size > 1 and not self._last:
            self._last = [self._some(self._ids)]
        for row in rows:
            if row["id"] == NOTHING:
                continue
            try:
                encoded.append(self._encoder.get({"sample_id": row["id"]}))
            except Timer1Error as error:
                if not encoded and not self._last and row is rows[-1]:
                    raise
                if row["id"] not in self._left_out:
                    self._left_out.add(row["id"])
                    log.warning("SFT goes on without %s (%d left out so far): %s", row["id"], len(self._left_out), error)
        self._last = encoded or self._last
        self._announce([row["id"] for row in rows if row["id"] != NOTHING])
        batch = collate(self._loaded, self._last, side="right")
        if team.size > 1 and not encoded:
            batch["labels"] = torch.full_like(batch["labels"], -100)
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
