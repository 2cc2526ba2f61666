"""Short trainings of a tiny model on made-up videos, for the tests of the video trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from timer1lib.clock.frames import Frames
from timer1lib.models.inputs import banned_token_ids, encode_prompt
from timer1lib.models.load import LoadedModel, load_model
from timer1lib.training.video_grpo import VideoGRPOConfig
from timer1lib.training.video_grpo.trainer import VideoGRPOTrainer
from timer1lib.world.base.tiny import build_tiny

torch.set_num_threads(1)


def tiny_folder(folder: Path, family: str = "qwen3_vl") -> Path:
    """A random tiny model as an ordinary folder."""
    if not (folder / "config.json").is_file():
        build_tiny(folder, family, hidden=32, layers=2, vision_hidden=32, vision_depth=1)  # type: ignore[arg-type]
    return folder


def some_frames(seed: int, count: int) -> Frames:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 56, 56, 3), dtype=np.uint8)
    return Frames(pixels, np.arange(count) * 0.5, count * 0.5, 0.5, "made up")


class Encoder:
    """`encode_prompt` for made-up videos of 8 or 10 frames; counts its calls and fails for the ids it is told."""

    def __init__(self, loaded: LoadedModel, broken: tuple[str, ...] = ()) -> None:
        self.loaded, self.broken = loaded, broken
        self.calls: list[str] = []

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        self.calls.append(row["sample_id"])
        if row["sample_id"] in self.broken:
            raise OSError(f"{row['sample_id']}.mp4: moov atom not found")
        number = int(row["sample_id"][1:])
        return dict(encode_prompt(self.loaded, some_frames(number, 8 + 2 * (number % 2)), row["prompt"]))


def rows(count: int) -> Dataset:
    return Dataset.from_list(
        [{"prompt": f"when: thing {i} moves?", "sample_id": f"s{i}", "target": 10 + i} for i in range(count)]
    )


def letter_reward(completions: list[str], target: list[int], **_: Any) -> list[float]:
    """Differs between almost any two completions: no group is without gradient."""
    return [sum(map(ord, text)) % 97 / 97 + t / 1000 for text, t in zip(completions, target, strict=True)]


def flat_reward(completions: list[str], **_: Any) -> list[float]:
    return [0.25] * len(completions)


def trainer(
    model_folder: Path, out: Path, *, count: int = 12, broken: tuple[str, ...] = (), reward: Any = letter_reward, frozen: bool = False,
    feature_cache: Any = None, on_rollouts: Any = None, peft_config: Any = None, model: LoadedModel | None = None,
    callbacks: Any = None, **options: Any,
) -> tuple[VideoGRPOTrainer, Encoder]:  # fmt: skip
    """A trainer on a tiny model: 3 prompts x 4 completions of 6 tokens a step."""
    loaded = model or load_model(model_folder, device="cpu")
    if frozen:
        loaded.model.model.visual.requires_grad_(False)
        loaded.model.model.visual.merger.requires_grad_(True)
    encoder = Encoder(loaded, broken)
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 12, "num_generations": 4, "max_completion_length": 6, "learning_rate": 1e-3, "logging_steps": 1,
        "max_steps": 2, "save_strategy": "no", "report_to": [], "use_cpu": True, "bf16": False, "beta": 0.0, "disable_tqdm": True,
        "gradient_checkpointing": False, "loss_type": "bnpo", "seed": 7, "banned_token_ids": banned_token_ids(loaded),
    } | options  # fmt: skip
    args = VideoGRPOConfig(output_dir=str(out), **settings)
    made = VideoGRPOTrainer(
        loaded.model, reward, args, encode_prompt=encoder, feature_cache=feature_cache, on_rollouts=on_rollouts,
        train_dataset=rows(count), processing_class=loaded.processor, peft_config=peft_config, callbacks=callbacks,
    )  # fmt: skip
    return made, encoder


def weights(made: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in made.model.named_parameters()}


def furthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[n] - b[n]).abs().max().item() for n in a)
