"""The embedded world writes the second into its pictures; what the model gets for second t shows t."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from timer1lib.clock import Sampling
from timer1lib.models.inputs import encode_prompt
from timer1lib.models.load import LoadedModel, load_clock
from timer1lib.video.decode import read_frames
from timer1lib.world.base.tiny import build_tiny
from timer1lib.world.render import digit, write_video
from timer1lib.world.scene import sample_scene

SIDE = 112  # two pixels a dot of the burnt-in digits


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world") / "clock.mp4"
    write_video(sample_scene(3, 0.6, durations=(21.0, 22.0)), path, side=SIDE, burn_clock=True)
    return path


@pytest.fixture(scope="module", params=["qwen3_vl", "qwen2_5_vl"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_clock(build_tiny(tmp_path_factory.mktemp("m") / request.param, family=request.param, hidden=32, layers=1))


def second_in(picture: np.ndarray) -> int:
    """The number burnt into a picture [SIDE, SIDE], by the nearest digit at each of the three places."""
    plate = picture[SIDE - 14 :, :26].reshape(7, 2, 13, 2).mean((1, 3)) > 127
    value = 0
    for place in range(3):
        dots = plate[1:6, 1 + 4 * place : 4 + 4 * place]
        value = 10 * value + int(np.argmin([np.abs(dots - digit(d)).sum() for d in range(10)]))
    return value


def pictures_in(loaded: LoadedModel, batch: dict[str, torch.Tensor]) -> np.ndarray:
    """Grey pictures [frames, SIDE, SIDE] put together again from the patches that the vision tower gets."""
    steps, rows, columns = batch["video_grid_thw"][0].tolist()
    g = loaded.geometry
    shape = (steps, rows // g.merge, columns // g.merge, g.merge, g.merge, 3, g.temporal_patch, g.patch, g.patch)
    patches = batch["pixel_values_videos"].reshape(shape)
    pixels = patches.permute(0, 6, 1, 3, 7, 2, 4, 8, 5).reshape(steps * g.temporal_patch, rows * g.patch, columns * g.patch, 3)
    return ((pixels.mean(-1) * 0.5 + 0.5) * 255).numpy()


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize("clip", [(None, None), (6.0, 17.0)])
@pytest.mark.parametrize(("policy", "frames"), [("fps", 768), ("frames", 16), ("frames", 13)])
def test_the_frame_for_a_second_shows_it(
    video: Path, loaded: LoadedModel, decoder: str, clip: tuple[float | None, float | None], policy: str, frames: int
) -> None:
    sampling = Sampling(rule=policy, fps=2.0, frames=frames, min_frame_pixels=SIDE * SIDE, total_pixels=10**9, factor=56)
    seen = read_frames(video, sampling, clip, decoder=decoder)
    batch = encode_prompt(loaded, seen, "when: it starts?")
    shown = [second_in(picture) for picture in pictures_in(loaded, batch)]
    start = clip[0] or 0.0
    true = [int(t + start + 1e-6) for t in seen.times_s]
    assert shown[: len(true)] == true
    assert all(second == true[-1] for second in shown[len(true) :])  # an odd last frame is repeated
    assert len(set(shown)) > 8
    if loaded.family.name == "qwen3_vl":
        written = re.findall(r"<([\d.]+) seconds>", loaded.tokenizer.decode(batch["input_ids"][0]))
        for patch, text in enumerate(written):
            assert shown[2 * patch] - start - 0.06 <= float(text) < shown[2 * patch + 1] - start + 1.06
    else:
        told = np.arange(len(shown) // 2) * float(batch["second_per_grid_ts"][0])
        gap = 0.125  # the world has 8 frames a second
        assert all(abs(start + t - true[2 * i]) < 1 + gap for i, t in enumerate(told))
