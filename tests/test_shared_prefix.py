"""Scoring G completions against one prompt equals the repeated forward, in numbers and gradients; faults show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from grpo_models import FAMILIES, PAD, double_head, plain_logps, ragged_completions, random_model, video_prompt  # noqa: E402

from timer1lib.models import shared_attention  # noqa: E402
from timer1lib.models.config import family_of_model  # noqa: E402
from timer1lib.models.encoded import EncodedPrompt, encode  # noqa: E402
from timer1lib.models.fast_vision import speed_up_vision  # noqa: E402
from timer1lib.models.features import FeatureCache, accept_features, tower_hash  # noqa: E402
from timer1lib.training.common import freeze_vision_tower  # noqa: E402
from timer1lib.training.video_grpo import repeated, shared_prefix  # noqa: E402

GROUP, LENGTH = 4, 9
GRIDS = [((3, 4, 6), 7), ((2, 8, 4), 12), ((3, 4, 6), 7)]
"""Grid and words of each prompt: different lengths, and two of the same length."""


def prepared(family: str, *, lora: bool = False, checkpointing: bool = False, frozen: bool = False) -> Any:
    """A model as the trainer prepares it."""
    model = random_model(family)
    if frozen:
        freeze_vision_tower(model)
    base = model
    double_head(base)
    if lora:
        import peft

        torch.manual_seed(5)
        targets = ["q_proj", "v_proj", "down_proj"]
        model = peft.get_peft_model(
            model, peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False), autocast_adapter_dtype=False
        )
        model.enable_input_require_grads()
    shared_prefix.watch_backbone(base)
    shared_attention.install(base)
    accept_features(speed_up_vision(base))
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def prompts_of(family: str) -> list[dict[str, Any]]:
    return [video_prompt(family, grid, words, seed=i) for i, (grid, words) in enumerate(GRIDS)]


def loss_of(logps: Any) -> Any:
    """A loss that weighs every token differently, as advantages do."""
    weights = torch.linspace(-1, 1, logps.numel(), dtype=logps.dtype).view(logps.shape).sin()
    return (weights * logps).sum() / 10


def gradients(model: Any) -> dict[str, Any]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@lru_cache(maxsize=32)
def reference(family: str, groups: int = len(GRIDS), lora: bool = False, frozen: bool = False) -> tuple[Any, dict[str, Any]]:
    """Log-probabilities and gradients by the plain model: its own attention, no hooks, one group at a time."""
    raw = prompts_of(family)[:groups]
    tokens, mask = ragged_completions(groups, GROUP, LENGTH)
    model = prepared(family, lora=lora, frozen=frozen)
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    base.set_attn_implementation("sdpa")
    logps = torch.stack([plain_logps(model, raw[i], tokens[i], mask[i]) for i in range(len(raw))])
    loss_of(logps).backward()
    return logps.detach(), gradients(model)


def assert_same(got: Any, expected: Any, grads: dict[str, Any], expected_grads: dict[str, Any]) -> None:
    assert (got - expected).abs().max() < 1e-9
    assert grads.keys() == expected_grads.keys()
    worst = max((grads[n] - expected_grads[n]).abs().max().item() for n in grads)
    assert worst < 1e-6, worst
    assert max(g.abs().max().item() for g in expected_grads.values()) > 1e-2  # there is something to be equal to


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_repeated_forward(family: str, lora: bool, checkpointing: bool) -> None:
    raw = prompts_of(family)
    tokens, mask = ragged_completions(len(raw), GROUP, LENGTH)
    expected, expected_grads = reference(family, lora=lora)
    for dense in (False, True):
        model = prepared(family, lora=lora, checkpointing=checkpointing)
        prompts = [encode(model, row, str(i)) for i, row in enumerate(raw)]
        logps, entropies = shared_prefix.score(model, prompts, tokens, mask, PAD, dense=dense)
        loss_of(logps).backward()
        assert_same(logps.detach(), expected, gradients(model), expected_grads)
        assert entropies is not None
        assert entropies.shape == tokens.shape


@pytest.mark.parametrize("family", FAMILIES)
def test_a_single_group_needs_no_prefix_mask(family: str) -> None:
    raw = prompts_of(family)[:1]
    tokens, mask = ragged_completions(1, GROUP, LENGTH)
    expected, expected_grads = reference(family, groups=1)
    model = prepared(family)
    prompts = [encode(model, raw[0], "0")]
    assert shared_prefix.pack(prompts, tokens, mask, PAD).layout.prefix_mask is None
    logps, _ = shared_prefix.score(model, prompts, tokens, mask, PAD)
    loss_of(logps).backward()
    assert_same(logps.detach(), expected, gradients(model), expected_grads)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("family", FAMILIES)
def test_cached_tower_features_with_a_trained_merger(family: str, checkpointing: bool, tmp_path: Any) -> None:
    raw = prompts_of(family)
    tokens, mask = ragged_completions(len(raw), GROUP, LENGTH)
    expected, expected_grads = reference(family, frozen=True)
    assert any("merger" in name for name in expected_grads)
    model = prepared(family, frozen=True, checkpointing=checkpointing)
    prompts = [encode(model, row, str(i)) for i, row in enumerate(raw)]
    FeatureCache(tmp_path).features(model, tower_hash(model), [(p.video, p.grid) for p in prompts])
    cache = FeatureCache(tmp_path)  # a new process: everything comes from disk
    for prompt, features in zip(
        prompts, cache.features(model, tower_hash(model), [(p.video, p.grid) for p in prompts]), strict=True
    ):
        prompt.video = features
    assert (cache.from_disk, cache.computed) == (len(raw), 0)
    blocks = []
    family_of_model(model).tower(model).blocks[0].register_forward_pre_hook(lambda *_: blocks.append(1))
    logps, _ = shared_prefix.score(model, prompts, tokens, mask, PAD)
    loss_of(logps).backward()
    assert_same(logps.detach(), expected, gradients(model), expected_grads)
    assert not blocks  # the tower's layers never ran


@pytest.mark.parametrize("family", FAMILIES)
def test_the_repeated_path_is_the_plain_forward(family: str) -> None:
    raw = prompts_of(family)
    tokens, mask = ragged_completions(len(raw), GROUP, LENGTH)
    expected, expected_grads = reference(family)
    model = prepared(family)
    prompts = [encode(model, row, str(i)) for i, row in enumerate(raw)]
    logps, _ = repeated.score(model, model, prompts, tokens, mask, PAD)
    loss_of(logps).backward()
    assert_same(logps.detach(), expected, gradients(model), expected_grads)


def no_video(prompt: EncodedPrompt) -> EncodedPrompt:
    assert prompt.video is not None
    return replace(prompt, video=torch.zeros_like(prompt.video))


def no_delta(prompt: EncodedPrompt) -> EncodedPrompt:
    return replace(prompt, delta=0)


@pytest.mark.parametrize("fault", [no_video, no_delta])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_fault_in_the_prompt_shows(family: str, fault: Callable[[EncodedPrompt], EncodedPrompt]) -> None:
    raw = prompts_of(family)
    tokens, mask = ragged_completions(len(raw), GROUP, LENGTH)
    expected, expected_grads = reference(family)
    model = prepared(family)
    prompts = [fault(encode(model, row, str(i))) for i, row in enumerate(raw)]
    logps, _ = shared_prefix.score(model, prompts, tokens, mask, PAD)
    loss_of(logps).backward()
    assert (logps.detach() - expected).abs().max() > 1e-3
    with pytest.raises(AssertionError):
        assert_same(logps.detach(), expected, gradients(model), expected_grads)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_causal_mask_shows(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = prompts_of(family)
    tokens, mask = ragged_completions(len(raw), GROUP, LENGTH)
    expected, expected_grads = reference(family)

    def causal(layout: Any, batch: int, device: Any) -> Any:
        length = layout.prefix + layout.group * layout.length
        return torch.ones(batch, 1, length, length, dtype=torch.bool).tril()

    monkeypatch.setattr(shared_attention.PackedGroups, "dense_mask", causal)
    model = prepared(family)
    prompts = [encode(model, row, str(i)) for i, row in enumerate(raw)]
    logps, _ = shared_prefix.score(model, prompts, tokens, mask, PAD, dense=True)
    loss_of(logps).backward()
    with pytest.raises(AssertionError):
        assert_same(logps.detach(), expected, gradients(model), expected_grads)


def test_reentrant_or_not_the_layout_reaches_the_recomputation() -> None:
    """Under checkpointing the backward calls the attention again: with the layout, or gradients would be wrong."""
    model = prepared("qwen3_vl", checkpointing=True)
    raw = prompts_of("qwen3_vl")[:1]
    seen = []
    original = shared_attention.PackedGroups.attend

    def counted(self: Any, layer: int, *args: Any) -> Any:
        seen.append(layer)
        return original(self, layer, *args)

    shared_attention.PackedGroups.attend = counted  # type: ignore[method-assign]
    try:
        tokens, mask = ragged_completions(1, GROUP, LENGTH)
        logps, _ = shared_prefix.score(model, [encode(model, raw[0], "0")], tokens, mask, PAD)
        assert sorted(seen) == [0, 1]
        loss_of(logps).backward()
        assert sorted(seen) == [0, 0, 1, 1]
    finally:
        shared_attention.PackedGroups.attend = original  # type: ignore[method-assign]


def test_sliding_windows_are_refused() -> None:
    model = random_model("qwen2_5_vl")
    model.config.text_config.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(ValueError, match="sliding"):
        shared_attention.install(model)


def test_without_a_layout_the_installed_attention_is_sdpa() -> None:
    raw = video_prompt("qwen3_vl")
    plain, installed = random_model("qwen3_vl"), random_model("qwen3_vl")
    shared_attention.install(installed)
    with torch.no_grad():
        assert torch.equal(plain(**raw).logits, installed(**raw).logits)


def test_torch_s_lower_right_bias_is_the_mask_that_is_used_without_a_gpu() -> None:
    """On a GPU an unpadded prefix is given as torch's own bias, for the flash kernel; here against the mask."""
    from torch.nn.attention.bias import causal_lower_right
    from torch.nn.functional import scaled_dot_product_attention

    torch.manual_seed(0)
    layout = shared_attention.PackedGroups(prefix=7, group=2, length=4)
    query, key, value = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 11, 8), torch.randn(2, 3, 11, 8)
    mask = layout._tail_mask(query)
    assert mask.tolist() == [[True] * 7 + [column <= row for column in range(4)] for row in range(4)]
    masked = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(scaled_dot_product_attention(query, key, value, attn_mask=causal_lower_right(4, 11)), masked)
