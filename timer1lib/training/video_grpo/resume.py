"""Going on after a kill: the newest checkpoint that is whole, and weights that really come from it."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

logger = logging.getLogger(__name__)

_NEEDED = ("trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth")


def resume_point(output_dir: str | Path) -> Path | None:
    """The newest complete `checkpoint-N` in `output_dir`, or None where there is none.

    A checkpoint that a kill left half written is passed over, with a warning that says what is wrong with it.
    """
    folders = {}
    for folder in Path(output_dir).glob("checkpoint-*"):
        if match := re.fullmatch(r"checkpoint-(\d+)", folder.name):
            folders[int(match[1])] = folder
    for step in sorted(folders, reverse=True):
        fault = _fault(folders[step], step)
        if fault is None:
            return folders[step]
        logger.warning("%s is passed over: %s", folders[step], fault)
    return None


def _fault(folder: Path, step: int) -> str | None:
    """What makes a checkpoint unusable, or None."""
    for name in _NEEDED:
        if not (folder / name).is_file():
            return f"no {name}"
    try:
        state = json.loads((folder / "trainer_state.json").read_text())
        if state["global_step"] != step:
            return f"its state is of step {state['global_step']}"
        torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True, mmap=True)
        torch.load(folder / "scheduler.pt", map_location="cpu", weights_only=True)
    except Exception as error:
        return f"it cannot be read: {' '.join(str(error).split())[:200]}"
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        return "no weights"
    from safetensors import SafetensorError, safe_open

    try:
        for file in weights:
            with safe_open(file, framework="pt") as tensors:
                tensors.keys()
    except (SafetensorError, OSError) as error:
        return f"{file.name} cannot be read: {error}"
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        parts = set(json.loads(index.read_text())["weight_map"].values())
        if missing := parts - {file.name for file in weights}:
            return f"no {sorted(missing)[0]}"
    return None


@torch.no_grad()
def load_weights(model: nn.Module, checkpoint: str | Path) -> None:
    """Give `model` the checkpoint's weights, every one of them.

    `Trainer` loads a checkpoint by the names in its file and only warns where they are not the model's. Qwen-VL
    checkpoints are saved under other names than the modules have (for Qwen2.5-VL 1 of 81 keys agrees), so that a run
    would go on from its base weights. `from_pretrained` knows the renaming.

    Raises:
        RuntimeError: a weight is missing.
    """
    fresh: Any = type(model).from_pretrained(str(checkpoint), dtype=next(model.parameters()).dtype)  # type: ignore[attr-defined]
    model.load_state_dict(fresh.state_dict(), strict=True)
