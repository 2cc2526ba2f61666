"""What a model is told about the time of its frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from timer1lib.schema import Window

if TYPE_CHECKING:
    from timer1lib.clock.frames import Frames

MILLISECONDS = 1000
"""Frame rate under which a frame index is a time in milliseconds: how true times fit through `VideoMetadata`."""

NUDGE = 1.0 + 3e-7
"""The published rule truncates float32 products; this keeps whole numbers from falling just below themselves."""


Timestamps = Literal["auto", "text", "positions"]
"""How a model learns when its frames are: from text before each frame pair, or from the pairs' positions."""


def seconds_per_grid(step_s: float, temporal_patch: int, time_scale: float = 1.0) -> float:
    """Seconds from one temporal patch to the next (`second_per_grid_ts`), of frames `step_s` apart."""
    return step_s * temporal_patch * time_scale * NUDGE


def _milliseconds(times_s: NDArray[np.float64], time_scale: float) -> list[int]:
    return [round(float(t) * time_scale * MILLISECONDS) for t in times_s]


def video_metadata(frames: Frames) -> dict[str, Any]:
    """Metadata for a Hugging Face processor under which every frame keeps its own time.

    `frames_indices` are milliseconds and `fps` is 1000, so the processor's index / fps is the true second, for
    uneven frames too. Where the processor writes times it writes the mean of each temporal patch: `<12.4 seconds>`.
    """
    return {
        "fps": float(MILLISECONDS),
        "frames_indices": _milliseconds(frames.times_s, frames.time_scale),
        "total_num_frames": max(1, round(frames.duration_s * frames.time_scale * MILLISECONDS)),
        "duration": frames.duration_s * frames.time_scale,
        "height": int(frames.pixels.shape[1]),
        "width": int(frames.pixels.shape[2]),
        "video_backend": frames.decoder,
    }


def told_times(
    times_s: NDArray[np.float64], step_s: float, temporal_patch: int, tokens_per_second: float | None, time_scale: float = 1.0
) -> NDArray[np.float64]:
    """The second that a model is told for each frame: that of the frame's temporal patch.

    Written times are the mean of the patch's first and last frame, rounded to a tenth. Positions are whole,
    floor(patch x seconds per grid x tokens per second), counted from the first patch, whose frames stand at 0 and one
    step; a patch stands for the middle of its frames.

    Args:
        times_s: float64 [N], the frames' own seconds; the result is like it, and frames of one patch share theirs.
        step_s: seconds between neighbours of the grid they were chosen on.
        tokens_per_second: temporal positions a second; None where times are written.
    """
    patch = np.arange(len(times_s)) // temporal_patch
    if tokens_per_second is None:
        milliseconds = np.array(_milliseconds(times_s, time_scale), dtype=np.float64)
        means = patch_means(milliseconds, temporal_patch)[patch] / MILLISECONDS
        return np.array([float(f"{mean:.1f}") for mean in means])
    grid = np.float32(seconds_per_grid(step_s, temporal_patch, time_scale))
    position = np.floor(patch.astype(np.float32) * grid * np.float32(tokens_per_second)).astype(np.float64)
    middles = patch_middles(times_s, step_s, temporal_patch)
    return np.asarray(position / tokens_per_second + middles * time_scale, dtype=np.float64)


def patch_means(times: NDArray[np.float64], temporal_patch: int) -> NDArray[np.float64]:
    """The time that a patch stands for where times are written: the mean of its first and last frame's, one a patch."""
    first = np.arange(0, len(times), temporal_patch)
    last = np.minimum(first + temporal_patch, len(times)) - 1
    return np.asarray((times[first] + times[last]) / 2, dtype=np.float64)


def patch_middles(times_s: NDArray[np.float64], step_s: float, temporal_patch: int) -> NDArray[np.float64]:
    """Seconds from the start of each frame's patch to the middle of the frames in it, float64 [N]."""
    patch = np.arange(len(times_s)) // temporal_patch
    held = np.minimum(temporal_patch, len(times_s) - patch * temporal_patch)
    if len(times_s) <= temporal_patch and times_s[0] == times_s[-1]:
        return np.zeros(len(times_s))
    return np.asarray((held - 1) / 2 * step_s, dtype=np.float64)


def seen(window: Window, told: Sequence[float]) -> Window:
    """First and last told time at which the event is seen: those inside the window, or the nearest one."""
    step = told[1] - told[0] if len(told) > 1 else 0.0
    inside = [t for t in told if window[0] - step / 4 <= t < window[1] + step / 4]
    if not inside:
        middle = (window[0] + window[1]) / 2
        inside = [min(told, key=lambda t: abs(t - middle))]
    return inside[0], inside[-1]
