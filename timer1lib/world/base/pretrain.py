"""Train the tiny base from scratch on the embedded world: one command, seeded, resumable.

    timer1 pretrain assets/tiny-qwen3-vl --steps 4000 --seed 0

Muon moves the matrices of the blocks, AdamW the rest; the loss counts answers only; several questions share a video.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from timer1lib.errors import Timer1Error
from timer1lib.files import append_jsonl, atomic_write_json
from timer1lib.models.config import FAMILIES, family_of_model
from timer1lib.models.fast_vision import speed_up_vision
from timer1lib.progress import Progress
from timer1lib.world.base.lessons import Lesson, Mix, build_lesson, lesson_pixels, lesson_scene
from timer1lib.world.base.tiny import MERGE, PATCH, TEMPORAL_PATCH, build_tiny, parameter_count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from timer1lib.world.scene import Scene

log = logging.getLogger(__name__)

STATE = "pretraining.pt"
FAMILY = "qwen3_vl"
"""The shipped model's."""


@dataclass(frozen=True)
class Recipe:
    """How the base is trained."""

    steps: int = 4000
    batch: int = 16
    fresh: int = 4
    """New videos a step; the rest of the batch is drawn from the latest `pool`."""
    pool: int = 3000
    learning_rate: float = 2e-3
    warmup: int = 50
    decay_share: float = 0.3
    clip: float = 1.0
    seed: int = 0
    save_every: int = 250


def pretrain(
    out_dir: Path, recipe: Recipe, mix: Mix, family: str = FAMILY, hidden: int = 128, layers: int = 3, textual: bool = True
) -> Path:
    """Train a tiny model from random weights into `out_dir`; a killed run goes on where it stopped.

    Args:
        textual: the model is told times as text; else by positions (a Timer1Error but for Qwen2.5-VL).

    Returns:
        The model folder, with `training.json` (data, recipe, time) and `curve.jsonl` (loss by step).
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    if family not in FAMILIES:
        raise Timer1Error(f"--family {family!r}: one of {', '.join(FAMILIES)}")
    if family == FAMILY and not textual:
        raise Timer1Error("--positions: a Qwen3-VL has none in seconds; use it with --family qwen2_5_vl")
    state_path = out_dir / STATE
    if not state_path.is_file():
        build_tiny(out_dir, family, recipe.seed, hidden=hidden, layers=layers, textual=textual)
    model = AutoModelForImageTextToText.from_pretrained(out_dir, dtype=torch.float32)
    tokenizer = AutoProcessor.from_pretrained(out_dir).tokenizer
    optimizers = build_optimizers(model, recipe)
    start, spent = _restore(state_path, model, optimizers)
    if family == "qwen2_5_vl":
        family_of_model(model).install_rule(model)
    speed_up_vision(model)
    model.train()
    video = lesson_videos(mix, recipe.pool)
    progress = Progress("pretraining", recipe.steps, done=start)
    began, losses = time.monotonic() - spent, []
    for step in range(start, recipe.steps):
        rng = np.random.default_rng([recipe.seed, 17, step])
        lessons = [build_lesson(*video(i), tokenizer, rng, mix, textual) for i in batch_indices(step, recipe, rng)]
        loss = train_step(model, lessons, optimizers, learning_rate(step, recipe), recipe.clip, int(tokenizer.pad_token_id or 0))
        losses.append(loss)
        progress.update(loss=float(np.mean(losses[-50:])))
        if (step + 1) % 50 == 0:
            mean, seconds = round(float(np.mean(losses[-50:])), 4), round(time.monotonic() - began, 1)
            append_jsonl(out_dir / "curve.jsonl", [{"step": step + 1, "loss": mean, "seconds": seconds}])
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            _save(out_dir, model, optimizers, step + 1, time.monotonic() - began)
    card = {
        "family": family,
        "timestamps": "text" if textual else "positions",
        "parameters": parameter_count(out_dir),
        "recipe": asdict(recipe),
        "mix": asdict(mix),
        "seconds": round(time.monotonic() - began, 1),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    atomic_write_json(out_dir / "training.json", card)
    state_path.unlink(missing_ok=True)
    return out_dir


def batch_indices(step: int, recipe: Recipe, rng: np.random.Generator) -> list[int]:
    """Scene numbers of a step: `fresh` new ones and some of the latest `pool`."""
    newest = (step + 1) * recipe.fresh
    older = rng.integers(max(0, newest - recipe.pool), newest, recipe.batch - recipe.fresh)
    return [*range(newest - recipe.fresh, newest), *map(int, older)]


def lesson_videos(mix: Mix, keep: int) -> Callable[[int], tuple[Scene, NDArray[np.uint8]]]:
    """A function from a number to a scene and its pixels, drawn on demand, the latest kept."""

    @lru_cache(keep)
    def video(index: int) -> tuple[Scene, NDArray[np.uint8]]:
        scene = lesson_scene(index, mix)
        return scene, lesson_pixels(scene)

    return video


def build_optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks and the merger, AdamW for embeddings, norms and the patch embedding."""
    parts = ("layers.", "blocks.", "merger")
    inner = [p for n, p in model.named_parameters() if p.ndim == 2 and any(part in n for part in parts)]
    chosen = {id(p) for p in inner}
    outer = [p for p in model.parameters() if id(p) not in chosen]
    rate = recipe.learning_rate
    return [
        BatchedMuon(inner, lr=rate, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(outer, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, flat, linear decay to 5% over the last `decay_share`."""
    warm = min(1.0, (step + 1) / recipe.warmup)
    left = (recipe.steps - step) / (recipe.steps * recipe.decay_share)
    return recipe.learning_rate * warm * min(1.0, max(0.05, left))


def train_step(
    model: Any, lessons: list[Lesson], optimizers: list[torch.optim.Optimizer], rate: float, clip: float, pad_token: int
) -> float:
    """One update; returns the weighted mean loss over answer tokens."""
    batch, labels, weights = collate_lessons(lessons, model.config, pad_token)
    hidden = model.model(**batch).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    learned = targets != -100
    losses = nn.functional.cross_entropy(model.lm_head(hidden[learned]), targets[learned], reduction="none")
    weight = weights[:, 1:][learned]
    loss = (losses * weight).sum() / weight.sum()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def collate_lessons(
    lessons: list[Lesson], config: Any, pad_token: int
) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Right-padded batch of lessons, its labels and their weights in the loss, the last two (batch, length).

    Args:
        config: of the model, whose family and `timestamps` decide how many videos a lesson's frames are.
    """

    def padded(rows: list[torch.Tensor], value: float = 0) -> torch.Tensor:
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)

    ids = padded([torch.tensor(lesson.ids) for lesson in lessons], pad_token)
    labels = padded([torch.tensor(lesson.labels) for lesson in lessons], -100)
    weights = padded([torch.tensor(lesson.weights) for lesson in lessons])
    mask = padded([torch.ones(len(lesson.ids), dtype=torch.long) for lesson in lessons])
    patches, grid = patchify(np.stack([lesson.pixels for lesson in lessons]))
    inputs: dict[str, torch.Tensor] = {}
    if config.model_type == "qwen2_5_vl":
        seconds = torch.tensor([lesson.seconds_per_grid for lesson in lessons])
        if getattr(config, "timestamps", "auto") == "text":
            steps = int(grid[0, 0])
            grid, seconds = grid.repeat_interleave(steps, 0), seconds.repeat_interleave(steps)
            grid[:, 0] = 1
        inputs["second_per_grid_ts"] = seconds
    inputs |= {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values_videos": patches,
        "video_grid_thw": grid,
        "mm_token_type_ids": (ids == config.video_token_id).int() * 2,
    }
    return inputs, labels, weights


def patchify(videos: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 (batch, frames, side, side, 3) -> patches (batch * grid cells, channels * pixels) and grids (batch, 3).

    The layout of the families' video processors, for videos of one size; a test compares them.
    """
    batch, frames, height, width, _ = videos.shape
    x = torch.from_numpy(videos).permute(0, 1, 4, 2, 3).float().div_(127.5).sub_(1)
    t, h, w = frames // TEMPORAL_PATCH, height // PATCH, width // PATCH
    x = x.view(batch, t, TEMPORAL_PATCH, 3, h // MERGE, MERGE, PATCH, w // MERGE, MERGE, PATCH)
    x = x.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9).reshape(batch * t * h * w, -1)
    return x, torch.tensor([[t, h, w]] * batch)


def _restore(path: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> tuple[int, float]:
    if not path.is_file():
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    log.info("going on from step %d", state["step"])
    return int(state["step"]), float(state["seconds"])


def _save(out_dir: Path, model: Any, optimizers: list[torch.optim.Optimizer], step: int, seconds: float) -> None:
    model.save_pretrained(out_dir)
    temporary, moments = out_dir / (STATE + ".new"), [optimizer.state_dict() for optimizer in optimizers]
    torch.save({"model": model.state_dict(), "optimizers": moments, "step": step, "seconds": seconds}, temporary)
    temporary.replace(out_dir / STATE)


class BatchedMuon(torch.optim.Optimizer):
    """Muon for 2-D parameters, matrices of one shape at once; updates have a root mean square of 0.2 lr.

    torch's own casts to bfloat16, which a processor without such units is slow at: 1,317 ms a step against 67 (measured on two
    cores of an AMD EPYC without AVX-512). Momentum is Nesterov's, weight decay decoupled.
    """

    def __init__(
        self, params: Iterable[torch.Tensor], lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else closure()
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[torch.Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
            for parameters in by_shape.values():
                self._step_together(parameters, group)
        return loss

    def _step_together(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        updates = []
        for parameter in parameters:
            state = self.state[parameter]
            buffer = state.setdefault("momentum_buffer", torch.zeros_like(parameter))
            assert parameter.grad is not None
            buffer.lerp_(parameter.grad, 1 - momentum)
            updates.append(parameter.grad.lerp(buffer, momentum))
        rows, columns = parameters[0].shape
        scale = 0.2 * max(rows, columns) ** 0.5
        for parameter, update in zip(parameters, orthogonalise(torch.stack(updates)), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update, alpha=-group["lr"] * scale)


def orthogonalise(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Newton-Schulz iteration towards the nearest orthogonal matrix, (n, rows, columns) in and out."""
    a, b, c = 3.4445, -4.7750, 2.0315
    flip = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if flip else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: torch.Tensor = x.transpose(1, 2) if flip else x
    return result
