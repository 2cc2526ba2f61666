"""What a model family is told about the time of its frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from timer1lib.errors import Timer1Error

if TYPE_CHECKING:
    from timer1lib.video.frames import Frames

MILLISECONDS = 1000
"""Frame rate under which a frame index is a time in milliseconds: how true times fit through `VideoMetadata`."""

NUDGE = 1.0 + 3e-7
"""The published rule truncates float32 products; this keeps whole numbers from falling just below themselves."""


Timestamps = Literal["auto", "text", "positions"]
"""How a model learns when its frames are: from text before each frame pair, or from the pairs' positions."""


def temporal_rate(config: Mapping[str, Any], name: str, timestamps: Timestamps = "auto") -> float | None:
    """Temporal positions a second of a model; None where its times are written as text.

    Args:
        config: its `config.json`; empty where that is not at hand, then the name tells the family.
        name: folder or hub id.
        timestamps: `auto` is what the configuration's own key `timestamps` says, and without one the family's way: text
            for Qwen3-VL, positions for Qwen2.5-VL.

    Raises:
        Timer1Error: positions are asked of a family that has none, or the key holds something else.
    """
    kind = config.get("model_type", "qwen3_vl" if "qwen3" in name.lower() else "")
    chosen = config.get("timestamps", "auto") if timestamps == "auto" else timestamps
    if chosen not in ("auto", "text", "positions"):
        raise Timer1Error(f"model {name!r}: timestamps {chosen!r} in config.json; use text or positions")
    if kind == "qwen3_vl":
        if chosen == "positions":
            raise Timer1Error(f"model {name!r}: Qwen3-VL has no temporal positions in seconds; set timestamps to text or auto")
        return None
    return None if chosen == "text" else float(config.get("vision_config", {}).get("tokens_per_second", 2))


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


def told_times(
    times_s: NDArray[np.float64],
    step_s: float,
    temporal_patch: int,
    tokens_per_second: float | None,
    time_scale: float = 1.0,
) -> NDArray[np.float64]:
    """The second that a model is told for each frame: that of the frame's temporal patch.

    Written times (Qwen3-VL) are the mean of the patch's first and last frame, rounded to a tenth. Positions (Qwen2.5-VL)
    are whole, floor(patch x seconds per grid x tokens per second), counted from the first patch, whose frames stand at 0
    and one step; a patch stands for the middle of its frames.

    Args:
        times_s: float64 [N], the frames' own seconds.
        step_s: seconds between neighbours of the grid they were chosen on.
        tokens_per_second: temporal positions a second; None where times are written.

    Returns:
        float64 [N], seconds; frames of one patch share theirs.
    """
    patch = np.arange(len(times_s)) // temporal_patch
    if tokens_per_second is None:
        milliseconds = np.array([round(float(t) * time_scale * MILLISECONDS) for t in times_s], dtype=np.float64)
        last = np.minimum((patch + 1) * temporal_patch, len(times_s)) - 1
        means = (milliseconds[patch * temporal_patch] + milliseconds[last]) / 2 / MILLISECONDS
        return np.array([float(f"{mean:.1f}") for mean in means])
    grid = np.float32(step_s * temporal_patch * time_scale * NUDGE)
    position = np.floor(patch.astype(np.float32) * grid * np.float32(tokens_per_second)).astype(np.float64)
    middles = patch_middles(times_s, step_s, temporal_patch)
    return np.asarray(position / tokens_per_second + middles * time_scale, dtype=np.float64)


def patch_middles(times_s: NDArray[np.float64], step_s: float, temporal_patch: int) -> NDArray[np.float64]:
    """Seconds from the start of each frame's patch to the middle of the frames in it, float64 [N]."""
    patch = np.arange(len(times_s)) // temporal_patch
    held = np.minimum(temporal_patch, len(times_s) - patch * temporal_patch)
    if len(times_s) <= temporal_patch and times_s[0] == times_s[-1]:
        return np.zeros(len(times_s))
    return np.asarray((held - 1) / 2 * step_s, dtype=np.float64)
