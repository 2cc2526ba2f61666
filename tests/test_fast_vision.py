"""The sped-up vision towers give the numbers of the classes as they come."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from timer1lib.models.config import family_of_model  # noqa: E402
from timer1lib.models.fast_vision import speed_up_vision  # noqa: E402


def tower(family: str, attention: str = "sdpa") -> Any:
    torch.manual_seed(0)
    common = {
        "depth": 2,
        "hidden_size": 32,
        "num_heads": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 24,
    }
    if family == "qwen2_5_vl":
        from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen

        config = qwen.Qwen2_5_VLVisionConfig(
            **common, intermediate_size=48, patch_size=14, window_size=56, fullatt_block_indexes=[1], in_channels=3
        )
        model = qwen.Qwen2_5_VisionTransformerPretrainedModel._from_config(config, attn_implementation=attention)
    else:
        from transformers.models.qwen3_vl import modeling_qwen3_vl as qwen3

        config = qwen3.Qwen3VLVisionConfig(
            **common, intermediate_size=48, patch_size=16, num_position_embeddings=16, deepstack_visual_indexes=[0]
        )
        model = qwen3.Qwen3VLVisionModel._from_config(config, attn_implementation=attention)
    return model.double()


def inputs(model: Any, grids: list[list[int]], seed: int = 1) -> tuple[Any, Any]:
    grid = torch.tensor(grids)
    width = 3 * 2 * model.patch_size**2
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(int(grid.prod(-1).sum()), width, dtype=torch.float64, generator=generator), grid


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("grids", [[[3, 4, 4]], [[2, 6, 10], [3, 4, 4], [1, 8, 2]]], ids=["one length", "ragged"])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_features_and_gradients_are_those_of_the_class(family: str, grids: list[list[int]], attention: str) -> None:
    plain = tower(family, attention)
    fast = speed_up_vision(copy.deepcopy(plain))
    assert type(fast) is type(plain)
    assert fast.state_dict().keys() == plain.state_dict().keys()
    pixels, grid = inputs(plain, grids)
    for _ in range(2):  # the second call uses the kept tables
        plain.zero_grad()
        fast.zero_grad()
        expected, got = plain(pixels, grid_thw=grid), fast(pixels, grid_thw=grid)
        torch.testing.assert_close(got.pooler_output, expected.pooler_output, rtol=0, atol=1e-12)
        (expected.pooler_output**2).sum().backward()
        (got.pooler_output**2).sum().backward()
        for (name, a), (_, b) in zip(plain.named_parameters(), fast.named_parameters(), strict=True):
            if a.grad is not None:
                torch.testing.assert_close(b.grad, a.grad, rtol=1e-9, atol=1e-9, msg=name)


def test_a_changed_grid_or_picture_changes_the_features() -> None:
    model = speed_up_vision(tower("qwen3_vl"))
    pixels, _ = inputs(model, [[1, 4, 8]])
    wide = model(pixels, grid_thw=torch.tensor([[1, 4, 8]])).pooler_output
    tall = model(pixels, grid_thw=torch.tensor([[1, 8, 4]])).pooler_output
    two = model(pixels, grid_thw=torch.tensor([[2, 4, 4]])).pooler_output
    dark = model(pixels * 0, grid_thw=torch.tensor([[1, 4, 8]])).pooler_output
    for other in (tall, two, dark):
        assert (wide - other).abs().max() > 1e-3


def test_twice_is_once_and_copies_stand_alone() -> None:
    model = speed_up_vision(speed_up_vision(tower("qwen3_vl")))
    assert len(model._forward_pre_hooks) == 1
    twin = copy.deepcopy(model)
    pixels, grid = inputs(model, [[2, 4, 4]])
    with torch.no_grad():
        before = model(pixels, grid_thw=grid).pooler_output
        for parameter in twin.parameters():
            parameter.zero_()
        assert torch.equal(model(pixels, grid_thw=grid).pooler_output, before)
        assert twin(pixels, grid_thw=grid).pooler_output.abs().max() == 0


def test_no_tower_is_said() -> None:
    with pytest.raises(TypeError, match="no vision tower"):
        family_of_model(torch.nn.Linear(2, 2))
