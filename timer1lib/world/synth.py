"""`timer1 synth`: the embedded world's videos and annotations in a folder, to use as a data set like any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_jsonl
from timer1lib.world.scene import Scene, sample_scene
from timer1lib.world.splits import SEEDS_A_SPLIT, scene_samples, write_videos

SYNTH_SEEDS = 500 * SEEDS_A_SPLIT
"""Seeds of `synth`, apart from those of the workbook's own splits."""


def synth(
    out_dir: str | Path,
    videos: int,
    seed: int = 0,
    *,
    difficulty: float | None = None,
    shortest: float = 10.0,
    longest: float = 64.0,
    burn_clock: bool = False,
    workers: int = 2,
) -> dict[str, Any]:
    """Write `videos` mp4 files to `out_dir/videos` and their queries to `out_dir/annotations.jsonl`.

    Args:
        difficulty: 0 to 1 for all videos; None draws it for each.
        shortest, longest: seconds.
        burn_clock: write the second into the picture.

    Returns:
        `videos`, `samples` (counts), `annotations`, `folder` (paths).

    Raises:
        Timer1Error: a number is out of range.
    """
    if videos < 1:
        raise Timer1Error(f"--videos {videos}: at least 1")
    if difficulty is not None and not 0 <= difficulty <= 1:
        raise Timer1Error(f"--difficulty {difficulty}: from 0 to 1")
    if not 2 <= shortest <= longest:
        raise Timer1Error(f"durations from {shortest} to {longest} seconds: at least 2, and in this order")
    folder = Path(out_dir)
    if folder.exists() and not folder.is_dir():
        raise Timer1Error(f"{folder}: not a folder")
    scenes = []
    rows = []
    for scene in _scenes(seed, difficulty, (shortest, longest)):
        samples = scene_samples(scene, "train")
        for sample in samples:
            sample.video, sample.split = f"videos/{scene.seed}.mp4", ""
        if samples:
            scenes.append((scene, folder / samples[0].video))
            rows += [sample.to_json() for sample in samples]
        if len(scenes) == videos:
            break
    write_videos(scenes, workers, burn_clock=burn_clock)
    annotations = folder / "annotations.jsonl"
    atomic_write_jsonl(annotations, rows)
    return {"videos": len(scenes), "samples": len(rows), "annotations": str(annotations), "folder": str(folder)}


def _scenes(seed: int, difficulty: float | None, durations: tuple[float, float]) -> Iterator[Scene]:
    number = SYNTH_SEEDS + seed * 100_000
    while True:
        drawn = float(np.random.default_rng([number, 3]).uniform(0, 1)) if difficulty is None else difficulty
        yield sample_scene(number, round(drawn, 3), durations)
        number += 1
