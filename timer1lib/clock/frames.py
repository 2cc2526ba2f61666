"""The frames that a model sees: which of a video, chosen by the frames' own timestamps, and each with its time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SamplingRule = Literal["fps", "frames", "published"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a video becomes frames.

    Attributes:
        rule: `fps` takes a frame every 1/fps seconds; `frames` takes `frames` of them, first and last included;
            `published` takes as many as Qwen's pipeline does (`choose_published`).
        fps: frames a second for the rules `fps` and `published`.
        frames: number of frames for rule `frames`, the cap for the others.
        min_frame_pixels: pixels a frame has at least; smaller ones are enlarged.
        total_pixels: pixels a video has at most, where the frames of one temporal patch count once, so that
            `total_pixels / factor**2` is the number of visual tokens.
        max_frame_pixels: pixels a frame has at most: the cap of the pipeline that Qwen2.5-VL was trained with.
        factor: height and width are multiples of this many pixels (patch size x spatial merge of the model).
        time_scale: what the model is told is this times the truth; 1.0 but in the wrong-clock experiment.
    """

    rule: SamplingRule = "fps"
    fps: float = 2.0
    frames: int = 768
    min_frame_pixels: int = 16 * 28 * 28
    total_pixels: int = 3584 * 28 * 28
    max_frame_pixels: int = 768 * 28 * 28
    factor: int = 28
    time_scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Frames:
    """What was decoded of a video or clip.

    Attributes:
        pixels: uint8 [N, H, W, 3], RGB, upright, already at the size that the model sees.
        times_s: float64 [N], each frame's own timestamp, in seconds from the start of the video or clip.
        duration_s: seconds of the video or clip, the last frame's display time included.
        step_s: seconds between neighbours of the grid that the frames were chosen on.
        decoder: `decord` or `pyav`.
        reason: why it was not decord; empty where it was.
        time_scale: what the model is told is this times the truth (1.0 but in the wrong-clock experiment).
    """

    pixels: NDArray[np.uint8]
    times_s: NDArray[np.float64]
    duration_s: float
    step_s: float
    decoder: str
    reason: str = ""
    time_scale: float = 1.0

    def __len__(self) -> int:
        return len(self.times_s)


@dataclass(frozen=True, slots=True)
class Choice:
    """Frames to take."""

    indices: NDArray[np.int64]
    """[N], ascending positions in the list of timestamps; a frame may stand several times."""
    step_s: float
    """Seconds between neighbours of the grid that the frames were chosen on; the model is told multiples of it."""


def choose_frames(times_s: NDArray[np.float64], sampling: Sampling, temporal_patch: int = 2) -> Choice:
    """Choose frames by timestamp: for every point of an even grid, the frame nearest to it.

    The grid starts at second 0 of the video or clip. For rule `frames` it ends on the last frame. For rule
    `fps` its step is exactly 1/fps and it goes on until the last frame is at most half a step away; where the cap
    or the file has fewer frames than that, they are spread evenly from 0 to the last frame. A video with fewer
    frames than one temporal patch has its last frame repeated.

    Args:
        times_s: float64 [M], ascending timestamps of all frames, in seconds from the start of the video or clip, M >= 1.

    Returns:
        N frames, `temporal_patch` <= N <= max(`sampling.frames`, `temporal_patch`).
    """
    if sampling.rule == "published":
        return choose_published(times_s, sampling, temporal_patch)
    available, last = len(times_s), float(times_s[-1])
    wanted = int(last * sampling.fps + 0.5) + 1 if sampling.rule == "fps" else sampling.frames
    count = max(min(wanted, sampling.frames, available), min(temporal_patch, available))
    exact = sampling.rule == "fps" and count == wanted
    step = last / (count - 1) if not exact and count > 1 and last > 0 else 1.0 / sampling.fps
    indices = nearest(times_s, np.arange(count, dtype=np.float64) * np.float64(step))
    if count < temporal_patch:
        indices = np.concatenate([indices, np.repeat(indices[-1:], temporal_patch - count)])
    return Choice(indices, step)


PUBLISHED_MINIMUM = 4
"""Frames that Qwen's pipeline takes at least (`FPS_MIN_FRAMES` of qwen-vl-utils)."""


def choose_published(times_s: NDArray[np.float64], sampling: Sampling, temporal_patch: int = 2) -> Choice:
    """Choose frames as Qwen's pipeline does, on which Time-R1, TVG-R1 and TimeLens build (`smart_nframes` of qwen-vl-utils).

    A whole number of temporal patches: duration x fps, at least 4 and at most `sampling.frames`, rounded down; spread evenly
    over the file by number, first and last frame included. The step is duration / count, though the frames lie
    (duration - one frame) / (count - 1) apart: the told times run behind the true ones, by almost a step at the end.
    Durations are of a file of even rate: frames x their mean distance.

    Args, Returns: as `choose_frames`.
    """
    available = len(times_s)
    duration = available * (float(times_s[-1]) - float(times_s[0])) / (available - 1) if available > 1 else 0.0
    most = min(sampling.frames, available) // temporal_patch * temporal_patch
    count = int(min(max(duration * sampling.fps, PUBLISHED_MINIMUM), most, available) + 1e-6) // temporal_patch * temporal_patch
    if count < temporal_patch or duration <= 0:
        indices = np.minimum(np.arange(temporal_patch), available - 1)
        return Choice(indices.astype(np.int64), 1.0 / sampling.fps)
    # As torch.linspace works it out: a float32 step, from both ends, rounded once. It decides which of two neighbours is taken.
    number = np.arange(count, dtype=np.float64)
    step = np.float64(np.float32(available - 1) / np.float32(max(count - 1, 1)))
    spread = np.where(number < count // 2, step * number, available - 1 - step * number[::-1]).astype(np.float32)
    return Choice(np.round(spread).astype(np.int64), duration / count)


def nearest(times_s: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the timestamp nearest to each target; of two equally near ones the earlier."""
    if len(times_s) == 1:
        return np.zeros(len(targets), dtype=np.int64)
    right = np.clip(np.searchsorted(times_s, targets), 1, len(times_s) - 1)
    left = right - 1
    return np.where(targets - times_s[left] <= times_s[right] - targets, left, right).astype(np.int64)
