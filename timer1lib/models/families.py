"""The two model families that are run here, and what differs between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from timer1lib.clock.told import Timestamps, temporal_rate
from timer1lib.errors import Timer1Error

Family = Literal["qwen2_5_vl", "qwen3_vl"]
FAMILIES: tuple[Family, ...] = get_args(Family)


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a model cuts pixels and time into tokens.

    Attributes:
        patch: side of a vision patch in pixels.
        merge: patches a side that make one token.
        temporal_patch: frames that make one temporal step.
        tokens_per_second: temporal positions a second (Qwen2.5-VL); None where times are text.
    """

    patch: int
    merge: int
    temporal_patch: int
    tokens_per_second: float | None

    @property
    def factor(self) -> int:
        """Frame sides are multiples of this many pixels."""
        return self.patch * self.merge


def family_of(config: Any, name: str) -> Family:
    """The family of a Hugging Face configuration.

    Raises:
        Timer1Error: another architecture.
    """
    kind = getattr(config, "model_type", None)
    for family in FAMILIES:
        if kind == family:
            return family
    raise Timer1Error(f"model {name!r} is of type {kind!r}; this project runs {' and '.join(FAMILIES)}")


def geometry_of(config: Any, name: str, timestamps: Timestamps = "auto") -> Geometry:
    """Patch sizes of a Hugging Face configuration, and how its model is told times.

    Raises:
        Timer1Error: as `temporal_rate`.
    """
    vision = config.vision_config
    rate = temporal_rate(config.to_dict(), name, timestamps)
    return Geometry(vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size, rate)
