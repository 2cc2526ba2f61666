"""How large a frame is for a model: pixel budgets and the multiple that its patches ask for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timer1lib.clock.sampling import Sampling
from timer1lib.clock.told import Timestamps, temporal_rate
from timer1lib.errors import Timer1Error
from timer1lib.files import read_json, resolve

DEFAULT_FACTOR = 28


def frame_size(height: int, width: int, count: int, sampling: Sampling, temporal_patch: int = 2) -> tuple[int, int]:
    """Height and width in pixels of each of `count` frames: multiples of `sampling.factor`, within the budget.

    The budget per frame is that of Qwen's own pipeline, min(max_frame_pixels, total_pixels x temporal_patch / count),
    and never under 1.05 x min_frame_pixels. The aspect ratio is kept as far as the multiple allows.
    """
    factor = sampling.factor
    share = sampling.total_pixels * temporal_patch / count
    largest = max(min(sampling.max_frame_pixels, share), 1.05 * sampling.min_frame_pixels, factor * factor)
    smallest = sampling.min_frame_pixels
    new_height, new_width = max(factor, round(height / factor) * factor), max(factor, round(width / factor) * factor)
    if new_height * new_width > largest:
        shrink = math.sqrt(height * width / largest)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif new_height * new_width < smallest:
        grow = math.sqrt(smallest / (height * width))
        new_height, new_width = math.ceil(height * grow / factor) * factor, math.ceil(width * grow / factor) * factor
    return new_height, new_width


def resize(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Bicubic with antialiasing, uint8 [N, H, W, 3] to [N, height, width, 3]; the same on every path."""
    if pixels.shape[1:3] == (height, width):
        return np.ascontiguousarray(pixels)
    from PIL import Image

    out = np.empty((len(pixels), height, width, 3), dtype=np.uint8)
    for target, frame in zip(out, pixels, strict=True):
        target[...] = np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize((width, height), Image.Resampling.BICUBIC))
    return out


def pixel_factor(model: str) -> int:
    """Patch size x spatial merge of a model, read from its `config.json` without loading anything heavy.

    A hub id that is not in the local cache yet is answered by its family's name; `encode_prompt` fits frames of
    another size to the loaded model once, so that a wrong guess costs a resize and nothing else.
    """
    vision = model_config(model).get("vision_config", {})
    if "patch_size" in vision:
        return int(vision["patch_size"]) * int(vision.get("spatial_merge_size", 2))
    return 32 if "qwen3" in model.lower() else DEFAULT_FACTOR


def temporal_geometry(model: str, timestamps: Timestamps = "auto") -> tuple[int, float | None]:
    """Frames of a temporal patch, and temporal positions a second (None where times are text), from `config.json` alone.

    Raises:
        Timer1Error: as `temporal_rate`.
    """
    config = model_config(model)
    return int(config.get("vision_config", {}).get("temporal_patch_size", 2)), temporal_rate(config, model, timestamps)


def model_config(model: str) -> dict[str, Any]:
    """A model's `config.json` from its folder or the local hub cache; empty where it is not on this machine.

    Raises:
        Timer1Error: the file is not JSON.
    """
    path = _config_file(model)
    if path is None or not path.is_file():
        return {}
    config = read_json(path)
    if not isinstance(config, dict):
        raise Timer1Error(f"{path}: not the configuration of a model")
    return config


def _config_file(model: str) -> Path | None:
    folder = resolve(model)
    if folder.is_dir():
        return folder / "config.json"
    try:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(model, "config.json")
    except (ImportError, ValueError):
        return None
    return Path(cached) if isinstance(cached, str) else None
