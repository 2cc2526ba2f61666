"""Shared-prefix rollouts: greedy tokens are generate's, sampled ones have its distribution, and seeds are all there is."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from grpo_models import BANNED, EOS, FAMILIES, PAD, VOCAB, random_model, video_prompt  # noqa: E402

from timer1lib.models import rollouts, shared_attention  # noqa: E402
from timer1lib.models.encoded import EncodedPrompt, encode  # noqa: E402
from timer1lib.models.fast_vision import speed_up_vision  # noqa: E402
from timer1lib.training.video_grpo import repeated  # noqa: E402

GRIDS = [((3, 4, 6), 7), ((2, 8, 4), 12), ((1, 4, 4), 3)]


def options(**changes: Any) -> dict[str, Any]:
    plain = {"max_new_tokens": 8, "do_sample": True, "pad_token_id": PAD, "eos_token_id": [EOS], "suppress_tokens": BANNED}
    return {**plain, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": None, "repetition_penalty": 1.0, **changes}


def model_and_prompts(family: str, count: int = 3) -> tuple[Any, list[EncodedPrompt], list[dict[str, Any]]]:
    model = random_model(family).eval()
    raw = [video_prompt(family, grid, words, seed=i) for i, (grid, words) in enumerate(GRIDS[:count])]
    return model, [encode(model, row, str(i)) for i, row in enumerate(raw)], raw


def generated(model: Any, raw: dict[str, Any], **changes: Any) -> list[int]:
    """Greedy tokens of the plain model for one prompt, by `generate`."""
    out = model.generate(
        **raw, max_new_tokens=8, do_sample=False, suppress_tokens=BANNED, eos_token_id=EOS, pad_token_id=PAD, **changes
    )
    return out[0, raw["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_is_generate(family: str) -> None:
    model, prompts, raw = model_and_prompts(family)
    expected = [generated(model, row) for row in raw]
    assert len({tuple(row) for row in expected}) == len(raw)  # the prompts do matter
    shared_attention.install(speed_up_vision(model))
    tokens = rollouts.generate(model, prompts, 2, options(do_sample=False), PAD, [0, 0, 0])
    for row, group in zip(expected, rollouts.cut_after_end(tokens, [EOS]), strict=True):
        assert group == [row, row]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_with_a_penalty_is_generate(family: str) -> None:
    model, prompts, raw = model_and_prompts(family, count=1)
    expected = generated(model, raw[0], repetition_penalty=0.3)
    assert expected != generated(model, raw[0])
    shared_attention.install(model)
    tokens = rollouts.generate(model, prompts, 1, options(do_sample=False, repetition_penalty=0.3), PAD, [0])
    assert rollouts.cut_after_end(tokens, [EOS]) == [[expected]]


def test_a_forgotten_delta_shows_in_the_rollouts() -> None:
    model, prompts, raw = model_and_prompts("qwen2_5_vl", count=1)
    expected = generated(model, raw[0])
    shared_attention.install(model)
    prompts[0].delta += 40
    tokens = rollouts.generate(model, prompts, 1, options(do_sample=False), PAD, [0])
    assert rollouts.cut_after_end(tokens, [EOS]) != [[expected]]


def chi_square(counts: Any, probabilities: Any) -> tuple[float, int]:
    """Pearson's statistic over tokens expected at least 5 times, the rest as one; and its degrees of freedom."""
    expected = probabilities * counts.sum()
    often = expected >= 5
    observed = torch.cat([counts[often], counts[~often].sum()[None]])
    wanted = torch.cat([expected[often], expected[~often].sum()[None]])
    kept = wanted > 0
    return float(((observed - wanted)[kept] ** 2 / wanted[kept]).sum()), int(kept.sum()) - 1


@pytest.mark.parametrize("changes", [{}, {"temperature": 0.6}, {"top_k": 12}, {"top_p": 0.7}, {"min_p": 0.1}], ids=str)
def test_sampled_tokens_have_the_model_s_distribution(changes: dict[str, Any]) -> None:
    """First and second tokens of many rollouts against probabilities worked out from the plain forward."""
    model, prompts, raw = model_and_prompts("qwen3_vl", count=1)
    with torch.no_grad():
        for parameter in (model.lm_head.weight,):
            parameter.mul_(0.5)  # a softer distribution: many tokens are likely
        logits = model(**raw[0]).logits[0, -1].clone()
    logits[BANNED] = -torch.inf
    probabilities = wanted_distribution(logits, **changes)
    shared_attention.install(model)
    draws = 4000
    tokens = rollouts.generate(model, prompts, draws, options(max_new_tokens=2, **changes), PAD, [11])
    counts = torch.bincount(tokens[0, :, 0], minlength=VOCAB).double()
    assert counts[probabilities == 0].sum() == 0
    statistic, freedom = chi_square(counts, probabilities)
    assert freedom > 3
    assert statistic < freedom + 4 * (2 * freedom) ** 0.5  # 4 standard deviations
    wrong = probabilities.roll(1)
    assert chi_square(counts, wrong)[0] > freedom + 40 * (2 * freedom) ** 0.5  # and the test can fail
    first = int(counts.argmax())
    if first != EOS:  # the second token, given the likeliest first one
        with torch.no_grad():
            longer = dict(raw[0])
            longer["input_ids"] = torch.cat([longer["input_ids"], torch.tensor([[first]])], 1)
            longer["attention_mask"] = torch.ones_like(longer["input_ids"])
            longer["mm_token_type_ids"] = torch.cat([longer["mm_token_type_ids"], torch.zeros(1, 1, dtype=torch.int)], 1)
            model.model.rope_deltas = None
            logits = model(**longer).logits[0, -1].clone()
        logits[BANNED] = -torch.inf
        second = torch.bincount(tokens[0, tokens[0, :, 0] == first, 1], minlength=VOCAB).double()
        statistic, freedom = chi_square(second, wanted_distribution(logits, **changes))
        assert statistic < freedom + 4 * (2 * max(freedom, 1)) ** 0.5


def wanted_distribution(logits: Any, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Any:
    """The definition of each option, written out."""
    probabilities = (logits / temperature).softmax(-1)
    order = probabilities.argsort(descending=True)
    keep = torch.ones(len(logits), dtype=torch.bool)
    if top_k:
        keep[order[top_k:]] = False
    if top_p < 1:
        before = probabilities[order].cumsum(0) - probabilities[order]
        keep[order[before >= top_p]] = False
    if min_p:
        keep &= probabilities >= min_p * probabilities.max()
    kept = probabilities * keep
    return kept / kept.sum()


def test_rollouts_depend_on_their_seed_and_not_on_company_or_ambient_randomness() -> None:
    model, prompts, _ = model_and_prompts("qwen3_vl")
    shared_attention.install(model)
    torch.manual_seed(0)
    together = rollouts.generate(model, prompts, 3, options(), PAD, [1, 2, 3])
    state = torch.get_rng_state()
    alone = rollouts.generate(model, prompts[1:2], 3, options(), PAD, [2])
    assert torch.equal(torch.get_rng_state(), state)
    width = alone.shape[-1]
    assert torch.equal(together[1, :, :width], alone[0])
    other = rollouts.generate(model, prompts[1:2], 3, options(), PAD, [4])
    assert not torch.equal(other[..., : min(width, other.shape[-1])], alone[..., : min(width, other.shape[-1])])


def test_vision_tokens_are_never_sampled_and_ends_end() -> None:
    model, prompts, _ = model_and_prompts("qwen3_vl", count=2)
    with torch.no_grad():
        model.lm_head.weight.zero_()  # every token is as likely as any other
    shared_attention.install(model)
    tokens = rollouts.generate(model, prompts, 64, options(max_new_tokens=60), PAD, [1, 2])
    rows = [row for group in rollouts.cut_after_end(tokens, [EOS]) for row in group]
    said = {token for row in rows for token in row}
    assert not said & set(BANNED)
    assert len(said) > 140
    assert any(row[-1] == EOS and len(row) < 60 for row in rows)
    assert all(EOS not in row[:-1] for row in rows)
    after = torch.cat(
        [tokens[i, j, len(row) :] for (i, j), row in zip([(i, j) for i in range(2) for j in range(64)], rows, strict=True)]
    )
    assert set(after.tolist()) <= {PAD}


def test_plain_rollouts_have_their_own_seed() -> None:
    from transformers import GenerationConfig

    model, prompts, _ = model_and_prompts("qwen2_5_vl")
    config = GenerationConfig(**options(max_new_tokens=4), disable_compile=True)
    state = torch.get_rng_state()
    first = repeated.generate(model, prompts, 2, config, PAD, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(first, repeated.generate(model, prompts, 2, config, PAD, seed=5))


def test_an_option_that_is_not_carried_out_is_refused() -> None:
    with pytest.raises(ValueError, match="'num_beams'"):
        rollouts.check_generation_kwargs({"num_beams": 4, "temperature": 0.5})


def test_seeds_differ_in_every_part() -> None:
    seeds = {rollouts.seed_from(a, b, c) for a in range(5) for b in range(5) for c in range(5)}
    assert len(seeds) == 125
    assert rollouts.seed_from(1, 23) != rollouts.seed_from(12, 3)
