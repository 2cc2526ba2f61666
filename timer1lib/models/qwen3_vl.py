"""Qwen3-VL (arXiv 2511.21631): times written by the processor, learned positions, features for several text layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from timer1lib.errors import Timer1Error
from timer1lib.models.architecture import Architecture, read_sizes
from timer1lib.models.family import Family

if TYPE_CHECKING:
    from torch import Tensor, nn


class Qwen3VL(Family):
    name = "qwen3_vl"
    title = "Qwen3-VL"
    tower_type = "qwen3_vl_vision"
    hub_mark = "qwen3"
    factor = 32
    sizes = {
        "qwen3-vl-8b": Architecture(
            hidden=4096, layers=36, heads=32, key_heads=8, head_dim=128, intermediate=12288, vocabulary=151936, tied=False,
            vision_hidden=1152, vision_layers=27, vision_intermediate=4304, patch=16, head_norms=True, position_table=2304,
            deepstack=3,
        )
    }  # fmt: skip

    def _rate(self, config: Mapping[str, Any], name: str, chosen: str) -> float | None:
        if chosen == "positions":
            missing = f"{self.title} has no temporal positions in seconds"
            raise Timer1Error(f"model {name!r}: {missing}; set timestamps to text or auto")
        return None

    def rendered(self, text: str) -> str:
        # The published template puts marks around the video, and the processor puts them around every frame pair: of 4.57 in
        # place of the template's, of transformers 5 inside them, which no checkpoint has ever seen. Without them both agree.
        return text.replace(f"<|vision_start|>{self.video_token}{self.vision_end}", self.video_token)

    def mergers(self, tower: Any) -> list[nn.Module]:
        return [tower.merger, *tower.deepstack_merger_list]

    def tower_tables(self, tower: Any, grid: Tensor) -> dict[str, Tensor]:
        from transformers import vision_utils

        indices, weights = vision_utils.get_vision_interpolation_indices_and_weights(
            grid,
            num_grid_per_side=tower.num_grid_per_side,
            mode=tower.interpolation_mode,
            align_corners=tower.interpolation_align_corners,
            spatial_merge_size=tower.spatial_merge_size,
        )
        return {**super().tower_tables(tower, grid), "interp_indices": indices, "interp_weights": weights}

    def tower_output(self, last: Tensor, merged: list[Tensor]) -> Any:
        from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

        return BaseModelOutputWithDeepstackFeatures(last, pooler_output=merged[0], deepstack_features=merged[1:])

    def merged_parts(self, output: Any) -> list[Tensor]:
        return [output.pooler_output, *output.deepstack_features]

    def architecture(self, config: Mapping[str, Any], where: str) -> Architecture:
        vision = config.get("vision_config", {})
        table = vision.get("num_position_embeddings", 2304)
        taps = len(vision.get("deepstack_visual_indexes", (8, 16, 24)))
        return read_sizes(config, where, head_norms=True, position_table=table, deepstack=taps)

    def tiny_config(
        self, text: dict[str, Any], vision: dict[str, Any], rope: dict[str, Any], frame_side: int, common: dict[str, Any]
    ) -> Any:
        from transformers import Qwen3VLConfig

        text = {**text, "head_dim": 32, "rope_parameters": {**rope, "mrope_interleaved": True}}
        vision = {**vision, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
        return Qwen3VLConfig(text_config=text, vision_config=vision, **common)

    def tiny_processor(self, image: Any, tokenizer: Any, pixels: int, options: dict[str, Any]) -> tuple[Any, str]:
        from transformers import Qwen3VLProcessor, Qwen3VLVideoProcessor

        # it counts pixels over the whole video, and puts the marks around every frame itself
        size = {"shortest_edge": pixels, "longest_edge": 4096 * pixels}
        video = Qwen3VLVideoProcessor(size=size, do_sample_frames=False, cap_pixels_per_frame=False, **options)
        return Qwen3VLProcessor(image, tokenizer, video), "<|video_pad|>"
