"""Attention in which several texts share what stands before them, registered with transformers for unmodified model classes.

A text model whose `_attn_implementation` is `shared_prefix` behaves as with sdpa, until its forward is called with
`shared_prefix=layout`. The layout then says what each token sees:

- `PackedGroups` (training): per batch row `prefix | completion 1 | ... | completion G`. The prefix is causal; every
  completion sees the whole prefix and itself. No mask of the packed length squared is made, and the prefix meets the
  flash kernel.
- `Rollout` (sampling): first the prompts, whose keys and values are kept once a group; then one token a completion
  and call. Completions may begin with texts of their own: the questions about one video.

The implementation stays set for the whole life of the model: under gradient checkpointing the backward pass calls
the attention again, long after the forward.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

NAME = "shared_prefix"


class Layout(Protocol):
    """Who sees whom in one forward."""

    def attend(self, layer: int, last: bool, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """(B, heads, L, D), twice (B, key heads, L, D) -> (B, heads, L, D). `last`: no layer comes after this one."""


def install(model: Any) -> None:
    """Let the text part of a model take `shared_prefix` layouts; without one its attention is sdpa.

    Raises:
        ValueError: the text model has sliding-window layers, which a shared prefix does not describe.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    text = model.config.get_text_config()
    if any(kind != "full_attention" for kind in getattr(text, "layer_types", None) or []):
        raise ValueError("the shared-prefix path needs full attention in every layer; this model has sliding windows")
    AttentionInterface.register(NAME, attention_forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    if text._attn_implementation != NAME:
        model.set_attn_implementation({"text_config": NAME, "vision_config": model.config.vision_config._attn_implementation})


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    shared_prefix: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls in every text layer. Returns (B, L, heads, D) and no weights."""
    if shared_prefix is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        plain: Any = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs)
        return plain[0], None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer, config = cast(int, module.layer_idx), cast(Any, module.config)
    last = layer == config.num_hidden_layers - 1
    out = shared_prefix.attend(layer, last, query, key, value, scale)
    return out.transpose(1, 2).contiguous(), None


@dataclass(frozen=True)
class PackedGroups:
    """Rows of `prefix (P) | completions (G x C)`, prefixes padded on the right."""

    prefix: int  # P, the padded length
    group: int  # G
    length: int  # C
    prefix_mask: Tensor | None = None  # (B, P), True at real tokens; None where no prefix is padded

    def attend(self, layer: int, last: bool, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        batch, heads, _, width = query.shape
        size = self.prefix
        if last:  # nobody reads the prompt's last outputs: its tokens are not scored
            head = query.new_zeros(batch, heads, size, width)
        else:  # pads follow the real tokens, so causality alone keeps them out of sight
            head = _sdpa(query[:, :, :size], key[:, :, :size], value[:, :, :size], scale, causal=True)

        def own(states: Tensor) -> Tensor:
            split = states[:, :, size:].reshape(batch, -1, self.group, self.length, width)
            return split.transpose(1, 2).flatten(0, 1)

        def seen(states: Tensor) -> Tensor:
            shared = states[:, None, :, :size].expand(-1, self.group, -1, -1, -1).flatten(0, 1)
            return torch.cat([shared, own(states)], dim=2)

        tail = _sdpa(own(query), seen(key), seen(value), scale, mask=self._tail_mask(query))
        tail = tail.reshape(batch, self.group, heads, self.length, width).transpose(1, 2).flatten(2, 3)
        return torch.cat([head, tail], dim=2)

    def _tail_mask(self, query: Tensor) -> Any:
        """What a completion's tokens see of `prefix | itself`: causal from the bottom right, less the prefix's pads."""
        if self.prefix_mask is None and query.is_cuda:
            from torch.nn.attention.bias import causal_lower_right

            return causal_lower_right(self.length, self.prefix + self.length)  # the flash kernel's own, no mask in memory
        causal = torch.ones(self.length, self.length, dtype=torch.bool, device=query.device).tril()
        if self.prefix_mask is None:
            return torch.cat([causal.new_ones(self.length, self.prefix), causal], dim=1)
        shared = self.prefix_mask.repeat_interleave(self.group, 0)[:, None, :].expand(-1, self.length, -1)
        return torch.cat([shared, causal.expand(len(shared), -1, -1)], dim=2)[:, None]

    def dense_mask(self, batch: int, device: torch.device) -> Tensor:
        """The same as one mask (B, 1, L, L) for plain sdpa: True where the row's token sees the column's."""
        length = self.prefix + self.group * self.length
        index = torch.arange(length, device=device)
        segment = torch.where(index < self.prefix, -1, (index - self.prefix) // self.length)
        causal = index[:, None] >= index[None, :]
        related = (segment[None, :] == -1) | (segment[:, None] == segment[None, :])
        mask = (causal & related).expand(batch, 1, -1, -1)
        if self.prefix_mask is None:
            return mask
        real = torch.cat([self.prefix_mask, self.prefix_mask.new_ones(batch, self.group * self.length)], dim=1)
        return mask & (real[:, None, None, :] | torch.eye(length, dtype=torch.bool, device=device))


@dataclass
class Rollout:
    """Keys and values while G completions of each of B prompts are sampled.

    The first forward gets the prompts, (B, P), padded on the right; every later one (B, G): the newest token of each
    completion. A prompt's keys are kept once, not G times, and all G queries meet them in one product.

    Where `begun` is given, the first forward gets `prompt | text 1 | ... | text G`, (B, P + G * T): each completion goes on
    from a text of its own, which sees the prompt and itself.
    """

    prefix_mask: Tensor | None  # (B, P), True at real tokens; None where no prompt is padded
    steps: int  # the most tokens a completion may have
    begun: Tensor | None = None  # (B, G, T), True at the real tokens of the texts, which are padded on the right
    step: int = -1
    shared: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    own: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def attend(self, layer: int, last: bool, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        if self.step < 0:
            return self._read(layer, query, key, value, scale)
        batch, heads, group, width = query.shape
        shared_key, shared_value = self.shared[layer]
        key_heads, length = shared_key.shape[1], shared_key.shape[2]
        if layer not in self.own:
            self._make_room(layer, group)
        at = self._begun_length + self.step
        own_key, own_value = (store[:, :, :, : at + 1] for store in self.own[layer])
        own_key[:, :, :, at], own_value[:, :, :, at] = key, value
        grouped = (query * scale).view(batch, key_heads, heads // key_heads, group, width)
        to_shared = (grouped.flatten(2, 3) @ shared_key.transpose(-1, -2)).view(*grouped.shape[:4], length)
        to_own = (grouped.transpose(2, 3) @ own_key.transpose(-1, -2)).transpose(2, 3)
        if self.prefix_mask is not None:
            to_shared = to_shared.masked_fill(~self.prefix_mask[:, None, None, None, :], float("-inf"))
        if self.begun is not None:
            to_own[..., : self._begun_length].masked_fill_(~self.begun[:, None, None], float("-inf"))
        scores = torch.cat([to_shared, to_own], dim=-1)
        wide = torch.float32 if scores.dtype in (torch.bfloat16, torch.float16) else scores.dtype
        weights = scores.softmax(-1, dtype=wide).to(value.dtype)
        from_shared = (weights[..., :length].flatten(2, 3) @ shared_value).view_as(grouped)
        from_own = (weights[..., length:].transpose(2, 3) @ own_value).transpose(2, 3)
        return (from_shared + from_own).reshape(batch, heads, group, width)

    def _read(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """The first forward."""
        if self.begun is None:
            self.shared[layer] = (key.contiguous(), value.contiguous())  # or every product would copy them first
            return _sdpa(query, key, value, scale, causal=True)
        _, group, begun = self.begun.shape
        size = query.shape[2] - group * begun
        self.shared[layer] = (key[:, :, :size].contiguous(), value[:, :, :size].contiguous())
        if self.steps:
            self._make_room(layer, group)
            for store, states in zip(self.own[layer], (key, value), strict=True):
                store[:, :, :, :begun] = states[:, :, size:].unflatten(2, (group, begun))
        return PackedGroups(size, group, begun, self.prefix_mask).attend(layer, False, query, key, value, scale)

    @property
    def _begun_length(self) -> int:
        """T, 0 where completions begin with nothing of their own."""
        return 0 if self.begun is None else self.begun.shape[2]

    def _make_room(self, layer: int, group: int) -> None:
        """Room for the keys and values of texts and completions of a layer."""
        key, value = self.shared[layer]
        batch, heads, _, width = key.shape
        room = (batch, heads, group, self._begun_length + self.steps, width)
        self.own[layer] = (key.new_empty(room), value.new_empty(room))


def _sdpa(query: Tensor, key: Tensor, value: Tensor, scale: float, *, causal: bool = False, mask: Any = None) -> Tensor:
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1 and query.is_cuda and mask is not None:  # masked grouped heads would fall back to the slow kernel
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
        repeats = 1
    out: Tensor = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=repeats > 1
    )
    return out
