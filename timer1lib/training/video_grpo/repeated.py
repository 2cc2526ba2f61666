"""The plain path, as the official trainer goes: every completion with its own copy of prompt and video.

It is what the shared-prefix path is measured and tested against.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from timer1lib.models.encoded import EncodedPrompt, base_model, video_inputs


def repeat_inputs(prompts: Sequence[EncodedPrompt], group: int, pad_token_id: int) -> dict[str, Tensor]:
    """Model inputs with every prompt G times, padded on the left: ids, mask and types (B * G, P), videos B * G times."""
    rows = [prompt for prompt in prompts for _ in range(group)]
    left = partial(pad_sequence, batch_first=True, padding_side="left")
    inputs = {
        "input_ids": left([p.input_ids for p in rows], padding_value=pad_token_id),
        "attention_mask": left([torch.ones_like(p.input_ids) for p in rows]),
        "mm_token_type_ids": left([p.token_types.long() for p in rows]),
        **video_inputs(rows),
    }
    seconds = [prompt.seconds for prompt in rows if prompt.seconds is not None]
    if seconds:
        inputs["second_per_grid_ts"] = torch.cat(seconds)
    return inputs


def score(
    model: nn.Module, policy: nn.Module, prompts: Sequence[EncodedPrompt], completions: Tensor, mask: Tensor, pad_token_id: int
) -> tuple[Tensor, Tensor | None]:
    """As `shared_prefix.score`, with every prompt and video repeated G times.

    Args:
        policy: whose position rule counts, for the reference too.
    """
    batch, group, length = completions.shape
    inputs: dict[str, Any] = dict(repeat_inputs(prompts, group, pad_token_id))
    tokens, real = completions.flatten(0, 1), mask.flatten(0, 1)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], tokens], dim=1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], real.to(inputs["attention_mask"])], dim=1)
    types = inputs.pop("mm_token_type_ids")
    rope = {
        "mm_token_type_ids": torch.cat([types, types.new_zeros(tokens.shape)], dim=1),
        "attention_mask": inputs["attention_mask"],
        "video_grid_thw": inputs.get("video_grid_thw"),
    }
    if "second_per_grid_ts" in inputs:
        rope["second_per_grid_ts"] = inputs.pop("second_per_grid_ts")
    inputs["position_ids"], _ = base_model(policy).model.get_rope_index(inputs["input_ids"], **rope)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    labels[:, :-length] = -100
    output = model(**inputs, labels=labels, fused_lm_head=True)

    def tail(values: Tensor) -> Tensor:
        return values[:, -length:].reshape(batch, group, length)

    return tail(output.log_probs), None if output.entropy is None else tail(output.entropy)


def generate(model: Any, prompts: Sequence[EncodedPrompt], group: int, config: Any, pad_token_id: int, seed: int) -> Tensor:
    """`model.generate` on every prompt G times, under `seed` and without touching the ambient random state.

    Returns:
        New tokens (B, G, C), padded after the end token.
    """
    inputs = repeat_inputs(prompts, group, pad_token_id)
    devices = [inputs["input_ids"].device] if inputs["input_ids"].is_cuda else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        sequences: Tensor = model.generate(**inputs, generation_config=config)
    return sequences[:, inputs["input_ids"].shape[1] :].view(len(prompts), group, -1)
