"""Data sets of the world: its splits, and what `timer1 synth` writes.

Each split has a purpose and a range of seeds of its own, so that no video is in two.

| split | what it is for | scenes |
|---|---|---|
| pretraining | the base (`world/base/lessons.py`) | easy, drawn as pixels, never written; phrasings of its own |
| train | pool of difficulty, SFT and GRPO | medium, phrasings that the base was not taught |
| test_id | test in distribution | as train |
| test_ood | test out of distribution | unseen colour-shape pairs, longer, phrasings of its own, more look-alikes |
| test_wording, test_pairs, test_long, test_hard | what of test_ood does it: one novelty each | as train but for that one |
| qa_short | what is so at one moment | as train |
| qa_long | order and length of events | up to 180 s |
| train_qa | questions of both kinds to train on | as train |
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_jsonl
from timer1lib.processes import worker_processes
from timer1lib.progress import Progress
from timer1lib.schema import Sample
from timer1lib.world.lexicon import HELD_OUT, NEW_PHRASES, TYPES, Phrases, pool_phrases
from timer1lib.world.queries import long_questions, pick_queries, short_questions
from timer1lib.world.render import clear_temporaries, write_video
from timer1lib.world.scene import PLAIN, Look, Pairs, Scene, sample_scene

SEEDS_A_SPLIT = 1_000_000
SYNTH_SEEDS = 500 * SEEDS_A_SPLIT
"""Seeds of `synth`, apart from those of the workbook's own splits."""
NEAR_SCENES, NEAR_SEEDS = 1_000, 10_000
"""So many scenes of so many world seeds lie side by side in a split's range; all others lie far above every range."""
FAR = 10**15


@dataclass(frozen=True, slots=True)
class SplitSpec:
    """What the scenes of a split are like. Difficulties and durations (seconds) are ranges."""

    number: int
    """Its place among the splits: `scene_number`."""
    difficulty: tuple[float, float]
    durations: tuple[float, float] = (10.0, 64.0)
    pairs: Pairs = "common"
    phrases: Phrases | None = None
    """Phrasings of its own; None: the pool's."""
    kind: Literal["grounding", "short", "long", "both"] = "grounding"
    as_pool: bool = True
    """Whether its scenes are as varied as the pool's; the test out of distribution stays as it is, whatever the pool."""


SPLITS: dict[str, SplitSpec] = {
    "train": SplitSpec(1, (0.2, 0.7)),
    "test_id": SplitSpec(2, (0.2, 0.7)),
    "test_ood": SplitSpec(3, (0.6, 1.0), (48.0, 120.0), "held_out", NEW_PHRASES, as_pool=False),
    "qa_short": SplitSpec(4, (0.2, 0.7), kind="short"),
    "qa_long": SplitSpec(5, (0.2, 0.7), (64.0, 180.0), kind="long"),
    "train_qa": SplitSpec(6, (0.2, 0.7), kind="both"),
    "test_wording": SplitSpec(7, (0.2, 0.7), phrases=NEW_PHRASES),
    "test_pairs": SplitSpec(8, (0.2, 0.7), pairs="held_out"),
    "test_long": SplitSpec(9, (0.2, 0.7), (48.0, 120.0)),
    "test_hard": SplitSpec(10, (0.6, 1.0)),
}
NOVELTIES = ("test_wording", "test_pairs", "test_long", "test_hard")
"""What is new in test_ood, one at a time: wording, colour-shape pairs, length, difficulty (look-alikes, shorter windows)."""


@dataclass(frozen=True, slots=True)
class Variety:
    """How varied the pool is, and with it the tests that are like it."""

    phrasings: int = 2
    """Of each form of query, up to `lexicon.MOST_PHRASINGS`."""
    look: Look = PLAIN


USUAL = Variety()


def build_splits(
    out_dir: str | Path,
    *,
    train_videos: int = 200,
    test_videos: int = 130,
    ood_videos: int = 130,
    questions: int = 100,
    train_questions: int = 0,
    queries_a_video: int = 4,
    seed: int = 0,
    workers: int = 2,
    more_tests: Collection[str] = (),
    variety: Variety = USUAL,
) -> dict[str, list[Sample]]:
    """Make the splits' videos below `out_dir` and return their samples; videos that are there are kept.

    Args:
        questions: multiple-choice questions in each of `qa_short` and `qa_long`, as `train_questions` in `train_qa`; 0: no split.
        seed: another seed gives other videos in every split.
        more_tests: of `NOVELTIES`, with `ood_videos` videos each.
        variety: other phrasings do not change the videos nor what is asked of them.

    Returns:
        Samples by split; `Sample.video` is relative to `out_dir`, times are seconds.
    """
    counts = {"train": train_videos, "test_id": test_videos, "test_ood": ood_videos}
    counts |= {"qa_short": questions, "qa_long": questions, "train_qa": train_questions}
    counts |= {name: ood_videos for name in NOVELTIES if name in more_tests}
    samples: dict[str, list[Sample]] = {}
    scenes: list[tuple[Scene, Path]] = []
    for name, wanted in counts.items():
        if wanted == 0:
            continue
        rows: list[Sample] = []
        for scene in split_scenes(SPLITS[name], seed, variety.look):
            made = scene_samples(scene, name, queries_a_video, phrasings=variety.phrasings)
            if made:
                rows += made
                scenes.append((scene, Path(out_dir) / made[0].video))
            if (len({row.video for row in rows}) if SPLITS[name].kind == "grounding" else len(rows)) >= wanted:
                break
        samples[name] = rows if SPLITS[name].kind == "grounding" else rows[:wanted]
    write_videos(scenes, workers)
    return samples


def split_scenes(spec: SplitSpec, seed: int, look: Look = PLAIN) -> Iterator[Scene]:
    """A split's scenes without end, in a fixed order."""
    for i in range(SEEDS_A_SPLIT):
        number = scene_number(spec, seed, i)
        difficulty = float(np.random.default_rng([number, 3]).uniform(*spec.difficulty))
        yield sample_scene(number, round(difficulty, 3), spec.durations, spec.pairs, look if spec.as_pool else PLAIN)


def scene_number(spec: SplitSpec, seed: int, i: int) -> int:
    """Seed of a split's i-th scene: no two splits, world seeds or places share one."""
    if i < NEAR_SCENES and seed < NEAR_SEEDS:
        return spec.number * NEAR_SCENES * NEAR_SEEDS + seed * NEAR_SCENES + i
    return (1 + spec.number) * FAR + seed * SEEDS_A_SPLIT + i


def scene_samples(
    scene: Scene, split: str, queries_a_video: int = 4, phrases: Phrases | None = None, phrasings: int = USUAL.phrasings
) -> list[Sample]:
    """A scene's samples in a split: up to `queries_a_video` queries, or two questions.

    Queries are worded in `phrases`, or else as the split says: in its own, or in the pool's first `phrasings`.
    """
    spec = SPLITS[split]
    phrases = phrases or spec.phrases or pool_phrases(phrasings)
    rng = np.random.default_rng([scene.seed, 5])
    if spec.kind == "grounding":
        queries = pick_queries(scene, rng, queries_a_video * 2 if spec.pairs == "held_out" else queries_a_video)
        if spec.pairs == "held_out":  # those about the unseen pairs first: that is what the split is for
            queries = sorted(queries, key=lambda q: not _is_about_unseen(dict(q.slots)))[:queries_a_video]
        asked: list[dict[str, Any]] = [
            {"query": q.text(rng, phrases), "windows": [q.window], "type": TYPES[q.type]} for q in queries
        ]
    else:
        choices = [] if spec.kind == "long" else short_questions(scene, rng)
        choices += [] if spec.kind == "short" else long_questions(scene, rng)
        picked = [choices[int(i)] for i in rng.permutation(len(choices))[:2]]
        asked = [
            {"query": c.text, "windows": [c.window], "type": c.kind, "options": list(c.options), "answer": c.answer}
            for c in picked
        ]
    common: dict[str, Any] = {"video": f"{split}/{scene.seed}.mp4", "duration": scene.duration, "source": "world", "split": split}
    return [Sample(f"{scene.seed}-{i}", **common, **one, extra={"difficulty": scene.difficulty}) for i, one in enumerate(asked)]


def _is_about_unseen(slots: dict[str, str]) -> bool:
    return any(f"{colour} {shape}" in (slots.get("thing"), slots.get("thing2")) for colour, shape in HELD_OUT)


def write_videos(scenes: list[tuple[Scene, Path]], workers: int, *, burn_clock: bool = False) -> None:
    """Encode the videos that are not there yet, in `workers` processes."""
    missing = [(scene, path) for scene, path in scenes if not path.is_file()]
    if not missing:
        return
    for folder in {path.parent for _, path in missing}:
        clear_temporaries(folder)
    progress = Progress("drawing videos", len(missing))
    write = partial(write_video, burn_clock=burn_clock)
    if workers < 2:
        for scene, path in missing:
            write(scene, path)
            progress.update()
        return
    with worker_processes(min(workers, os.cpu_count() or 1), "drawing videos") as pool:
        for _ in pool.map(write, *zip(*missing, strict=True), chunksize=4):
            progress.update()


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

    A Timer1Error says which number is out of range.

    Args:
        difficulty: 0 to 1 for all videos; None draws it for each.
        shortest, longest: seconds.
        burn_clock: write the second into the picture.

    Returns:
        `videos`, `samples` (counts), `annotations`, `folder` (paths).
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
    scenes, rows = [], []
    for number in count(SYNTH_SEEDS + seed * 100_000):
        drawn = float(np.random.default_rng([number, 3]).uniform(0, 1)) if difficulty is None else difficulty
        scene = sample_scene(number, round(drawn, 3), (shortest, longest))
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
