"""Parameters of the notebook inspect."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from timer1lib.params.base import Section


class InspectParams(Section):
    splits: str = Field("", description="splits to look at, comma-separated; empty: every grounding split that has predictions")
    checkpoints: str = Field("", description="checkpoints to look at, comma-separated; empty: every one that has predictions")
    compare_from: str = Field(
        "base", description="checkpoint that differences of IoU start from; the first there is where it has no predictions"
    )
    compare_to: str = Field(
        "grpo", description="checkpoint that differences of IoU go to; the last there is where it has no predictions"
    )
    reward: Literal["tiou", "iou", "tiou_centered", "format", "tvg_r1"] = Field(
        "tiou", description="reward shown while an edge is dragged"
    )
    rollout_groups: int = Field(400, ge=1, le=100_000, description="groups of rollouts to look at, the last ones of training")
    video_mb: float = Field(
        12.0, gt=0.1, le=200, description="largest video in MB that is handed to the browser; longer ones are encoded smaller"
    )
    static_samples: int = Field(
        6, ge=0, le=100, description="samples drawn where there is no kernel: the executed notebook, its HTML"
    )
