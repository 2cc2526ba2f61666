"""Parameters of the notebook difficulty."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from timer1lib.params.base import Section


class DifficultyParams(Section):
    enabled: bool = Field(True, description="False asks and selects nothing; `timer1 run` gives False where GRPO is off")
    difficulty_model: Literal["start", "sft", "base", "published"] = Field(
        "start",
        description="who judges: the model RL starts from (sft where 02 trained one, else base), checkpoints/sft, shared.model, "
        "or the answers that TimeRFT's file brings",
    )
    pool: str = Field("train", description="split that difficulty is measured on")
    max_new_tokens: int = Field(48, ge=1, le=4096, description="tokens of an answer at most")
    batch_size: int = Field(32, ge=1, le=1024, description="answers generated together")
    rollouts: int = Field(0, ge=0, le=64, description="sampled answers a sample for top_variance; 0 asks none")
    rollout_temperature: float = Field(1.0, gt=0, le=5, description="temperature of those answers")
    rollout_reward: str = Field("tiou, format", description="rewards added up for them (names of timer1lib/rewards.py)")
    rule: Literal["gaussian", "uniform", "band", "random", "top_variance", "all"] = Field("all", description="selection rule")
    n: int = Field(0, ge=0, description="samples to select, at most; 0 takes all that the rule allows")
    mean: float = Field(0.3, ge=-1, le=2, description="gaussian: IoU with the largest weight")
    std: float = Field(0.2, gt=0, le=10, description="gaussian: width in IoU")
    low: float = Field(0.0, ge=-1, lt=1, description="gaussian, uniform, band: only IoU above this")
    high: float = Field(0.7, gt=-1, le=1, description="band: only IoU up to this")
    bins: int = Field(10, ge=1, le=100, description="uniform: steps of IoU with equal shares")
