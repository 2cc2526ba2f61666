"""Log-probabilities of G completions of one prompt in one forward, instead of G copies of the prompt.

Per group the sequence is `prompt[:-1] | (last prompt token, c_1 .. c_{C-1}) x G`: each completion starts with its own
copy of the last prompt token, whose output predicts c_1. Several groups stack as batch rows. Positions of every
completion go on where the prompt ends (MRoPE: P - 1 + delta). The result and its gradients are those of the
repeated forward, since a token's output depends on nothing but the tokens it sees and their positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from timer1lib.models.encoded import EncodedPrompt, padded, video_inputs
from timer1lib.models.shared_attention import PackedGroups

IGNORED = -100


@dataclass(frozen=True)
class Packed:
    """Several groups, ready for one forward."""

    inputs: dict[str, Tensor]  # `input_ids` (B, P + G * C), `position_ids` (3, B, P + G * C), pixels or features and grids
    labels: Tensor  # (B, G * C), the token that each completion position predicts; -100 at pads
    layout: PackedGroups


def pack(prompts: Sequence[EncodedPrompt], completions: Tensor, mask: Tensor, pad_token_id: int) -> Packed:
    """Lay out B groups for one forward: completions (B, G, C) are token ids, padded on the right, the mask 1 at theirs."""
    device = completions.device
    batch, group, length = completions.shape
    ids, positions, lengths, real = padded([(p.input_ids[:-1], p.positions[:, :-1]) for p in prompts], pad_token_id)
    last = torch.stack([p.input_ids[-1] for p in prompts])[:, None, None].expand(-1, group, 1)
    tails = torch.cat([last, completions[:, :, :-1]], dim=2).flatten(1)
    starts = lengths + torch.tensor([p.delta for p in prompts], device=device)
    onward = (starts[:, None, None] + torch.arange(length, device=device)).expand(batch, group, length).flatten(1)
    inputs = {
        "input_ids": torch.cat([ids, tails], dim=1),
        "position_ids": torch.cat([positions, onward.expand(3, -1, -1)], dim=2),
        **video_inputs(prompts),
    }
    labels = completions.masked_fill(mask == 0, IGNORED).flatten(1)
    return Packed(inputs, labels, PackedGroups(ids.shape[1], group, length, real))


def score(
    model: nn.Module,
    prompts: Sequence[EncodedPrompt],
    completions: Tensor,
    mask: Tensor,
    pad_token_id: int,
    *,
    dense: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities and entropies of the completions' tokens, with gradients where they are on.

    Args:
        model: policy or reference with trl's fused head and `watch_backbone`; PEFT and DDP wrappers are fine.
        completions, mask: (B, G, C).
        dense: use one mask of the packed length squared on plain sdpa, instead of the registered attention.

    Returns:
        Log-probabilities (B, G, C), 0 at pads, and entropies of the same shape, None where the head gives none.
    """
    packed = pack(prompts, completions, mask, pad_token_id)
    device = completions.device
    # A mask of four dimensions goes through the model untouched; the registered attention does not read it.
    seen: dict[str, Any] = {"attention_mask": torch.ones(1, 1, 1, 1, device=device), "shared_prefix": packed.layout}
    if dense:
        seen = {"attention_mask": packed.layout.dense_mask(len(prompts), device)}
    head: dict[str, Any] = {"shift_labels": packed.labels, "fused_lm_head": True, "completions_from": packed.layout.prefix}
    output = model(**packed.inputs, **seen, **head)
    logps = output.log_probs.view(completions.shape)
    return logps, None if output.entropy is None else output.entropy.view(completions.shape)


def watch_backbone(base: Any) -> None:
    """Let a call of `base` with `completions_from=P` leave out what the first P positions alone would need.

    Their last hidden states are read by nobody, so they are not handed to the head (off Triton devices trl's scores
    every position it is given), and in the last layer only their keys and values are computed: queries, output
    projection and MLP see the completions alone. Nothing changes for other calls.
    """
    base.model.register_forward_hook(_cut, with_kwargs=True)
    last = base.model.language_model.layers[-1]
    last.register_forward_pre_hook(_tell_parts, with_kwargs=True)
    for part in _parts(last):
        part.register_forward_pre_hook(_drop_prefix)
        part.register_forward_hook(_put_prefix_back)


def _parts(layer: Any) -> tuple[Any, ...]:
    return layer.self_attn.q_proj, layer.self_attn.o_proj, layer.mlp


def _cut(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    start = kwargs.get("completions_from")
    if start is not None:
        output.last_hidden_state = output.last_hidden_state[:, start:]
    return output


def _tell_parts(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Runs before every call of the layer, the recomputation under gradient checkpointing included."""
    for part in _parts(layer):
        part.completions_from = kwargs.get("completions_from") or 0


def _drop_prefix(part: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    return (args[0][:, part.completions_from :], *args[1:]) if part.completions_from else None


def _put_prefix_back(part: Any, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
    return nn.functional.pad(output, (0, 0, part.completions_from, 0)) if part.completions_from else None
