"""A Qwen2.5-VL whose times are written before each frame pair: positions, configuration, training, errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from grpo_runs import furthest, some_frames, trainer, weights

from timer1lib.errors import Timer1Error
from timer1lib.models.config import temporal_rate
from timer1lib.models.inputs import encode_prompt
from timer1lib.models.load import load_clock, load_model
from timer1lib.world.base.tiny import build_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(
        tmp_path_factory.mktemp("m"), "qwen2_5_vl", textual=True, hidden=32, layers=2, vision_hidden=32, vision_depth=1
    )


def test_positions_are_the_librarys_for_a_row_of_one_step_videos(folder: Path) -> None:
    """For videos of one step the library's rule is the published one, so it can be asked."""
    loaded = load_clock(folder)
    batch = encode_prompt(loaded, some_frames(0, 9), "when: a cat?")
    keys = ("input_ids", "mm_token_type_ids", "video_grid_thw", "second_per_grid_ts", "attention_mask")
    given = {key: batch[key] for key in keys}
    core = loaded.model.model
    ours, delta = core.get_rope_index(**given)
    theirs, their_delta = type(core).get_rope_index(core, **given)
    assert ours.equal(theirs)
    assert delta.flatten().tolist() == their_delta.flatten().tolist()
    assert ours[0, 0].tolist() == list(range(ours.shape[-1]))  # one token a pair: nothing stands beside anything


def test_the_folder_says_how_its_model_is_told_times_and_so_do_its_checkpoints(folder: Path, tmp_path: Path) -> None:
    loaded = load_model(folder)
    assert loaded.interleaves
    loaded.model.save_pretrained(tmp_path / "saved")
    loaded.processor.save_pretrained(tmp_path / "saved")
    assert load_model(tmp_path / "saved").interleaves
    assert not load_model(folder, timestamps="positions").interleaves


@pytest.mark.parametrize(
    ("config", "asked", "rate"),
    [
        ({"model_type": "qwen3_vl"}, "auto", None),
        ({"model_type": "qwen2_5_vl", "vision_config": {"tokens_per_second": 4}}, "auto", 4.0),
        ({"model_type": "qwen2_5_vl", "vision_config": {"tokens_per_second": 4}}, "text", None),
        ({"model_type": "qwen2_5_vl", "timestamps": "text"}, "auto", None),
        ({"model_type": "qwen2_5_vl", "timestamps": "text"}, "positions", 2.0),
        ({}, "auto", 2.0),
    ],
)
def test_what_decides_how_times_are_told(config: dict[str, object], asked: str, rate: float | None) -> None:
    assert temporal_rate(config, "Qwen/Qwen2.5-VL-7B-Instruct", asked) == rate  # type: ignore[arg-type]


def test_a_wrong_way_is_named() -> None:
    assert temporal_rate({}, "Qwen/Qwen3-VL-8B-Instruct") is None
    with pytest.raises(Timer1Error, match="no temporal positions"):
        temporal_rate({"model_type": "qwen3_vl"}, "m", "positions")
    with pytest.raises(Timer1Error, match="timestamps 'sundial'"):
        temporal_rate({"model_type": "qwen2_5_vl", "timestamps": "sundial"}, "m")


def test_one_pixel_in_one_pair_changes_that_pairs_token_alone(folder: Path) -> None:
    loaded = load_model(folder)
    frames = some_frames(1, 8)
    changed = some_frames(1, 8)
    changed.pixels[4, 10, 10] = 255 - changed.pixels[4, 10, 10]
    seen = []
    for shown in (frames, changed):
        batch = encode_prompt(loaded, shown, "when: a cat?")
        with torch.no_grad():
            out = loaded.model.model.get_video_features(batch["pixel_values_videos"], batch["video_grid_thw"], return_dict=True)
        seen.append(torch.stack([piece[0] for piece in out.pooler_output]))
    differs = (seen[0] != seen[1]).any(1)
    assert np.flatnonzero(differs.numpy()).tolist() == [2]


def test_shared_prefix_trains_as_the_plain_forward_does(folder: Path, tmp_path: Path) -> None:
    ways = []
    for name, options in (
        ("fast", {"scoring": "shared_prefix", "rollouts": "shared_prefix"}),
        ("plain", {"scoring": "repeated", "rollouts": "shared_prefix"}),
    ):
        made, _ = trainer(folder, tmp_path / name, frozen=True, **options)
        before = weights(made)
        made.train()
        after = weights(made)
        assert furthest(before, after) > 1e-4
        ways.append(after)
    assert furthest(*ways) < 2e-5
