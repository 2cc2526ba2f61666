"""Taking the video away from a question: another video in its place, or its frames in random order.

A model that looks must answer differently; one that follows its prior does not. See `evaluation.signatures`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from timer1lib.errors import Timer1Error
from timer1lib.inference.plan import clip_key
from timer1lib.schema import Sample
from timer1lib.video.frames import Frames

Perturbation = Literal["swap", "shuffle"]
PERTURBATIONS: tuple[Perturbation, ...] = ("swap", "shuffle")


def swap_videos(samples: Sequence[Sample]) -> list[Sample]:
    """Each sample on another sample's video, the one next in length, so that the stated duration changes little.

    Every clip's questions go to one other clip; the last goes to the first. Ids and queries stay, `windows` stay those
    of the true video.

    Raises:
        Timer1Error: all samples are about one clip.
    """
    clips: dict[tuple[str, float | None, float | None], Sample] = {}
    for sample in samples:
        clips.setdefault(clip_key(sample), sample)
    order = sorted(clips.values(), key=lambda s: (s.duration or 0.0, s.video, s.video_start or 0.0))
    if len(order) < 2:
        raise Timer1Error("swapping videos needs samples on two videos at least")
    other = {clip_key(mine): theirs for mine, theirs in zip(order, order[1:] + order[:1], strict=True)}

    def swapped(sample: Sample) -> Sample:
        theirs = other[clip_key(sample)]
        return replace(
            sample, video=theirs.video, duration=theirs.duration, video_start=theirs.video_start, video_end=theirs.video_end
        )

    return [swapped(sample) for sample in samples]


def shuffle_frames(frames: Frames, name: str) -> Frames:
    """The pictures in random order under unchanged times; the order depends on `name` (the video) alone."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    order = np.random.default_rng(seed).permutation(len(frames))
    return replace(frames, pixels=frames.pixels[order])
