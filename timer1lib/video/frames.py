"""Decoded frames with the time of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
