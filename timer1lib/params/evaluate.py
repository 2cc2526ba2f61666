"""Parameters of 05_evaluate: which checkpoints are asked what, and how the answers are scored."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from timer1lib.params.base import Section


class EvaluateParams(Section):
    checkpoints: str = Field(
        "base, sft, grpo", description="checkpoints to evaluate, comma-separated; those that the run has not are left out"
    )
    splits: str = Field("", description="splits to evaluate, comma-separated; empty: all whose names do not start with train")
    comparison: Literal["reaches", "exceeds"] = Field(
        "reaches", description="R1@m counts an IoU that reaches m (most papers) or exceeds it (the script of Time-R1)"
    )
    max_new_tokens: int = Field(48, ge=1, description="tokens of an answer at most")
    batch_size: int = Field(64, ge=1, description="questions that are answered together")
    resamples: int = Field(2000, ge=100, le=100_000, description="bootstrap resamples of the intervals, drawn over videos")
    question_method: Literal["likelihood", "letter", "none"] = Field(
        "likelihood", description="multiple choice by the likelihood of each letter, by a generated letter, or not at all"
    )
    grounded_questions: bool = Field(False, description="also ask questions that have a window for window and letter together")
    grounded_tokens: int = Field(96, ge=1, description="tokens of a grounded answer at most")
    perturb: str = Field(
        "swap, shuffle", description="changed videos for the signature prior-following: swap, shuffle; empty asks none"
    )
    perturb_samples: int = Field(
        160, ge=0, description="samples of each grounding split that are asked about changed videos; 0 asks none"
    )
    shard: str = Field(
        "", description="k/n answers only the k-th of n shares of every split; empty answers all and joins the shares"
    )
