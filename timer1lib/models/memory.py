"""How much is computed together, by the memory that is free: it changes how fast a result comes, never which."""

from __future__ import annotations

from typing import Any

from timer1lib.models.architecture import ROLLOUT_TOKENS
from timer1lib.models.config import family_of_model

SHARE = 0.4
"""Of the free memory that a batch may be planned to take: what is left is for fragments, and for who else uses the device."""


def free_bytes(device: Any) -> int:
    """Memory that a device could give now: a GPU's with what torch holds unused, else the machine's."""
    if device.type == "cuda":
        import torch

        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + held)
    import psutil

    return int(psutil.virtual_memory().available)


def prompts_together(model: Any, prompt: int, answers: int, length: int) -> int:
    """Prompts of `prompt` tokens, each with `answers` answers of `length` tokens, that fit `SHARE` of the free memory; 1 or more.

    Arithmetic: keys and values of all tokens, one layer's activations of the prompt, logits and their float64 sums.
    """
    weight = next(model.parameters())
    sizes, width = family_of_model(model).architecture(model.config.to_dict(), "the model"), weight.element_size()
    keys = sizes.key_bytes(prompt + answers * length, width)
    layer = prompt * (6 * sizes.hidden + 2 * sizes.query_width + 3 * sizes.intermediate) * width
    logits = answers * sizes.vocabulary * (4 + 8 + 8)
    return max(1, int(SHARE * free_bytes(weight.device) / (keys + layer + logits)))


def rollout_tokens(model: Any, prompt: int, group: int, length: int) -> int:
    """Prompt tokens that a group's completions are sampled from together; on a CPU, which gains nothing by it, no more than
    `ROLLOUT_TOKENS`."""
    most = prompts_together(model, prompt, group, length) * prompt
    return most if next(model.parameters()).device.type == "cuda" else min(most, ROLLOUT_TOKENS)
