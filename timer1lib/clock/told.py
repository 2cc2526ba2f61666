"""What a model family is told about the time of its frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timer1lib.video.frames import Frames

MILLISECONDS = 1000
"""Frame rate under which a frame index is a time in milliseconds: how true times fit through `VideoMetadata`."""

NUDGE = 1.0 + 3e-7
"""The published rule truncates float32 products; this keeps whole numbers from falling just below themselves."""


def seconds_per_grid(frames: Frames, temporal_patch: int) -> float:
    """Qwen2.5-VL's `second_per_grid_ts`: seconds from one temporal patch to the next."""
    return frames.step_s * temporal_patch * frames.time_scale * NUDGE


def told_milliseconds(frames: Frames) -> list[int]:
    """The frames' own times, as the model is told them, in whole milliseconds."""
    return [round(float(t) * frames.time_scale * MILLISECONDS) for t in frames.times_s]


def video_metadata(frames: Frames) -> dict[str, Any]:
    """Metadata for a Hugging Face processor under which every frame keeps its own time.

    `frames_indices` are milliseconds and `fps` is 1000, so the processor's index / fps is the true second, for
    uneven frames too. Qwen3-VL writes the mean of each temporal patch as `<12.4 seconds>`.
    """
    return {
        "fps": float(MILLISECONDS),
        "frames_indices": told_milliseconds(frames),
        "total_num_frames": max(1, round(frames.duration_s * frames.time_scale * MILLISECONDS)),
        "duration": frames.duration_s * frames.time_scale,
        "height": int(frames.pixels.shape[1]),
        "width": int(frames.pixels.shape[2]),
        "video_backend": frames.decoder,
    }
