"""How fast two epochs of the tiny run go, with the caches and without, and how much of a step waits for data.

    python benchmarks/epoch.py [--videos 16] [--prompts 8] [--json]

Both use the shared-prefix trainer on mp4 files of the embedded world. With the caches, worker processes decode ahead,
frames and the frozen tower's features are kept on disk, processed videos in memory, and a thread encodes the next
step's prompts. Without them every step decodes its videos and runs the tower itself, as a trainer without a plan for
video would.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from datasets import Dataset
from transformers import PrinterCallback

from timer1lib.clock.frames import Sampling
from timer1lib.files import read_jsonl
from timer1lib.models.config import sampling_for
from timer1lib.models.features import FeatureCache
from timer1lib.models.inputs import banned_token_ids, encode_prompt, sample_prompt
from timer1lib.models.load import LoadedModel, load_model
from timer1lib.models.prompts import PromptEncoder
from timer1lib.params.load import load_params
from timer1lib.rewards import RewardInput, tiou_reward
from timer1lib.schema import Sample
from timer1lib.training.common import freeze_vision_tower
from timer1lib.training.video_grpo import VideoGRPOConfig
from timer1lib.training.video_grpo.trainer import VideoGRPOTrainer
from timer1lib.video.decode import read_frames
from timer1lib.video.store import FrameStore
from timer1lib.world.splits import synth

ROOT = Path(__file__).resolve().parent.parent
PARAMS = load_params(ROOT / "params" / "tiny.yaml")


def trained(folder: Path, samples: dict[str, Sample], prompts: int, *, caches: bool) -> list[dict[str, float]]:
    """Train two epochs and return a row an epoch: steps a minute, and the share of the steps' time that waited for data."""
    shared, grpo = PARAMS.shared, PARAMS.grpo
    loaded = load_model(ROOT / shared.model, device="cpu", clock_rule=shared.clock_rule)
    freeze_vision_tower(loaded.model)
    sampling = sampling_for(shared)
    with ExitStack() as open_things:
        encode = plain_encoder(folder, loaded, samples, sampling)
        if caches:
            store = open_things.enter_context(FrameStore(folder / "cache", workers=2))
            store.prefetch([(folder / s.video, sampling, (None, None)) for s in samples.values()])
            encode = cached_encoder(folder, loaded, samples, sampling, store)
        args = VideoGRPOConfig(
            output_dir=str(folder / "out"), num_train_epochs=2, per_device_train_batch_size=prompts * grpo.num_generations,
            num_generations=grpo.num_generations, max_completion_length=grpo.max_completion_length,
            learning_rate=grpo.learning_rate, banned_token_ids=banned_token_ids(loaded), beta=0.0, logging_steps=1,
            save_strategy="no", report_to=[], use_cpu=True, bf16=False, disable_tqdm=True, gradient_checkpointing=False,
            encode_threads=1 if caches else 0,
        )  # fmt: skip
        trainer = VideoGRPOTrainer(
            loaded.model, reward(samples), args, encode_prompt=encode,
            feature_cache=FeatureCache(folder / "cache") if caches else None,
            train_dataset=Dataset.from_list([{"sample_id": s.id, "prompt": s.query} for s in samples.values()]),
            processing_class=loaded.processor,
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    history = [row for row in trainer.state.log_history if "step_time" in row]
    half = len(history) // 2
    return [
        {
            "steps_per_minute": 60 * len(part) / sum(row["step_time"] for row in part),
            "waiting_share": sum(row["time/encode"] for row in part) / sum(row["step_time"] for row in part),
            "rollout_share": sum(row["time/rollout"] for row in part) / sum(row["step_time"] for row in part),
        }
        for part in (history[:half], history[half:])
    ]


Encoder = Callable[[dict[str, Any]], dict[str, Any]]


def plain_encoder(folder: Path, loaded: LoadedModel, samples: dict[str, Sample], sampling: Sampling) -> Encoder:
    def encode(row: dict[str, Any]) -> dict[str, Any]:
        sample = samples[row["sample_id"]]
        return dict(encode_prompt(loaded, read_frames(folder / sample.video, sampling), sample_prompt(sample, PARAMS.shared)))

    return encode


def cached_encoder(
    folder: Path, loaded: LoadedModel, samples: dict[str, Sample], sampling: Sampling, store: FrameStore
) -> Encoder:
    prompts = PromptEncoder()

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        sample = samples[row["sample_id"]]
        what = folder / sample.video, sampling
        key, prompt = store.key(*what), sample_prompt(sample, PARAMS.shared)
        if prompts.holds(key, prompt):
            store.pass_over(*what)
        return {**prompts.encode(loaded, lambda: store.get(*what), key, prompt), "video_key": key}

    return encode


def reward(samples: dict[str, Sample]) -> Callable[..., list[float]]:
    def tiou(completions: list[str], sample_id: list[str], **_: Any) -> list[float]:
        pairs = zip(completions, (samples[name] for name in sample_id), strict=True)
        return [tiou_reward(RewardInput(text, tuple(s.windows), s.duration or 0.0)) for text, s in pairs]

    return tiou


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=16, help="mp4 files of the embedded world, about four queries each")
    parser.add_argument("--prompts", type=int, default=8, help="groups a step")
    parser.add_argument("--json", action="store_true", help="JSON alone on standard output")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    for name, caches in (("without caches", False), ("with caches", True)):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            synth(folder, options.videos, 1)
            samples = {row["id"]: Sample.from_json(row) for row in read_jsonl(folder / "annotations.jsonl")}
            result[name] = trained(folder, samples, options.prompts, caches=caches)
    if options.json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    lines = ["| | epoch | steps a minute | of a step waiting for data | sampling |", "|---|---|---|---|---|"]
    for name, epochs in result.items():
        for number, row in enumerate(epochs, 1):
            shares = f"{row['waiting_share']:.1%} | {row['rollout_share']:.1%}"
            lines.append(f"| {name} | {number} | {row['steps_per_minute']:.1f} | {shares} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
