"""Parameters of 04_grpo: reinforcement learning with verifiable rewards, and the TimeRFT schedule around it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from timer1lib.params.base import Section


class GrpoParams(Section):
    enabled: bool = Field(True, description="False leaves out reinforcement learning")
    rewards: str = Field(
        "tiou:1.0, format:1.0", description="rewards and their weights: tiou, iou, format, tvg_r1, tiou_centered, grounded_qa"
    )
    schedule: Literal["multi_epoch", "sample_filtering", "easy_to_hard", "hard_to_easy", "staged"] = Field(
        "sample_filtering", description="which samples each epoch trains on"
    )
    epochs: int = Field(2, ge=1, description="phases of the outer loop; sample filtering measures the difficulty anew after each")
    steps_per_epoch: int = Field(0, ge=0, description="optimizer steps of an epoch; 0 sees every sample of the epoch once")
    filter_low: float = Field(0.0, ge=0, le=1, description="sample filtering keeps IoU above this")
    filter_high: float = Field(0.7, ge=0, le=1, description="sample filtering keeps IoU up to this")
    stage_bands: str = Field(
        "0.5:1, 0.25:0.75, 0:0.5", description="IoU bands (low:high) of the staged schedule, one an epoch, easiest first"
    )
    phase_policy: Literal["restart", "carry"] = Field(
        "restart",
        description="restart: fresh optimizer, schedule and reference each epoch (official script); carry: one training",
    )
    prompts_per_step: int = Field(8, ge=1, description="groups a step")
    groups_per_forward: int = Field(
        0,
        ge=0,
        description="groups scored in one forward pass, a divisor of prompts_per_step: fewer take less memory; 0 takes all",
    )
    num_generations: int = Field(8, ge=2, description="rollouts a group, G")
    max_completion_length: int = Field(48, ge=1, description="tokens of a rollout at most")
    temperature: float = Field(1.0, gt=0, description="sampling temperature of the rollouts")
    learning_rate: float = Field(1.5e-4, gt=0, description="peak learning rate of AdamW")
    lr_schedule: Literal["constant", "linear", "cosine"] = Field("linear", description="learning-rate schedule after the warm-up")
    warmup_steps: int = Field(5, ge=0, description="steps in which the learning rate rises")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    beta: float = Field(0.0, ge=0, description="weight of the KL divergence to the reference")
    epsilon: float = Field(0.2, gt=0, description="clipping range of the probability ratio, downwards and upwards")
    epsilon_high: float = Field(0.2, gt=0, description="clipping range upwards; above epsilon it is DAPO's clip-higher")
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo"] = Field(
        "bnpo", description="how token losses are averaged; bnpo is the released trainer's"
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        "group", description="what advantages are divided by: the standard deviation of the group, of the batch, or nothing"
    )
    entropy_coefficient: float = Field(0.0, ge=0, description="weight of an entropy bonus (TVG-R1 uses 1e-3)")
    dynamic_sampling: int = Field(0, ge=0, description="times that a group of equal rewards is drawn anew (DAPO)")
    lora_rank: int = Field(
        0, ge=0, le=512, description="rank of LoRA adapters on the text model; 0 trains the weights themselves"
    )
    freeze_vision: bool = Field(True, description="keep the vision tower (not its merger) as it is")
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass to save memory")
    scoring: Literal["shared_prefix", "packed_mask", "repeated"] = Field(
        "shared_prefix", description="fast scoring of a group, or the plain repeated forward"
    )
    rollouts: Literal["shared_prefix", "repeated"] = Field(
        "shared_prefix", description="fast rollouts of a group, or plain generation"
    )
    cache_features: bool = Field(True, description="keep the frozen vision tower's outputs on disk")
    save_every: int = Field(20, ge=1, description="steps between checkpoints, from which a killed run goes on")
    log_rollouts_every: int = Field(5, ge=1, description="steps between rollouts kept for inspection")
