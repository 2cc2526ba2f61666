"""Parameters of 02_sft: the cold start that teaches the answer's form."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from timer1lib.params.base import Section


class SftParams(Section):
    enabled: bool = Field(True, description="False leaves the base as it is: RL then starts from the base")
    samples: int = Field(150, ge=0, description="cold-start samples to learn from; 0 takes all of data/cold_start.jsonl")
    steps: int = Field(30, ge=1, description="optimizer steps")
    batch_size: int = Field(16, ge=1, description="samples a step")
    micro_batch_size: int = Field(16, ge=1, description="samples a forward pass; smaller ones are accumulated to the batch size")
    learning_rate: float = Field(2.0e-4, gt=0, description="peak learning rate of AdamW")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="learning-rate schedule after the warm-up")
    warmup_share: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    lora_rank: int = Field(
        0, ge=0, le=512, description="rank of LoRA adapters on the text model; 0 trains the weights themselves"
    )
    freeze_vision: bool = Field(True, description="keep the vision tower (not its merger) as it is")
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass to save memory")
    save_every: int = Field(20, ge=1, description="steps between checkpoints, from which a killed run goes on")
