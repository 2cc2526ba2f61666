"""What a right answer looks like in the world: times that the model was told, so that it can copy them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from timer1lib.clock.told import patch_means
from timer1lib.schema import Window
from timer1lib.world.render import FPS

if TYPE_CHECKING:
    from numpy.typing import NDArray


def sampled_times(duration: float, frames: int = 32) -> NDArray[np.float64]:
    """Seconds of `frames` even frames, from the first to the last, of a scene's file."""
    last = max(0, round(duration * FPS) - 1)
    return np.linspace(0, last, frames).round() / FPS


def told_times(duration: float, frames: int = 32, temporal_patch: int = 2) -> list[float]:
    """Seconds that a textual-timestamp model is told, one a temporal patch, before they are rounded to a tenth."""
    return [float(t) for t in patch_means(sampled_times(duration, frames), temporal_patch)]


def seen(window: Window, told: Sequence[float]) -> Window:
    """First and last told time at which the event is seen: those inside the window, or the nearest one."""
    step = told[1] - told[0] if len(told) > 1 else 0.0
    inside = [t for t in told if window[0] - step / 4 <= t < window[1] + step / 4]
    if not inside:
        middle = (window[0] + window[1]) / 2
        inside = [min(told, key=lambda t: abs(t - middle))]
    return inside[0], inside[-1]


def direct(window: Window) -> str:
    """`<answer>3.2 to 9.8</answer>`"""
    return f"<answer>{window[0]:.1f} to {window[1]:.1f}</answer>"


def chain_of_thought(window: Window) -> str:
    """The cold start's form: the thinking names the times, the answer follows from it."""
    return f"<think>seen from {window[0]:.1f} to {window[1]:.1f}</think>{direct(window)}"


def grounded(window: Window, letter: str) -> str:
    """Grounded question answering in TVG-R1's form: thinking, time, boxed letter."""
    span = f"{window[0]:.1f} to {window[1]:.1f}"
    return f"<think>seen from {span}</think> <time>[{window[0]:.1f}, {window[1]:.1f}]</time> \\boxed{{{letter}}}"
