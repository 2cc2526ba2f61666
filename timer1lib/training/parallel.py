"""Training on several ranks: weights sharded by FSDP2, checkpoints that any number of ranks can go on from.

A checkpoint holds whole weights and a whole optimizer state in the form that one process writes, whatever wrote it.
Layers are sharded one by one, what is left with the root; a frozen vision tower stays whole on every rank, since it is
called by itself. Meanwhile parameters are DTensors, but inside `gathered`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from timer1lib.models.config import family_of_model
from timer1lib.workers.team import team


class SharedTraining:
    """A mixin for transformers' Trainer: with `shard` set it trains sharded weights; rank 0 alone writes."""

    shard = False
    """Whether weights are sharded over the ranks once training begins."""
    model: Any
    accelerator: Any
    args: Any
    optimizer: Any

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        if self.shard and team.size > 1:
            mixed = torch.bfloat16 if self.args.bf16 else None
            for model in (self.model, getattr(self, "ref_model", None)):
                if model is not None:
                    shard_model(model, mixed)
            plain = self.accelerator.prepare_model  # ours is whole: no DDP around it, and no second sharding
            self.accelerator.prepare_model = lambda model, **given: plain(model, device_placement=False, evaluation_mode=True)
        return super()._prepare_for_training(*args, **kwargs)  # type: ignore[misc]

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if state_dict is None and is_sharded(self.model):
            state_dict = whole_weights(self.model)
        if team.first:
            super()._save(output_dir, state_dict)  # type: ignore[misc]

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if is_sharded(self.model):
            self._save(output_dir or self.args.output_dir)
        else:
            super().save_model(output_dir, _internal_call)  # type: ignore[misc]

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not is_sharded(self.model):
            super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc]
            return
        state = _each_tensor(self.optimizer.state_dict(), lambda value: value.full_tensor().cpu() if _sharded(value) else value)
        if team.first:
            torch.save(state, Path(output_dir) / "optimizer.pt")
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")  # type: ignore[attr-defined]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not is_sharded(self.model):
            super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
            return
        load_optimizer(self.optimizer, Path(checkpoint))
        schedule = torch.load(Path(checkpoint) / "scheduler.pt", map_location="cpu", weights_only=True)
        self.lr_scheduler.load_state_dict(schedule)  # type: ignore[attr-defined]

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)  # type: ignore[misc]
        return norm.full_tensor() if _sharded(norm) else norm


def shard_model(model: nn.Module, compute: torch.dtype | None) -> None:
    """Shard a model, PEFT's wrapper or not, in place over all ranks; `compute`: type in which layers compute."""
    from torch.distributed.device_mesh import init_device_mesh

    family = family_of_model(model)
    # Casting what layers are given would copy the state that rollouts leave in it; autocast sees to their types.
    mixed = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32, cast_forward_inputs=False)
    policy = mixed if compute else MixedPrecisionPolicy()
    tower = family.tower(model.get_base_model() if hasattr(model, "peft_config") else model)  # type: ignore[operator]
    kept = {parameter for parameter in tower.parameters() if not parameter.requires_grad}
    device = next(model.parameters()).device.type
    options: dict[str, Any] = {"mesh": init_device_mesh(device, (team.size,)), "mp_policy": policy, "ignored_params": kept}
    base: Any = model.get_base_model() if hasattr(model, "peft_config") else model  # type: ignore[operator]
    for layer in base.model.language_model.layers:
        fully_shard(layer, **options, reshard_after_forward=True)
    fully_shard(model, **options)


def is_sharded(model: Any) -> bool:
    return isinstance(model, FSDPModule)


def _sharded(value: Any) -> bool:
    return isinstance(value, DTensor)


@contextlib.contextmanager
def gathered(model: Any) -> Iterator[None]:
    """Whole weights on every rank, so that parts of the model can be called by themselves; all ranks enter together."""
    if not is_sharded(model):
        yield
        return
    parts = [part for part in model.modules() if isinstance(part, FSDPModule)]
    model._get_fsdp_state()._lazy_init()  # a part that is called first would take itself for the root
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(part is not model, recurse=False)


def whole_weights(model: Any) -> dict[str, Tensor]:
    """A state dict of whole tensors on the CPU; empty on all ranks but the first, which all take part."""
    named = dict(model.named_parameters(remove_duplicate=False))
    state, once = {}, {}
    for name, value in model.state_dict().items():
        known = id(named.get(name, value))  # tied weights stay one tensor, which is saved once
        if known not in once:
            full = value.full_tensor() if _sharded(value) else value
            once[known] = full.detach().cpu() if team.first else full.new_empty(0)
        if team.first:
            state[name] = once[known]
    return state


def load_optimizer(optimizer: Any, folder: Path) -> None:
    """Give an optimizer the state that a checkpoint keeps whole; each rank takes its part where parameters are sharded."""
    state = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, entries in state["state"].items():
        parameter = parameters[number]
        if _sharded(parameter):
            for name, value in entries.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    entries[name] = distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    optimizer.load_state_dict(state)


def _each_tensor(tree: Any, change: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _each_tensor(value, change) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_each_tensor(value, change) for value in tree]
    return change(tree)
