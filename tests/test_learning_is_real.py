"""A fixed, small training: a model made blind learns to look, and what it learns is in the video and in its order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from timer1lib.files import resolve
from timer1lib.models.fast_vision import speed_up_vision
from timer1lib.params.sections import SharedParams
from timer1lib.world.base.lessons import Mix, build_lesson
from timer1lib.world.base.pretrain import Recipe, build_optimizers, collate_lessons, lesson_videos, train_step

STEPS, TRAINED, ASKED = 40, range(300), range(5000, 5048)
WINDOWS_ONLY = Mix(question=0, grounded_question=0, moment=0, describe=0, chain_of_thought=0, hardest=0.2)
Pixels = NDArray[np.uint8]


def blinded() -> tuple[Any, Any]:
    """The base with its mergers' weights drawn anew: it can still read, copy times and write answers, but not see."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = resolve(SharedParams().model)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(0)
    for name, parameter in model.model.visual.named_parameters():
        if "merger" in name and parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.02)
    speed_up_vision(model)
    return model, AutoProcessor.from_pretrained(folder).tokenizer


def loss_on(model: Any, tokenizer: Any, video: Any, shown: Callable[[int], Pixels]) -> float:
    """Mean loss on the right answers about scenes that were not trained on, each asked beside the pixels of `shown`."""
    rng = np.random.default_rng(5)
    lessons = [build_lesson(video(i)[0], shown(i), tokenizer, rng, WINDOWS_ONLY) for i in ASKED]
    batch, labels, _ = collate_lessons(lessons, model.config, int(tokenizer.pad_token_id or 0))
    with torch.no_grad():
        logits = model(**batch).logits[:, :-1]
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten()))


def test_forty_steps_teach_a_blind_model_to_look() -> None:
    torch.set_num_threads(1)
    model, tokenizer = blinded()
    video = lesson_videos(WINDOWS_ONLY, 1000)
    order = np.random.default_rng(1).permutation(32)

    def losses() -> tuple[float, float, float]:
        real = loss_on(model, tokenizer, video, lambda i: video(i)[1])
        swapped = loss_on(model, tokenizer, video, lambda i: video(ASKED[(i - ASKED[0] + 1) % len(ASKED)])[1])
        shuffled = loss_on(model, tokenizer, video, lambda i: video(i)[1][order])
        return real, swapped, shuffled

    real, swapped, shuffled = losses()
    assert abs(swapped - real) < 0.05
    assert abs(shuffled - real) < 0.05
    optimizers = build_optimizers(model, Recipe())
    for step in range(STEPS):
        rng = np.random.default_rng([0, step])
        lessons = [build_lesson(*video(TRAINED[int(i)]), tokenizer, rng, WINDOWS_ONLY) for i in rng.integers(0, len(TRAINED), 8)]
        train_step(model, lessons, optimizers, 1e-3 * min(1.0, (step + 1) / 5), 1.0, int(tokenizer.pad_token_id or 0))
    real, swapped, shuffled = losses()
    assert swapped > real + 0.08
    assert shuffled > real + 0.08
