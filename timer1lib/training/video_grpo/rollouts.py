"""Sampling G completions of each of B prompts with every prompt read once.

One forward reads the prompts; from then on a forward a token advances all B x G completions, the G of a prompt as one
row of G tokens whose attention meets the prompt's keys in a single product. What `generate` does per token beside the
forward (its own bookkeeping) is left out; logits go through transformers' own processors, so greedy tokens are those
of `generate` and sampled ones have its distribution.

Every completion draws from its own stream of uniform numbers, made from a seed on the CPU before sampling. So what is
sampled depends on weights, prompt and seed alone, not on the device's generator or on which prompts share the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from timer1lib.training.video_grpo.attention import Rollout
from timer1lib.training.video_grpo.encoded import EncodedPrompt, padded, video_inputs

_UNDERSTOOD = {
    "max_new_tokens", "do_sample", "pad_token_id", "bos_token_id", "eos_token_id", "temperature", "top_p", "top_k", "min_p",
    "repetition_penalty", "cache_implementation", "suppress_tokens",
}  # fmt: skip


def seed_from(*parts: object) -> int:
    """A 63-bit seed that differs wherever a part differs: (run seed, step, group, ...)."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def check_generation_kwargs(kwargs: dict[str, Any]) -> None:
    """Refuse generation options that shared-prefix rollouts do not carry out: a ValueError names the option."""
    unknown = {key for key, value in kwargs.items() if key not in _UNDERSTOOD and value is not None}
    if unknown:
        raise ValueError(
            f"generation option {sorted(unknown)[0]!r} is not carried out by shared-prefix rollouts; "
            "leave it out or use rollouts='repeated'"
        )


def logits_processors(kwargs: dict[str, Any], device: torch.device) -> Any:
    """transformers' processors for these options, in the order in which `generate` applies them."""
    from transformers.generation import logits_process as g

    chain = g.LogitsProcessorList()
    if (penalty := kwargs.get("repetition_penalty")) not in (None, 1.0):
        chain.append(g.RepetitionPenaltyLogitsProcessor(penalty=penalty))
    if banned := kwargs.get("suppress_tokens"):
        chain.append(g.SuppressTokensLogitsProcessor(banned, device=str(device)))
    if kwargs.get("do_sample", True):
        if (temperature := kwargs.get("temperature")) not in (None, 1.0):
            chain.append(g.TemperatureLogitsWarper(temperature))
        if top_k := kwargs.get("top_k"):
            chain.append(g.TopKLogitsWarper(top_k))
        if (top_p := kwargs.get("top_p")) is not None and top_p < 1.0:
            chain.append(g.TopPLogitsWarper(top_p))
        if (min_p := kwargs.get("min_p")) is not None:
            chain.append(g.MinPLogitsWarper(min_p))
    return chain


@torch.no_grad()
def generate(
    base: Any, prompts: Sequence[EncodedPrompt], group: int, kwargs: dict[str, Any], pad_token_id: int, seeds: Sequence[int]
) -> Tensor:
    """Sample (or, with `do_sample=False`, decode greedily).

    `base` is the `...ForConditionalGeneration`, with `attention.install` done; `kwargs` are trl's `generation_kwargs`, and
    there is a seed a prompt. Returns new tokens (B, G, C), padded after the end token.
    """
    device = prompts[0].input_ids.device
    batch, steps = len(prompts), int(kwargs["max_new_tokens"])
    eos = kwargs.get("eos_token_id")
    ends = torch.tensor([eos] if isinstance(eos, int) else list(eos or []), device=device)
    chain = logits_processors(kwargs, device)
    draws = None
    if kwargs.get("do_sample", True):
        streams = [torch.rand(group, steps, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in seeds]
        draws = torch.stack(streams).to(device)

    ids, positions, lengths, real = padded([(p.input_ids, p.positions) for p in prompts], pad_token_id)
    state = Rollout(real, steps)
    unread = torch.ones(1, 1, 1, 1, device=device)
    common = {"attention_mask": unread, "shared_prefix": state, "use_cache": False}
    hidden = base.model(input_ids=ids, position_ids=positions, **video_inputs(prompts), **common).last_hidden_state
    logits = base.lm_head(hidden[torch.arange(batch, device=device), lengths - 1])
    logits = logits[:, None].expand(-1, group, -1)

    starts = lengths + torch.tensor([p.delta for p in prompts], device=device)
    embed = base.get_input_embeddings()
    tokens = torch.full((batch, group, steps), pad_token_id, dtype=torch.long, device=device)
    done = torch.zeros(batch, group, dtype=torch.bool, device=device)
    for step in range(steps):
        scores = _processed(chain, logits, ids, lengths, tokens[:, :, :step])
        chosen = scores.argmax(-1) if draws is None else _pick(scores, draws[:, :, step])
        chosen = chosen.masked_fill(done, pad_token_id)
        tokens[:, :, step] = chosen
        done |= torch.isin(chosen, ends)
        if step + 1 == steps or bool(done.all()):
            return tokens[:, :, : step + 1]
        state.step = step
        at = (starts + step)[None, :, None].expand(3, -1, group)
        hidden = base.model.language_model(inputs_embeds=embed(chosen), position_ids=at, **common).last_hidden_state
        logits = base.lm_head(hidden)
    return tokens


def _processed(chain: Any, logits: Tensor, ids: Tensor, lengths: Tensor, tokens: Tensor) -> Tensor:
    """Logits (B, G, V) in float32, as `generate` takes them, after the processors."""
    flat = logits.reshape(-1, logits.shape[-1]).float()
    if not len(chain):
        return flat.view(logits.shape)
    seen = ids[:, :0].repeat_interleave(tokens.shape[1], 0)
    if any(type(processor).__name__.startswith("Repetition") for processor in chain):
        # A pad would be punished as if it had been said: give short prompts their own last token in its place.
        index = torch.arange(ids.shape[1], device=ids.device).minimum(lengths[:, None] - 1)
        seen = torch.cat([ids.gather(1, index).repeat_interleave(tokens.shape[1], 0), tokens.flatten(0, 1)], dim=1)
    scores: Tensor = chain(seen, flat)
    return scores.view(logits.shape)


def _pick(scores: Tensor, draw: Tensor) -> Tensor:
    """Sample from softmax(scores) (B, G, V) by inverse distribution function at `draw` (B, G) in [0, 1)."""
    cumulative = scores.double().softmax(-1).cumsum(-1)
    target = draw[..., None] * cumulative[..., -1:]
    # First index whose cumulative weight exceeds the target: a token of weight 0 is never it.
    picked = torch.searchsorted(cumulative, target, right=True)[..., 0]
    return picked.clamp(max=scores.shape[-1] - 1)


def cut_after_end(tokens: Tensor, ends: Sequence[int]) -> list[list[list[int]]]:
    """(B, G, C) as lists that stop after the first end token."""
    return [[row[: next((i + 1 for i, t in enumerate(row) if t in ends), None)] for row in group] for group in tokens.tolist()]
