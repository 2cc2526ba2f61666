"""The families' vision towers, faster on unmodified classes and with the same numbers.

transformers runs one attention call a frame (or a window), a Conv3d for what is a matrix product, and computes index
tables anew on every call. With many small frames, and on a CPU above all, that overhead is most of the time.
`speed_up_vision` replaces these on one model instance:

- all frames or windows of equal length go through one batched attention call;
- the patch embedding (kernel = stride) is one matrix product with the same weight;
- tables that depend on the grid alone (positions, interpolation, window order) are kept for the grids seen last.

Weights, state dict, configuration and classes stay as they are. With a flash attention tower, whose kernels take
frames of any length in one call, the attention is left alone.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from timer1lib.models.config import family_of_model
from timer1lib.weak import WeakMethod

_MARK = "_timer1_fast_vision"
GRIDS_KEPT = 64
"""How many grids' tables are kept a model."""


def speed_up_vision(model: nn.Module) -> nn.Module:
    """Speed up the tower of `model` (wrapped in PEFT or not, or the tower itself) in place; a second call changes nothing."""
    family = family_of_model(model)
    tower: Any = family.tower(model)
    if getattr(tower, _MARK, None):
        return model
    setattr(tower, _MARK, family)
    tower.patch_embed.forward = WeakMethod(_patch_embed, tower.patch_embed)
    for block in tower.blocks:
        block.attn.forward = WeakMethod(_attention, block.attn)
    tower.register_forward_pre_hook(_add_tables, with_kwargs=True)
    return model


def _patch_embed(self: Any, hidden_states: Tensor) -> Tensor:
    """Conv3d whose kernel equals its stride, as a matrix product: (patches, in * t * p * p) -> (patches, hidden)."""
    weight = self.proj.weight
    flat = hidden_states.reshape(-1, weight[0].numel()).to(weight.dtype)
    return nn.functional.linear(flat, weight.reshape(weight.shape[0], -1), self.proj.bias)


def _attention(
    self: Any,
    hidden_states: Tensor,
    cu_seqlens: Tensor,
    position_embeddings: tuple[Tensor, Tensor] | None = None,
    max_seqlen: int | None = None,
    **kwargs: Any,
) -> Tensor:
    """The tower's attention over chunks `cu_seqlens`, chunks of equal length in one call. (patches, hidden) in and out."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    implementation = str(self.config._attn_implementation or "eager")
    if "flash" in implementation:
        return type(self).forward(  # type: ignore[no-any-return]
            self, hidden_states, cu_seqlens, position_embeddings=position_embeddings, max_seqlen=max_seqlen, **kwargs
        )
    assert position_embeddings is not None
    module = __import__(type(self).__module__, fromlist=["eager_attention_forward"])
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, module.eager_attention_forward)
    rows = hidden_states.shape[0]
    query, key, value = self.qkv(hidden_states).reshape(rows, 3, self.num_heads, -1).permute(1, 0, 2, 3).unbind(0)
    query, key = module.apply_rotary_pos_emb_vision(query, key, *position_embeddings)

    def chunks(states: Tensor, count: int) -> Tensor:
        return states.reshape(count, -1, *states.shape[1:]).transpose(1, 2)

    dropout = self.attention_dropout if self.training else 0.0
    outputs = []
    plan = _plan(tuple(cu_seqlens.tolist()))
    for count, index in plan:
        if index is not None:
            index = index.to(hidden_states.device)
        q, k, v = (chunks(x if index is None else x[index], count) for x in (query, key, value))
        out = attend(self, q, k, v, attention_mask=None, scaling=self.scaling, dropout=dropout, is_causal=False, **kwargs)[0]
        outputs.append(out.reshape(-1, out.shape[-2] * out.shape[-1]))
    if len(plan) == 1:
        joined = outputs[0]
    else:
        order = torch.cat([index for _, index in plan if index is not None]).to(hidden_states.device)
        joined = torch.cat(outputs)[torch.argsort(order)]
    return self.proj(joined)  # type: ignore[no-any-return]


@lru_cache(maxsize=GRIDS_KEPT)
def _plan(bounds: tuple[int, ...]) -> list[tuple[int, Tensor | None]]:
    """Chunks between `bounds` by length: (how many, rows of their tokens; None where all chunks have one length)."""
    lengths: dict[int, list[int]] = {}
    for start, end in pairwise(bounds):
        if end > start:
            lengths.setdefault(end - start, []).append(start)
    if len(lengths) == 1:
        (starts,) = lengths.values()
        return [(len(starts), None)]
    return [(len(starts), (torch.tensor(starts)[:, None] + torch.arange(length)).flatten()) for length, starts in lengths.items()]


def _add_tables(tower: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Give the tower's forward the tables of a grid that it has seen, instead of having them computed again."""
    grid = kwargs.get("grid_thw", args[1] if len(args) > 1 else None)
    if grid is None:
        return None
    kept: dict[Any, dict[str, Tensor]] = tower.__dict__.setdefault("_timer1_tables", {})
    key = (tuple(map(tuple, grid.tolist())), grid.device)
    tables = kept.pop(key, None)
    if tables is None:
        tables = getattr(tower, _MARK).tower_tables(tower, grid)
        if len(kept) >= GRIDS_KEPT:
            del kept[next(iter(kept))]
    kept[key] = tables
    return args, {**tables, **kwargs}
