"""GRPO on videos with `trl.GRPOTrainer`: one prompt, one tower pass, one decode a group.

    trainer = VideoGRPOTrainer(model, reward_funcs, args=VideoGRPOConfig(...), train_dataset=rows,
                               processing_class=processor, encode_prompt=encode)

`VideoGRPOTrainer` is in `trainer`, its options are here. `encode` turns a row into the processor's output for its
prompt (see `groups.EncodePrompt`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from trl.trainer.grpo_config import GRPOConfig

SCORING = ("shared_prefix", "packed_mask", "repeated")
ROLLOUTS = ("shared_prefix", "repeated")


@dataclass
class VideoGRPOConfig(GRPOConfig):  # type: ignore[misc]
    """`trl.GRPOConfig` with what a video needs. Everything of trl's keeps its meaning.

    Let `per_device_train_batch_size` be a multiple of `num_generations`: a group that is split over two forwards has
    its prompt read twice.

    Attributes:
        scoring: of completions: `shared_prefix` (prompt once a group, registered attention), `packed_mask` (prompt once,
            one mask on plain sdpa), `repeated` (as trl does, the reference).
        rollouts: sampling of completions: `shared_prefix` (prompt read once a group) or `repeated` (`generate`).
        banned_token_ids: never sampled, beside the image and video tokens, which are always banned.
        dynamic_sampling: tries to replace groups of equal rewards by other samples (DAPO, arXiv 2503.14476); 0 keeps them.
        groups_per_loss: groups whose tokens are averaged together (bnpo, the entropy bonus), however many ranks share them;
            0: those of a forward.
        fast_vision: speed up the vision tower (same numbers).
        encode_threads: threads that encode the next step's prompts during this one; 0 encodes in place.
    """

    scoring: str = "shared_prefix"
    rollouts: str = "shared_prefix"
    banned_token_ids: list[int] = field(default_factory=list)
    dynamic_sampling: int = 0
    groups_per_loss: int = 0
    fast_vision: bool = True
    encode_threads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scoring not in SCORING:
            raise ValueError(f"scoring {self.scoring!r}: use one of {', '.join(SCORING)}")
        if self.rollouts not in ROLLOUTS:
            raise ValueError(f"rollouts {self.rollouts!r}: use one of {', '.join(ROLLOUTS)}")
        if self.dynamic_sampling < 0 or self.encode_threads < 0:
            raise ValueError("dynamic_sampling and encode_threads must be 0 or more")
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns must stay False: the row is what a prompt is encoded from")
        if self.use_vllm or self.use_transformers_continuous_batching:
            raise ValueError("the video trainer samples with the model it trains: leave vLLM and continuous batching off")
