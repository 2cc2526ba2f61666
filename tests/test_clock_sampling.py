"""Which frames are chosen: against brute force, the last frame, odd counts, and files shorter than a patch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timer1lib.clock import Sampling, choose_frames
from timer1lib.models.config import sampling_for
from timer1lib.params.sections import SharedParams
from timer1lib.video.decode import frame_size

gaps = st.lists(st.integers(min_value=1, max_value=3000), min_size=0, max_size=120)


def stamps(gaps_ms: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(gaps_ms)]) / 1000.0


@given(gaps, st.integers(2, 64), st.floats(0.1, 8.0), st.sampled_from(["fps", "frames"]))
@settings(max_examples=100, deadline=None)
def test_every_frame_is_the_nearest_to_its_grid_point(gaps_ms: list[int], frames: int, fps: float, policy: str) -> None:
    times = stamps(gaps_ms)
    choice = choose_frames(times, Sampling(rule=policy, fps=fps, frames=frames))
    assert min(2, frames) <= len(choice.indices) <= frames
    assert (np.diff(choice.indices) >= 0).all()
    if len(times) >= 2:
        for i, index in enumerate(choice.indices):
            best = min(abs(t - i * choice.step_s) for t in times)
            assert abs(times[index] - i * choice.step_s) == pytest.approx(best, abs=1e-9)


@given(gaps, st.integers(2, 64), st.floats(0.1, 8.0))
@settings(max_examples=100, deadline=None)
def test_the_last_frame_counts(gaps_ms: list[int], frames: int, fps: float) -> None:
    times = stamps(gaps_ms)
    even = choose_frames(times, Sampling(rule="frames", frames=frames))
    assert even.indices[-1] == len(times) - 1
    rate = choose_frames(times, Sampling(rule="fps", fps=fps, frames=frames))
    grid_end = (len(rate.indices) - 1) * rate.step_s
    if len(times) > 1:
        assert abs(times[-1] - grid_end) <= rate.step_s / 2 + 1e-6


def test_fps_grid_is_exact_and_the_cap_spreads_over_the_whole_video() -> None:
    times = np.arange(300) / 30.0  # 10 s at 30 fps, last frame at 9.967
    choice = choose_frames(times, Sampling(rule="fps", fps=2.0, frames=768))
    assert choice.step_s == 0.5
    assert choice.indices.tolist() == [15 * k for k in range(20)] + [299]
    capped = choose_frames(times, Sampling(rule="fps", fps=2.0, frames=5))
    assert capped.indices.tolist() == [0, 75, 150, 224, 299] or capped.indices.tolist() == [0, 75, 149, 224, 299]
    assert capped.step_s == pytest.approx(299 / 30 / 4)


@pytest.mark.parametrize(
    ("available", "frames", "expected"), [(1, 32, 2), (2, 32, 2), (3, 32, 3), (5, 3, 3), (7, 33, 7), (40, 33, 33)]
)
def test_counts_of_short_files_and_odd_requests(available: int, frames: int, expected: int) -> None:
    choice = choose_frames(np.arange(available) / 25.0, Sampling(rule="frames", frames=frames))
    assert len(choice.indices) == expected
    assert len(set(choice.indices.tolist())) == min(available, frames)


def test_sampling_follows_the_params() -> None:
    shared = SharedParams(
        sampling="fps", fps=1.5, frames=9, min_frame_pixels=100, total_pixels=1000, model="some/Qwen3-VL-8B", time_scale=1.1
    )
    cap = 768 * 32 * 32  # 768 visual tokens a frame pair, whatever the size of a patch
    assert sampling_for(shared) == Sampling("fps", 1.5, 9, 100, 1000, max_frame_pixels=cap, factor=32, time_scale=1.1)
    assert sampling_for(SharedParams(model="Qwen/Qwen2.5-VL-7B-Instruct")).factor == 28


@given(st.integers(8, 2000), st.integers(8, 2000), st.integers(1, 768), st.sampled_from([28, 32, 56]))
@settings(max_examples=100, deadline=None)
def test_sizes_fit_the_patches_and_the_budget(height: int, width: int, count: int, factor: int) -> None:
    sampling = Sampling(factor=factor)
    h, w = frame_size(height, width, count, sampling)
    assert h % factor == 0
    assert w % factor == 0
    assert h > 0
    assert w > 0
    share = max(min(sampling.total_pixels * 2 / count, sampling.max_frame_pixels), 1.05 * sampling.min_frame_pixels, factor**2)
    ribbon = factor in (h, w)  # a side cannot shrink below one patch, so a ribbon may keep more pixels
    fitted = max(factor, round(height / factor) * factor) * max(factor, round(width / factor) * factor)
    enlarged = fitted < sampling.min_frame_pixels and (h - factor) * (w - factor) < sampling.min_frame_pixels
    assert h * w <= share or ribbon or enlarged


def test_the_recipe_gives_3584_tokens() -> None:
    # Time-R1: 3584 * 28 * 28 pixels. 120 frames of 1280 x 720: 46,830 pixels a frame, shrunk by 4.436 to 162 x 288,
    # whole patches below it: 5 x 10 of 28 pixels. 60 temporal patches of 50 tokens: 3,000 of the 3,584.
    assert frame_size(720, 1280, 120, Sampling()) == (140, 280)
    # 8 frames of it meet the cap of 768 * 28 * 28 pixels a frame: shrunk by 1.237 to 582 x 1034, 20 x 36 patches.
    assert frame_size(720, 1280, 8, Sampling()) == (20 * 28, 36 * 28)
