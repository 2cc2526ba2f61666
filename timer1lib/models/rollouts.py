"""Sampling G completions of each of B prompts with every prompt read once.

One forward reads the prompts; from then on a forward a token advances all B x G completions, the G of a prompt as one
row of G tokens whose attention meets the prompt's keys in a single product. What `generate` does per token beside the
forward (its own bookkeeping) is left out; logits go through transformers' own processors, so greedy tokens are those
of `generate` and sampled ones have its distribution. The completions of a prompt may begin with texts of their own: so
all questions about a video are answered at once, and the video is read once.

Every completion draws from its own stream of uniform numbers, made from a seed on the CPU before sampling. So what is
sampled depends on weights, prompt and seed alone, not on the device's generator or on which prompts share the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from timer1lib.models.encoded import EncodedPrompt, padded, video_inputs
from timer1lib.models.shared_attention import Rollout

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


@dataclass
class Read:
    """Prompts that were read, and what comes next: logits (B, G, V), and the places (B, G) of each completion's first token."""

    state: Rollout
    logits: Tensor
    starts: Tensor
    said: Tensor | None  # (B, G, L): all tokens before a completion, padded on the left with the first; None where nobody asks
    common: dict[str, Any]


@torch.no_grad()
def read(
    base: Any,
    prompts: Sequence[EncodedPrompt],
    group: int,
    pad_token_id: int,
    *,
    texts: Sequence[Sequence[Tensor]] | None = None,
    steps: int = 0,
    remember: bool = False,
) -> Read:
    """Read B prompts in one forward, before G completions of at most `steps` tokens each.

    Args:
        texts: for each prompt at most G texts (T,) that its completions go on from; where it has fewer, its last one fills up.
        remember: keep all tokens in `said`, for processors of logits that look back.
    """
    device = prompts[0].input_ids.device
    ids, positions, lengths, real = padded([(p.input_ids, p.positions) for p in prompts], pad_token_id)
    starts = lengths + torch.tensor([p.delta for p in prompts], device=device)
    unread = torch.ones(1, 1, 1, 1, device=device)
    if texts is None:
        state, ends = Rollout(real, steps), lengths[:, None] - 1
        starts = starts[:, None].expand(-1, group)
    else:
        filled = [[own[min(i, len(own) - 1)] for i in range(group)] for own in texts]
        tails = pad_sequence([text for own in filled for text in own], batch_first=True, padding_value=pad_token_id)
        sizes = torch.tensor([[len(text) for text in own] for own in filled], device=device)
        width = tails.shape[1]
        at = torch.arange(width, device=device)
        state = Rollout(real, steps, at < sizes[..., None])
        onward = (starts[:, None, None] + at).expand(-1, group, -1).flatten(1)
        ends = ids.shape[1] + torch.arange(group, device=device) * width + sizes - 1
        starts = starts[:, None] + sizes
        ids = torch.cat([ids, tails.view(len(prompts), -1)], dim=1)
        positions = torch.cat([positions, onward.expand(3, -1, -1)], dim=2)
    common = {"attention_mask": unread, "shared_prefix": state, "use_cache": False}
    hidden = base.model(input_ids=ids, position_ids=positions, **video_inputs(prompts), **common).last_hidden_state
    logits = base.lm_head(hidden[torch.arange(len(prompts), device=device)[:, None], ends]).expand(-1, group, -1)
    said = None
    if remember:
        own = filled if texts is not None else [[p.input_ids[:0]] * group for p in prompts]
        # A pad would be punished as if it had been said: short ones begin with their own first token again.
        whole = [torch.cat([p.input_ids, text]) for p, each in zip(prompts, own, strict=True) for text in each]
        longest = max(map(len, whole))
        said = torch.stack([torch.cat([text[:1].expand(longest - len(text)), text]) for text in whole])
        said = said.view(len(prompts), group, longest)
    return Read(state, logits, starts, said, common)


@torch.no_grad()
def generate(
    base: Any,
    prompts: Sequence[EncodedPrompt],
    group: int,
    kwargs: dict[str, Any],
    pad_token_id: int,
    seeds: Sequence[int] | Sequence[Sequence[int]],
    texts: Sequence[Sequence[Tensor]] | None = None,
) -> Tensor:
    """Sample (or, with `do_sample=False`, decode greedily).

    `base` is the `...ForConditionalGeneration`, with `shared_attention.install` done; `kwargs` are trl's
    `generation_kwargs`, and there is a seed a prompt; `texts` as in `read`, and then there is a seed a text. Returns new tokens
    (B, G, C), padded after the end token.
    """
    device = prompts[0].input_ids.device
    batch, steps = len(prompts), int(kwargs["max_new_tokens"])
    eos = kwargs.get("eos_token_id")
    ends = torch.tensor([eos] if isinstance(eos, int) else list(eos or []), device=device)
    chain = logits_processors(kwargs, device)
    draws = None
    if kwargs.get("do_sample", True):
        draws = torch.stack([_uniform(seed, group, steps) for seed in seeds]).to(device)

    looks_back = any(type(processor).__name__.startswith("Repetition") for processor in chain)
    begun = read(base, prompts, group, pad_token_id, texts=texts, steps=steps, remember=looks_back)
    logits = begun.logits
    embed = base.get_input_embeddings()
    tokens = torch.full((batch, group, steps), pad_token_id, dtype=torch.long, device=device)
    done = torch.zeros(batch, group, dtype=torch.bool, device=device)
    for step in range(steps):
        scores = _processed(chain, logits, begun.said, tokens[:, :, :step])
        chosen = scores.argmax(-1) if draws is None else _pick(scores, draws[:, :, step])
        chosen = chosen.masked_fill(done, pad_token_id)
        tokens[:, :, step] = chosen
        done |= torch.isin(chosen, ends)
        if step + 1 == steps or bool(done.all()):
            return tokens[:, :, : step + 1]
        begun.state.step = step
        at = (begun.starts + step).expand(3, -1, -1)
        hidden = base.model.language_model(inputs_embeds=embed(chosen), position_ids=at, **begun.common).last_hidden_state
        logits = base.lm_head(hidden)
    return tokens


def _uniform(seed: int | Sequence[int], group: int, steps: int) -> Tensor:
    """Numbers (G, C) from one seed, or for each completion from one of its own; 0 where there are fewer than G."""
    if isinstance(seed, int):
        return torch.rand(group, steps, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    numbers = torch.zeros(group, steps, dtype=torch.float64)
    for row, own in zip(numbers, seed, strict=False):
        row.uniform_(generator=torch.Generator().manual_seed(own))
    return numbers


def _processed(chain: Any, logits: Tensor, said: Tensor | None, tokens: Tensor) -> Tensor:
    """Logits (B, G, V) in float32, as `generate` takes them, after the processors."""
    flat = logits.reshape(-1, logits.shape[-1]).float()
    if not len(chain):
        return flat.view(logits.shape)
    seen = tokens if said is None else torch.cat([said, tokens], dim=2)
    scores: Tensor = chain(seen.flatten(0, 1), flat)
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
