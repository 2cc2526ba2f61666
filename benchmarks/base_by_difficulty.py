"""How far a model's mIoU falls as the embedded world gets harder: fresh videos at eleven fixed difficulties.

    python benchmarks/base_by_difficulty.py [--model assets/tiny-qwen3-vl] [--videos 60] [--json]

Intervals are over videos. The whole video as the answer stands beside the model: windows get shorter too.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from timer1lib.evaluation.intervals import mean_interval
from timer1lib.evaluation.measure import WHOLE_VIDEO, baseline_predictions
from timer1lib.evaluation.scored import join
from timer1lib.inference.generate import predict
from timer1lib.models.load import load_model
from timer1lib.params.load import load_params
from timer1lib.schema import Sample
from timer1lib.world.lexicon import PHRASES
from timer1lib.world.scene import Scene, sample_scene
from timer1lib.world.splits import scene_samples, write_videos

ROOT = Path(__file__).resolve().parent.parent
FIRST_SEED = 900_000_000
"""Below the seeds of pretraining, above those of every split."""


def samples_at(difficulty: float, videos: int, folder: Path) -> list[Sample]:
    """Queries on `videos` fresh videos of one difficulty: in the words that the base was taught, in all else like test_id."""
    scenes: list[tuple[Scene, Path]] = []
    samples: list[Sample] = []
    number = FIRST_SEED + round(1000 * difficulty) * 10_000
    while len(scenes) < videos:
        scene = sample_scene(number, difficulty)
        number += 1
        made = scene_samples(scene, "test_id", phrases=PHRASES)
        if made:
            samples += made
            scenes.append((scene, folder / made[0].video))
    write_videos(scenes, 2)
    return samples


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "assets/tiny-qwen3-vl"))
    parser.add_argument("--videos", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    logging.disable(logging.INFO)
    loaded, rows = load_model(given.model), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shared = load_params(ROOT / "params/tiny.yaml", [f"shared.cache_dir={folder / 'cache'}"]).shared
        for difficulty in [round(0.1 * i, 1) for i in range(11)]:
            samples = samples_at(difficulty, given.videos, folder)
            answers = predict(
                loaded, samples, lambda s: folder / s.video, shared, folder / f"{difficulty}.jsonl",
                max_new_tokens=48, batch_size=64, label=f"difficulty {difficulty}",
            )  # fmt: skip
            scored = join(samples, answers)
            mean, low, high = mean_interval(100 * scored.iou, scored.video)
            whole = 100 * join(samples, baseline_predictions(samples)[WHOLE_VIDEO]).iou.mean()
            row = {"difficulty": difficulty, "n": len(samples), "mIoU": mean, "low": low, "high": high, "whole": whole}
            rows.append(row)
            if not given.json:
                head = f"{difficulty:.1f}  n {len(samples):4d}  mIoU {mean:5.1f} ({low:.1f} to {high:.1f})"
                print(f"{head}  whole video {whole:.1f}", flush=True)
    if given.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
