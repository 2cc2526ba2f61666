"""Parameters that several notebooks share: seed, model, what the model sees and how it is asked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from timer1lib.params.base import Section


class SharedParams(Section):
    seed: int = Field(0, ge=0, description="seed of every random choice of the run")
    model: str = Field("assets/tiny-qwen3-vl", description="base model: a folder or a hub id (Qwen2.5-VL or Qwen3-VL)")
    template: str = Field("brief", description="prompt: a name in timer1lib/prompts.py or a template file")
    parser: Literal["timer1", "timer1_eval", "tvg_r1", "timelens"] = Field(
        "timer1", description="how answers are read and what form they must have"
    )
    sampling: Literal["fps", "frames"] = Field("frames", description="sample by rate (fps) or a fixed number of frames")
    fps: float = Field(2.0, gt=0, le=60, description="frames a second where sampling is fps")
    frames: int = Field(32, ge=2, le=4096, description="frames a video where sampling is frames; the cap where it is fps")
    min_frame_pixels: int = Field(56 * 56, ge=1, description="pixels a frame has at least")
    total_pixels: int = Field(
        16 * 56 * 56, ge=1, description="pixels a video has at most, the two frames of a temporal patch counting once"
    )
    clock_rule: Literal["auto", "published", "installed", "wrong_text"] = Field(
        "auto",
        description="positions: published rule, the library's, or published where they differ; wrong_text is for the experiment",
    )
    timestamps: Literal["auto", "text", "positions"] = Field(
        "auto",
        description="how times are told: text before each frame pair, or temporal positions (Qwen2.5-VL alone); "
        "auto is what the model's config.json or its family says",
    )
    time_scale: float = Field(
        1.0, gt=0, le=10, description="told times are this times the true ones; 1.0 but in the wrong-clock experiment"
    )
    dtype: Literal["float32", "bfloat16", "float64"] = Field("float32", description="number type of weights and activations")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field(
        "sdpa", description="attention implementation of the text model"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where models run; auto takes a GPU where there is one")
    threads: int = Field(1, ge=0, le=256, description="CPU threads of torch; the tiny model wants one; 0 leaves it to torch")
    cache_dir: str = Field("outputs/.cache", description="decoded frames and vision features, shared by all runs")
    cache_gb: float = Field(4.0, gt=0, description="largest size of that cache in GB; the oldest entries go first")
    workers: int = Field(2, ge=0, le=64, description="processes that decode videos ahead of the model; 0 decodes in place")
