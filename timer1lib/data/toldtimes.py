"""The seconds at which a model can see an event begin and end: times that it was told, so that an answer can be copied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from timer1lib.clock.frames import Sampling, choose_frames
from timer1lib.clock.told import Timestamps, told_times
from timer1lib.models.config import temporal_geometry
from timer1lib.schema import Sample, Window
from timer1lib.video.decode import clip_frames
from timer1lib.video.probe import timeline
from timer1lib.world.answers import seen


def told_window(
    resolve_video: Callable[[Sample], Path], sampling: Sampling, model: str, timestamps: Timestamps = "auto"
) -> Callable[[Sample], Window]:
    """A function from a sample to the first and last told time inside its window (the nearest one where none is inside).

    A boundary between two sampled frames cannot be seen, and as a target it only teaches noise. Times are the true
    ones: `time_scale` of the wrong-clock experiment changes what is told, never what is right.

    Args:
        resolve_video: the file of a sample's video; only its timestamps are read.
        model: folder or hub id, of which only `config.json` is read.
        timestamps: how that model is told times.
    """
    patch, rate = temporal_geometry(model, timestamps)
    sampling = replace(sampling, time_scale=1.0)

    def window(sample: Sample) -> Window:
        _, times, _ = clip_frames(timeline(resolve_video(sample)), (sample.video_start, sample.video_end))
        choice = choose_frames(times, sampling, patch)
        told = told_times(times[choice.indices], choice.step_s, patch, rate, 1.0)
        return seen(sample.window, list(dict.fromkeys(float(t) for t in told)))

    return window
