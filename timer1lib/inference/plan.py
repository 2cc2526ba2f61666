"""Which samples are asked in which order and batches, by which machine, and about which video.

Taking the video away from a question (another in its place, or its frames in random order) tells a model that looks from
one that follows its prior: see `evaluation.signatures`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from timer1lib.clock.frames import Frames
from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_jsonl, read_jsonl
from timer1lib.schema import Prediction, Sample

Perturbation = Literal["swap", "shuffle"]
PERTURBATIONS: tuple[Perturbation, ...] = ("swap", "shuffle")


def parse_shard(text: str) -> tuple[int, int]:
    """`"2/4"` -> (2, 4): the second of four, counted from 1.

    Raises:
        Timer1Error: not of that form, or out of range.
    """
    first, slash, second = text.partition("/")
    if slash and first.strip().isdecimal() and second.strip().isdecimal() and 1 <= int(first) <= int(second):
        return int(first), int(second)
    raise Timer1Error(f"shard {text!r}: write it as k/n with 1 <= k <= n, such as 1/4")


def take_shard(samples: Sequence[Sample], shard: tuple[int, int] | None) -> list[Sample]:
    """The samples of shard (k, n). Whole videos go to one shard, so that none is decoded twice, and shards are even."""
    if shard is None:
        return list(samples)
    k, n = shard
    if not 1 <= k <= n:
        raise Timer1Error(f"shard {k}/{n}: k counts from 1 to n")
    by_video: dict[tuple[str, float | None, float | None], int] = {}
    for sample in samples:
        key = clip_key(sample)
        by_video[key] = by_video.get(key, 0) + 1
    loads = [0] * n
    owner = {}
    for key, size in sorted(by_video.items(), key=lambda item: (-item[1], str(item[0]))):
        lightest = loads.index(min(loads))
        loads[lightest] += size
        owner[key] = lightest
    return [sample for sample in samples if owner[clip_key(sample)] == k - 1]


def shard_path(path: str | Path, shard: tuple[int, int] | None) -> Path:
    """Where shard (k, n) of a predictions file lies: `base.test.1of4.jsonl` beside `base.test.jsonl`."""
    target = Path(path)
    return target if shard is None else target.with_suffix(f".{shard[0]}of{shard[1]}{target.suffix}")


def merge_shards(path: str | Path, count: int, samples: Sequence[Sample], copies: int = 1) -> list[Prediction]:
    """Join the `count` shards of `path` into it, in the samples' order.

    Raises:
        Timer1Error: a shard is missing; a sample has no answer, or more than `copies`; an answer belongs to no sample.
    """
    found: dict[str, list[Prediction]] = {}
    for k in range(1, count + 1):
        part = shard_path(path, (k, count))
        if not part.is_file():
            raise Timer1Error(f"{part}: no such file; run shard {k}/{count} first")
        for number, row in enumerate(read_jsonl(part), 1):
            prediction = Prediction.from_json(row, f"{part}, row {number}")
            found.setdefault(prediction.id, []).append(prediction)
    wanted = [sample.id for sample in samples]
    for name in wanted:
        if len(found.get(name, ())) != copies:
            raise Timer1Error(f"{path}: sample {name!r} has {len(found.get(name, ()))} answers in its shards, not {copies}")
    stranger = next(iter(set(found) - set(wanted)), None)
    if stranger is not None:
        raise Timer1Error(f"{path}: the shards hold an answer to {stranger!r}, which is none of the samples")
    answers = [answer for name in wanted for answer in found[name]]
    atomic_write_jsonl(path, (answer.to_json() for answer in answers))
    return answers


def clip_key(sample: Sample) -> tuple[str, float | None, float | None]:
    """What has to be decoded for a sample: the file and the part of it."""
    return sample.video, sample.video_start, sample.video_end


def batches(samples: Sequence[Sample], size: int) -> list[list[Sample]]:
    """Batches of at most `size`: by length of the video, queries on one clip together, then by length of the query."""

    def order(sample: Sample) -> tuple[float, str, float, float, int, str]:
        start, end = sample.video_start or 0.0, sample.video_end or 0.0
        return (sample.duration or 0.0, sample.video, start, end, len(sample.query), sample.id)

    ranked = sorted(samples, key=order)
    return [ranked[i : i + size] for i in range(0, len(ranked), size)]


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
