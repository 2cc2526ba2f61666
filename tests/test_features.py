"""The cache of a frozen tower's features: right in the model, verified on read, bounded, keyed by all that matters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from grpo_models import BANNED, EOS, FAMILIES, PAD, random_model, video_prompt  # noqa: E402

from timer1lib.models.config import family_of_model  # noqa: E402
from timer1lib.models.features import (  # noqa: E402
    FeatureCache,
    accept_features,
    pixels_key,
    tower_features,
    tower_hash,
    tower_is_frozen,
)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_takes_features_for_pixels_everywhere(family: str) -> None:
    model = random_model(family).eval()
    prompt = video_prompt(family, (2, 8, 12))  # windows of Qwen2.5-VL are permuted at this size
    features = tower_features(model, prompt["pixel_values_videos"], prompt["video_grid_thw"])
    assert features.shape[:2] == (2 * 8 * 12, 1)
    accept_features(accept_features(model))
    given = {**prompt, "pixel_values_videos": features}
    with torch.no_grad():
        torch.testing.assert_close(model(**given).logits, model(**prompt).logits, rtol=0, atol=1e-9)
    options: dict[str, Any] = {
        "max_new_tokens": 5,
        "do_sample": False,
        "suppress_tokens": BANNED,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
    }
    assert torch.equal(model.generate(**given, **options), model.generate(**prompt, **options))
    twice = {**given, "num_return_sequences": 3, "do_sample": True}
    assert model.generate(**{**options, **twice}).shape[0] == 3


def filled(folder: Path, count: int = 4, **bounds: float) -> tuple[FeatureCache, list[Any]]:
    cache = FeatureCache(folder, **bounds)
    values = [torch.full((50, 1, 20), float(i)) for i in range(count)]
    for i, value in enumerate(values):
        cache.put(f"name{i}", value)
        if (path := cache.disk.path(f"name{i}")).is_file():
            os.utime(path, (1000 + i, 1000 + i))
    return cache, values


def test_what_was_put_is_got_from_memory_and_from_disk(tmp_path: Path) -> None:
    cache, values = filled(tmp_path)
    assert torch.equal(cache.get("name2"), values[2])  # type: ignore[arg-type]
    other = FeatureCache(tmp_path, memory_gb=0)
    assert torch.equal(other.get("name2"), values[2])  # type: ignore[arg-type]
    assert other.get("name9") is None
    assert (cache.from_memory, cache.from_disk, other.from_memory, other.from_disk) == (1, 0, 0, 1)


@pytest.mark.parametrize("damage", ["a flipped bit", "half of it", "nothing", "another's", "no safetensors"])
def test_a_damaged_file_is_removed_and_not_believed(tmp_path: Path, damage: str, caplog: Any) -> None:
    cache, _ = filled(tmp_path)
    path = cache.disk.path("name1")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    new = {
        "a flipped bit": bytes(content),
        "half of it": path.read_bytes()[: path.stat().st_size // 2],
        "nothing": b"",
        "another's": cache.disk.path("name2").read_bytes(),
        "no safetensors": b"x" * 500,
    }[damage]
    path.write_bytes(new)
    fresh = FeatureCache(tmp_path)
    assert fresh.get("name1") is None
    assert not path.exists()
    assert "damaged" in caplog.text
    assert fresh.get("name0") is not None


def test_the_oldest_go_when_the_folder_is_full(tmp_path: Path) -> None:
    cache, _ = filled(tmp_path, count=4)
    size = cache.disk.path("name0").stat().st_size
    small = FeatureCache(tmp_path, disk_gb=3.5 * size / 1e9)
    assert small.get("name0") is not None  # read just now: no longer the oldest
    small.put("name9", torch.zeros(50, 1, 20))
    left = {path.stem for path in tmp_path.glob("*/*/*.entry")}
    assert left == {"name0", "name3", "name9"}
    small.put("name8", torch.zeros(50, 1, 20))
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*/*.entry")) <= 3.5 * size


def test_memory_is_bounded(tmp_path: Path) -> None:
    bytes_each = 50 * 20 * 4
    cache, _ = filled(tmp_path, count=4, memory_gb=2.5 * bytes_each / 1e9)
    assert list(cache._memory) == ["name2", "name3"]
    without, _ = filled(tmp_path / "other", memory_gb=0)
    assert not without._memory


def test_a_disk_that_cannot_be_written_is_logged_and_survived(tmp_path: Path, caplog: Any) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    cache = FeatureCache(blocked / "below")
    cache.put("name", torch.ones(2, 1, 2))
    assert "cannot write" in caplog.text
    assert cache.get("name") is not None  # memory still has it


def test_equal_videos_are_computed_once_and_others_never_mixed(tmp_path: Path) -> None:
    model = random_model("qwen3_vl")
    one, two = (video_prompt("qwen3_vl", seed=s) for s in (1, 2))
    videos = [(p["pixel_values_videos"], p["video_grid_thw"]) for p in (one, two, one)]
    cache = FeatureCache(tmp_path)
    a, b, c = cache.features(model, tower_hash(model), videos)
    assert cache.computed == 2
    assert torch.equal(a, c)
    assert not torch.equal(a, b)
    torch.testing.assert_close(b, tower_features(model, *videos[1]), rtol=0, atol=1e-12)
    named = FeatureCache(tmp_path / "named").features(model, "t", videos, ["x", "y", "x"])
    assert torch.equal(named[0], named[2])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_key_changes_with_pixels_sampling_and_tower_and_not_with_the_merger(family: str) -> None:
    prompt = video_prompt(family, (2, 4, 8))
    pixels, grid = prompt["pixel_values_videos"], prompt["video_grid_thw"]
    key = pixels_key(pixels, grid)
    touched = pixels.clone()
    touched[-1, -1] += 1e-9
    assert pixels_key(touched, grid) != key
    assert pixels_key(pixels, torch.tensor([[2, 8, 4]])) != key
    assert pixels_key(pixels.float(), grid) != key
    assert pixels_key(pixels.clone(), grid.clone()) == key
    model = random_model(family)
    before = tower_hash(model)
    with torch.no_grad():
        family_of_model(model).tower(model).merger.get_parameter(
            next(n for n, _ in family_of_model(model).tower(model).merger.named_parameters())
        ).add_(1)
        assert tower_hash(model) == before
        family_of_model(model).tower(model).blocks[1].attn.qkv.weight[0, 0] += 1e-9
        assert tower_hash(model) != before
    assert tower_hash(random_model(family)) == before
    assert tower_hash(random_model(family).float()) != before


def test_frozen_means_all_but_the_mergers() -> None:
    model = random_model("qwen3_vl")
    assert not tower_is_frozen(model)
    model.model.visual.requires_grad_(False)
    assert tower_is_frozen(model)
    model.model.visual.deepstack_merger_list.requires_grad_(True)
    assert tower_is_frozen(model)
    model.model.visual.blocks[0].norm1.weight.requires_grad_(True)
    assert not tower_is_frozen(model)


def test_an_entry_of_another_shape_is_computed_again(tmp_path: Path, caplog: Any) -> None:
    model = random_model("qwen3_vl")
    prompt = video_prompt("qwen3_vl")
    video = (prompt["pixel_values_videos"], prompt["video_grid_thw"])
    right = FeatureCache(None).features(model, "t", [video], ["x"])[0]
    cache = FeatureCache(tmp_path, memory_gb=0)
    cache.features(model, "t", [video], ["x"])
    (entry,) = tmp_path.glob("features/*/*.entry")
    cache.put(entry.stem, torch.zeros(3, 1, 2))  # whole by its digest, and still another video's
    assert torch.equal(cache.features(model, "t", [video], ["x"])[0], right)
    assert "made again" in caplog.text


def test_a_cache_that_does_not_pay_is_left_alone(tmp_path: Path, caplog: Any) -> None:
    model = random_model("qwen3_vl")
    prompt = video_prompt("qwen3_vl")
    video = (prompt["pixel_values_videos"], prompt["video_grid_thw"])
    cache = FeatureCache(tmp_path)
    right = cache.features(model, "t", [video], ["x"])[0]
    assert str(cache.costs).startswith("1 misses")
    cache.costs.hit(32.0, 16)
    cache.costs.miss(16.0, 16)
    assert torch.equal(cache.features(model, "t", [video], ["x"])[0], right)
    assert "does not pay" in caplog.text
    assert cache.costs.hits == 16  # it was not even looked into
    cache.costs.miss(100.0, 1)
    assert cache.costs.pays
    assert "saved" in str(cache.costs)


def test_by_default_features_are_kept_on_a_cpu_alone(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from timer1lib.params.sections import GrpoParams, SharedParams
    from timer1lib.training.grpo import feature_cache

    def kept(device: str, **changes: Any) -> bool:
        loaded: Any = SimpleNamespace(device=torch.device(device))
        return feature_cache(GrpoParams(**changes), SharedParams(cache_dir=str(tmp_path)), loaded) is not None

    assert [kept("cpu"), kept("cuda")] == [True, False]
    assert [kept("cpu", cache_features=False), kept("cuda", cache_features=True)] == [False, True]
    assert not kept("cpu", freeze_vision=False)
