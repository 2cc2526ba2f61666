"""What a model family's adapter must know, and what the Qwen-VL line has in common.

A family is one subclass in a file of its own and one entry in `models.config.FAMILIES`. Nobody outside this package asks
for a model's type, for the names of its parts, or which family it is. Light: torch and transformers are imported by the
methods that need them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from timer1lib.clock.told import Timestamps
from timer1lib.errors import Timer1Error
from timer1lib.files import read_json
from timer1lib.models.architecture import Architecture, read_sizes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from timer1lib.clock.frames import Frames
    from timer1lib.clock.rule import ClockRule, RuleInUse


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a model cuts pixels and time into tokens.

    Attributes:
        patch: side of a vision patch in pixels.
        merge: patches a side that make one token.
        temporal_patch: frames that make one temporal step.
        tokens_per_second: temporal positions a second; None where times are written as text.
    """

    patch: int
    merge: int
    temporal_patch: int
    tokens_per_second: float | None

    @property
    def factor(self) -> int:
        """Frame sides are multiples of this many pixels."""
        return self.patch * self.merge


Shown = list[tuple["Frames", list[dict[str, str]]]]
"""Videos of a prompt in their order, each with the chat parts that stand before it."""

STAND_IN = {"hidden": 64, "intermediate": 96, "heads": 4, "vision_hidden": 32, "vision_intermediate": 48}
"""Sizes of `Family.shrunk`: heads of 16, and widths that a 4-bit block of 64 divides."""


class Family:
    """The adapter of a family, without state.

    Attributes:
        name: `model_type` in the family's `config.json`.
        title: the family's name for people.
        tower_type: `model_type` of its vision tower's configuration.
        hub_mark: in lower-case hub ids of the family, for models whose configuration is not at hand.
        factor: frame sides are multiples of this many pixels where no configuration says so.
        vision_tokens: tokens that stand for pictures and their marks; never sampled, and cut out of queries.
        turn_start: the token that starts a turn; never sampled. `turn_end` ends one, and with it an answer.
        video_token: stands for a video's pixels; `vision_end` closes it.
        lora_targets: expression for the names of the text model's linear layers.
        sizes: facts of the published configurations, by the start of the hub id's last part.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    tower_type: ClassVar[str]
    hub_mark: ClassVar[str]
    factor: ClassVar[int]
    vision_tokens: ClassVar[tuple[str, ...]] = (
        "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    )  # fmt: skip
    turn_start: ClassVar[str] = "<|im_start|>"
    turn_end: ClassVar[str] = "<|im_end|>"
    video_token: ClassVar[str] = "<|video_pad|>"
    vision_end: ClassVar[str] = "<|vision_end|>"
    lora_targets: ClassVar[str] = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
    sizes: ClassVar[Mapping[str, Architecture]] = {}

    # --- time -----------------------------------------------------------------------------------------------------

    def temporal_rate(self, config: Mapping[str, Any], name: str, timestamps: Timestamps = "auto") -> float | None:
        """Temporal positions a second of a model; None where its times are written as text.

        Args:
            config: its `config.json`; empty where that is not at hand.
            timestamps: `auto` is what the configuration's own key `timestamps` says, and without one the family's way.

        Raises:
            Timer1Error: positions are asked of a family that has none, or the key holds something else.
        """
        chosen = config.get("timestamps", "auto") if timestamps == "auto" else timestamps
        if chosen not in ("auto", "text", "positions"):
            raise Timer1Error(f"model {name!r}: timestamps {chosen!r} in config.json; use text or positions")
        return self._rate(config, name, chosen)

    def _rate(self, config: Mapping[str, Any], name: str, chosen: str) -> float | None:
        raise NotImplementedError

    def geometry(self, config: Any, name: str, timestamps: Timestamps = "auto") -> Geometry:
        """Patch sizes of a Hugging Face configuration, and how its model is told times; errors as `temporal_rate`."""
        vision = config.vision_config
        rate = self.temporal_rate(config.to_dict(), name, timestamps)
        return Geometry(vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size, rate)

    def interleaves(self, geometry: Geometry) -> bool:
        """Whether each frame pair is shown as a video of its own, its time written before it by us."""
        return False

    def shown(self, frames: Frames, geometry: Geometry) -> Shown:
        """The videos that the frames are shown as; one, whose times the processor writes or the positions tell."""
        return [(frames, [])]

    def rendered(self, text: str) -> str:
        """The chat template's text as the installed processor must be given it."""
        return text

    def time_inputs(self, frames: Frames, geometry: Geometry, videos: int) -> dict[str, Tensor]:
        """What the model is told of the time step beside tokens and pixels, of `videos` videos."""
        return {}

    def position_rate(self, config: Any) -> float | None:
        """Temporal positions a second in the published position rule; None where each step is a picture of its own."""
        return None

    def install_rule(self, model: Any, rule: ClockRule = "auto") -> RuleInUse:
        """Make `model` (PEFT-wrapped or not) go by a position rule in every path; see `clock.rule.install_rule`."""
        from timer1lib.clock.positions import PositionConfig
        from timer1lib.clock.rule import install_rule

        config = (model.get_base_model() if hasattr(model, "get_base_model") else model).model.config
        return install_rule(model, PositionConfig(config.vision_config.spatial_merge_size, self.position_rate(config)), rule)

    # --- the vision tower -----------------------------------------------------------------------------------------

    def tower(self, model: nn.Module) -> nn.Module:
        """The vision tower of a (wrapped) model, or `model` itself where it is one; TypeError where there is none."""
        for module in model.modules():
            if hasattr(module, "patch_embed") and hasattr(module, "blocks") and hasattr(module, "merger"):
                return module
        raise TypeError(f"{type(model).__name__} has no vision tower of the {self.title} kind")

    def mergers(self, tower: Any) -> list[nn.Module]:
        """What makes tokens of the tower's patches; the first makes the text model's input, others go in further up."""
        return [tower.merger]

    def tower_tables(self, tower: Any, grid: Tensor) -> dict[str, Tensor]:
        """What the tower's forward would compute from `grid` (videos, 3), under the names by which it takes them."""
        from transformers import vision_utils

        return {
            "position_ids": vision_utils.get_vision_position_ids(grid, tower.spatial_merge_size),
            "cu_seqlens": vision_utils.get_vision_cu_seqlens(grid),
        }

    def patch_order(self, tower: Any, grid: Tensor) -> Tensor | None:
        """Merge blocks in the order in which the tower works on them; None for the order of the patches."""
        return None

    def tower_output(self, last: Tensor, merged: list[Tensor]) -> Any:
        """What the tower returns: its last layer's states (patches, width) and what each merger made of its input."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        return BaseModelOutputWithPooling(last_hidden_state=last, pooler_output=merged[0])

    def merged_parts(self, output: Any) -> list[Tensor]:
        """The reverse: what each merger made, (tokens, width) each."""
        return [output.pooler_output]

    # --- sizes and small models -----------------------------------------------------------------------------------

    def published(self) -> tuple[dict[str, Any], list[str]]:
        """The small files of the family's published folders, {name: content}, and its special tokens."""
        kept = read_json(Path(__file__).with_name("published") / f"{self.name}.json")
        return kept["files"], kept["special_tokens"]

    def shrunk(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A `config.json` in the same layout, at a width and depth that a processor trains in seconds.

        What decides how tokens, times and positions are made stays: patches, merging, temporal patch, tied or own head,
        grouped keys, deepstack and windows. `STAND_IN` has the sizes.
        """
        small = copy.deepcopy(dict(config))
        text, vision = small.get("text_config", small), small["vision_config"]
        grouped = text["num_key_value_heads"] < text["num_attention_heads"]
        taps = len(vision.get("deepstack_visual_indexes", ()))
        depth, layers = max(2, taps + 1), max(2, taps)
        heads, width = STAND_IN["heads"], STAND_IN["hidden"]
        text |= {
            "hidden_size": width, "intermediate_size": STAND_IN["intermediate"], "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": heads // 2 if grouped else heads,
        }  # fmt: skip
        text |= {key: value for key, value in (("head_dim", width // heads), ("max_window_layers", layers)) if key in text}
        text.pop("layer_types", None)
        for name in ("rope_scaling", "rope_parameters"):
            if (text.get(name) or {}).get("mrope_section"):
                half = width // heads // 2  # the largest share is the first one's: times
                text[name]["mrope_section"] = [half - 2 * (half // 3), half // 3, half // 3]
        vision |= {
            "depth": depth, "hidden_size": STAND_IN["vision_hidden"], "intermediate_size": STAND_IN["vision_intermediate"],
            "num_heads": 4, "out_hidden_size": width,
        }  # fmt: skip
        if taps:
            vision["deepstack_visual_indexes"] = list(range(taps))
        if "fullatt_block_indexes" in vision:
            vision["fullatt_block_indexes"] = [depth - 1]
        return small

    def architecture(self, config: Mapping[str, Any], where: str) -> Architecture:
        """The sizes in a `config.json`; Timer1Error where one is missing."""
        return read_sizes(config, where)

    def tiny_config(
        self, text: dict[str, Any], vision: dict[str, Any], rope: dict[str, Any], frame_side: int, common: dict[str, Any]
    ) -> Any:
        """The configuration of a tiny model from the sizes that the families share."""
        raise NotImplementedError

    def tiny_processor(self, image: Any, tokenizer: Any, pixels: int, options: dict[str, Any]) -> tuple[Any, str]:
        """The processor of a tiny model with frames of `pixels`, and how its chat template writes a video."""
        raise NotImplementedError
