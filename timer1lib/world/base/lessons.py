"""What the tiny base is taught: one video and a few turns of questions and answers about it, as token ids.

The token sequence is the one that the family's processor makes of the same video and prompt; a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from timer1lib.clock.told import patch_means, seconds_per_grid, seen
from timer1lib.forms import FORMS
from timer1lib.schema import Window
from timer1lib.world.base.tiny import TEMPORAL_PATCH
from timer1lib.world.lexicon import VERBS
from timer1lib.world.queries import LETTERS, long_questions, pick_queries, short_questions
from timer1lib.world.render import FPS, render
from timer1lib.world.scene import Scene, sample_scene

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerFast

FRAMES, SIDE = 32, 56
PRETRAIN_SEEDS = 1_000_000_000
"""Pretraining scenes have seeds from here on; no other split does."""


@dataclass(frozen=True)
class Mix:
    """Shares of the turns; what is left asks for the window with a direct answer."""

    chain_of_thought: float = 0.35
    question: float = 0.2
    grounded_question: float = 0.06
    moment: float = 0.06
    describe: float = 0.08
    turns: int = 5
    easiest: float = 0.0
    hardest: float = 0.45
    letter_weight: float = 5.0
    """Weight in the loss of an answer that is a letter alone: among the tokens of the windows it would hardly count."""


@dataclass(slots=True)
class Lesson:
    """One training sequence. `labels` is -100 outside the answers."""

    ids: list[int]
    labels: list[int]
    weights: list[float]
    """Of each token in the loss."""
    pixels: NDArray[np.uint8]
    """(frames, side, side, 3)"""
    seconds_per_grid: float
    """From one frame pair to the next, as the model is told it."""


def lesson_scene(index: int, mix: Mix) -> Scene:
    """Scene number `index` of the pretraining split."""
    difficulty = float(np.random.default_rng([index, 3]).uniform(mix.easiest, mix.hardest))
    return sample_scene(PRETRAIN_SEEDS + index, round(difficulty, 3))


def lesson_pixels(scene: Scene) -> NDArray[np.uint8]:
    return render(scene, sampled_times(scene.duration, FRAMES), SIDE)


def build_lesson(
    scene: Scene,
    pixels: NDArray[np.uint8],
    tokenizer: PreTrainedTokenizerFast,
    rng: np.random.Generator,
    mix: Mix,
    textual: bool = True,
) -> Lesson:
    """Put a video and up to `mix.turns` turns into one sequence.

    Args:
        textual: a time before each frame pair; else one run of visual tokens, whose positions tell the times.
    """
    told = told_times(scene.duration, FRAMES)
    if textual:
        video = "".join(f"<{t:.1f} seconds><|vision_start|><|video_pad|><|vision_end|>" for t in told)
    else:
        video = "<|vision_start|>" + "<|video_pad|>" * len(told) + "<|vision_end|>"
    pieces: list[tuple[str, float]] = []
    for question, answer in _turns(scene, told, rng, mix):
        pieces.append(("\n<|im_start|>user\n" if pieces else f"<|im_start|>user\n{video}", 0.0))
        pieces.append((f"{question}<|im_end|>\n<|im_start|>assistant\n", 0.0))
        pieces.append((f"{answer}<|im_end|>", mix.letter_weight if answer in LETTERS else 1.0))
    ids: list[int] = []
    labels: list[int] = []
    weights: list[float] = []
    for (_, weight), piece in zip(pieces, tokenizer([text for text, _ in pieces])["input_ids"], strict=True):
        ids += piece
        labels += piece if weight else [-100] * len(piece)
        weights += [weight] * len(piece)
    times = sampled_times(scene.duration, FRAMES)
    step = float(times[-1] - times[0]) / (FRAMES - 1)
    return Lesson(ids, labels, weights, pixels, seconds_per_grid(step, TEMPORAL_PATCH))


def _turns(scene: Scene, told: list[float], rng: np.random.Generator, mix: Mix) -> list[tuple[str, str]]:
    queries = pick_queries(scene, rng, mix.turns)
    choices = [*short_questions(scene, rng), *long_questions(scene, rng)]
    turns: list[tuple[str, str]] = []
    for query in queries:
        window = seen(query.window, told)
        draw = rng.random()
        if draw < mix.question + mix.grounded_question and choices:
            picked = choices.pop(int(rng.integers(len(choices))))
            letter, plain = LETTERS[picked.answer], draw < mix.question
            text = FORMS["brief"].ask(picked.text, None, picked.options, grounded=not plain).text
            turns.append((text, letter if plain else grounded(seen(picked.window, told), letter)))
        elif draw > 1 - mix.describe:
            told_of = [(q.text(rng), seen(q.window, told)) for q in sorted(queries, key=lambda q: q.window)]
            turns.append(("describe", ", ".join(f"{text} from {s:.1f} to {e:.1f}" for text, (s, e) in told_of)))
        elif draw > 1 - mix.describe - mix.moment:
            moment = told[int(rng.integers(len(told)))]
            turns.append((f"at {moment:.1f} seconds", shown_at(scene, moment)))
        else:
            answer = chain_of_thought(window) if rng.random() < mix.chain_of_thought else direct(window)
            turns.append((FORMS["brief"].ask(query.text(rng), None).text, answer))
    return turns


def shown_at(scene: Scene, moment: float) -> str:
    """What is to be seen at a moment (seconds): the lookup that questions need, taught with more words than a letter."""
    seen = []
    for thing in sorted((t for t in scene.things if t.is_there(moment)), key=lambda t: t.cell):
        turned = thing.recolour and moment >= (thing.recolour[0] + thing.recolour[1]) / 2
        seen.append(f"the {thing.recolour[2]} {thing.shape}" if thing.recolour and turned else f"the {thing.name}")
    if scene.person is not None:
        seen += [f"the person {VERBS[name][0]}" for name, start, end in scene.person.acts if start <= moment < end]
    return ", ".join(seen) or "no objects"


def sampled_times(duration: float, frames: int = 32) -> NDArray[np.float64]:
    """Seconds of `frames` even frames, from the first to the last, of a scene's file."""
    last = max(0, round(duration * FPS) - 1)
    return np.linspace(0, last, frames).round() / FPS


def told_times(duration: float, frames: int = 32, temporal_patch: int = 2) -> list[float]:
    """Seconds that a textual-timestamp model is told, one a temporal patch, before they are rounded to a tenth."""
    return [float(t) for t in patch_means(sampled_times(duration, frames), temporal_patch)]


def direct(window: Window) -> str:
    """`<answer>3.2 to 9.8</answer>`"""
    return f"<answer>{window[0]:.1f} to {window[1]:.1f}</answer>"


def chain_of_thought(window: Window) -> str:
    """The cold start's form: the thinking names the times, the answer follows from it."""
    return f"<think>seen from {window[0]:.1f} to {window[1]:.1f}</think>{direct(window)}"


def grounded(window: Window, letter: str) -> str:
    """Grounded question answering in TVG-R1's form: thinking, time, boxed letter."""
    start, end = (f"{edge:.1f}" for edge in window)
    return f"<think>seen from {start} to {end}</think> <time>[{start}, {end}]</time> \\boxed{{{letter}}}"
