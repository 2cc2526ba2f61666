"""Qwen2.5-VL (arXiv 2502.13923): times by temporal positions or written by us, a tower with windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from timer1lib.clock.told import seconds_per_grid, told_times
from timer1lib.models.architecture import Architecture, read_sizes
from timer1lib.models.family import Family, Geometry, Shown

if TYPE_CHECKING:
    from torch import Tensor

    from timer1lib.clock.frames import Frames

_SEVEN = Architecture(
    hidden=3584, layers=28, heads=28, key_heads=4, head_dim=128, intermediate=18944, vocabulary=152064, tied=False,
    vision_hidden=1280, vision_layers=32, vision_intermediate=3420, patch=14, qkv_bias=True, gated_vision=True,
)  # fmt: skip


class Qwen25VL(Family):
    name = "qwen2_5_vl"
    title = "Qwen2.5-VL"
    tower_type = "qwen2_5_vl_vision"
    hub_mark = "qwen2.5"
    factor = 28
    sizes = {
        "qwen2.5-vl-3b": replace(
            _SEVEN, hidden=2048, layers=36, heads=16, key_heads=2, intermediate=11008, vocabulary=151936, tied=True
        ),
        "qwen2.5-vl-7b": _SEVEN,
    }

    def _rate(self, config: Mapping[str, Any], name: str, chosen: str) -> float | None:
        return None if chosen == "text" else float(config.get("vision_config", {}).get("tokens_per_second", 2))

    def interleaves(self, geometry: Geometry) -> bool:
        return geometry.tokens_per_second is None

    def shown(self, frames: Frames, geometry: Geometry) -> Shown:
        """One video, or where times are text one a frame pair with the text part that says when it is."""
        if not self.interleaves(geometry):
            return [(frames, [])]
        size = geometry.temporal_patch
        told = told_times(frames.times_s, frames.step_s, size, None, frames.time_scale)
        parts = [slice(first, first + size) for first in range(0, len(frames), size)]
        pairs = [replace(frames, pixels=frames.pixels[part], times_s=frames.times_s[part]) for part in parts]
        marks = [[{"type": "text", "text": f"<{second:.1f} seconds>"}] for second in told[::size]]
        return list(zip(pairs, marks, strict=True))

    def time_inputs(self, frames: Frames, geometry: Geometry, videos: int) -> dict[str, Tensor]:
        import torch

        step = seconds_per_grid(frames.step_s, geometry.temporal_patch, frames.time_scale)
        return {"second_per_grid_ts": torch.full((videos,), step, dtype=torch.float32)}

    def position_rate(self, config: Any) -> float | None:
        return float(config.vision_config.tokens_per_second)

    def tower_tables(self, tower: Any, grid: Tensor) -> dict[str, Tensor]:
        index, bounds = self._windows(tower, grid)
        return {**super().tower_tables(tower, grid), "window_index": index, "cu_window_seqlens": bounds}

    def patch_order(self, tower: Any, grid: Tensor) -> Tensor | None:
        return self._windows(tower, grid)[0]

    def _windows(self, tower: Any, grid: Tensor) -> tuple[Tensor, Tensor]:
        from transformers import vision_utils

        index, bounds = vision_utils.get_vision_window_index(
            grid, spatial_merge_size=tower.spatial_merge_size, window_size=tower.window_size, patch_size=tower.patch_size
        )
        return index, bounds

    def architecture(self, config: Mapping[str, Any], where: str) -> Architecture:
        return read_sizes(config, where, qkv_bias=True, gated_vision=True)

    def tiny_config(
        self, text: dict[str, Any], vision: dict[str, Any], rope: dict[str, Any], frame_side: int, common: dict[str, Any]
    ) -> Any:
        from transformers import Qwen2_5_VLConfig

        whole = {"tokens_per_second": 2, "window_size": frame_side, "fullatt_block_indexes": list(range(vision["depth"]))}
        return Qwen2_5_VLConfig(text_config={**text, "rope_parameters": rope}, vision_config={**vision, **whole}, **common)

    def tiny_processor(self, image: Any, tokenizer: Any, pixels: int, options: dict[str, Any]) -> tuple[Any, str]:
        from transformers import Qwen2_5_VLProcessor, Qwen2VLVideoProcessor

        size = {"shortest_edge": pixels, "longest_edge": pixels}
        video = Qwen2VLVideoProcessor(size=size, do_sample_frames=False, **options)
        return Qwen2_5_VLProcessor(image, tokenizer, video), "<|vision_start|><|video_pad|><|vision_end|>"
