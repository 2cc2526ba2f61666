"""Rewards as pure functions of one completion: no model, no state, no files. docs/ideas.md: how to bring one's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from timer1lib import ideas
from timer1lib.errors import Timer1Error, did_you_mean, shown
from timer1lib.forms import FORMS, AnswerForm
from timer1lib.forms.reading import boxed_letter
from timer1lib.schema import Sample, Window
from timer1lib.spans import best_iou, best_window, iou


@dataclass(frozen=True, slots=True)
class RewardInput:
    """What a reward may look at. Times in seconds from the start of the video or clip."""

    completion: str
    windows: tuple[Window, ...]  # every one of the query; `window` is the one that counts
    duration: float
    form: AnswerForm = FORMS["timer1"]  # how the completion was asked for, and so how it is read
    options: tuple[str, ...] | None = None
    answer: int | None = None
    query: str = ""

    @classmethod
    def of(cls, completion: str, sample: Sample, form: AnswerForm) -> RewardInput:
        """What training's rewards see of a completion; questions that are trained on are asked for their time span too."""
        options = tuple(sample.options) if sample.options is not None else None
        asked = form.of_sample(sample, grounded=True)
        windows, duration = tuple(sample.windows), sample.duration or 0.0
        return cls(completion, windows, duration, asked, options, sample.answer, sample.query)

    @property
    def span(self) -> Window | None:
        return self.form.span(self.completion)

    @property
    def window(self) -> Window | None:
        """The window that the answer overlaps best; the first where it overlaps none."""
        return best_window(self.span, self.windows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved(RewardInput):
    """A completion as if it answered another segment: what a reward would give while a person drags an edge."""

    to: Window | None

    @property
    def span(self) -> Window | None:
        return self.to

    @classmethod
    def from_input(cls, x: RewardInput, to: Window | None, windows: tuple[Window, ...]) -> Moved:
        return cls(x.completion, windows, x.duration, x.form, x.options, x.answer, x.query, to=to)


Reward = Callable[[RewardInput], float]

FLAT = 1e-6
"""A group whose rewards differ by less has no advantage, and so no gradient."""


def iou_reward(x: RewardInput) -> float:
    """Plain IoU of answer and window, in [0, 1]: the ablation of Time-R1."""
    return best_iou(x.span, x.windows)


def tiou_reward(x: RewardInput) -> float:
    """Timestamp-aware IoU (Time-R1, arXiv 2503.13377, section 3.2).

    r = IoU * (1 - |s - s'| / t) * (1 - |e - e'| / t), t the duration in seconds. A factor is never below 0,
    so an answer far outside the video cannot turn two negative factors into a reward.
    """
    span, window = x.span, x.window
    overlap = iou(span, window)
    if overlap == 0.0 or span is None or window is None or x.duration <= 0:
        return 0.0
    start_factor = max(0.0, 1 - abs(span[0] - window[0]) / x.duration)
    end_factor = max(0.0, 1 - abs(span[1] - window[1]) / x.duration)
    return overlap * start_factor * end_factor


def form_reward(x: RewardInput) -> float:
    """1 where the whole completion has the form that was asked for, else 0 (Time-R1's r_form)."""
    return float(x.form.fits(x.completion))


def tvg_r1_reward(x: RewardInput) -> float:
    """0.9 IoU + 0.1 form (TVG-R1, arXiv 2507.18100)."""
    return 0.9 * iou_reward(x) + 0.1 * form_reward(x)


def tiou_centered_reward(x: RewardInput) -> float:
    """tIoU times the shorter length over the longer: an answer that hedges by length pays for it.

    tIoU alone rewards answers longer than the window when the place is uncertain; the extra factor
    min(l, l') / max(l, l') takes that gain back and is 1 where the lengths agree.
    """
    span, window = x.span, x.window
    value = tiou_reward(x)
    if value == 0.0 or span is None or window is None:
        return 0.0
    predicted, true = span[1] - span[0], window[1] - window[0]
    return value * min(predicted, true) / max(predicted, true)


def grounded_qa_reward(x: RewardInput) -> float:
    """0.7 answer + 0.1 form + 0.2 IoU for grounded question answering (TVG-R1)."""
    correct = x.answer is not None and boxed_letter(x.completion) == x.answer
    return 0.7 * float(correct) + 0.1 * form_reward(x) + 0.2 * iou_reward(x)


REWARDS: dict[str, Reward] = {
    "tiou": tiou_reward,
    "iou": iou_reward,
    "format": form_reward,
    "tvg_r1": tvg_r1_reward,
    "tiou_centered": tiou_centered_reward,
    "grounded_qa": grounded_qa_reward,
}
"""Names usable in `grpo.rewards`, beside functions of one's own (`ideas/edges.py:edge_iou`)."""


def parse_rewards(text: str) -> dict[str, tuple[Reward, float]]:
    """`"tiou:1.0, ideas/edges.py:edge_iou:0.5"` -> {"tiou": (tiou_reward, 1.0), "edge_iou": (its function, 0.5)}.

    A function of one's own is tried on made-up completions at once.

    Raises:
        Timer1Error: names what is wrong: an unknown name, a file or function that is not there or does not give a number.
    """
    found: dict[str, tuple[Reward, float]] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, colon, given = map(str.strip, part.rpartition(":"))
        if not colon or name.endswith(".py"):
            name, given = part, "1.0"
        name, reward = _own(name) if ideas.is_reference(name) else (name, REWARDS.get(name))
        if reward is None:
            hint = did_you_mean(name, REWARDS) or f"there are {', '.join(REWARDS)}, or a file's: ideas/my.py:name"
            raise Timer1Error(f"rewards {text!r}: unknown reward {name!r}; {hint}")
        if name in found:
            raise Timer1Error(f"rewards {text!r}: {name!r} stands twice")
        try:
            weight = float(given)
        except ValueError:
            weight = math.nan
        if not math.isfinite(weight):
            raise Timer1Error(f"rewards {text!r}: the weight of {name!r} is no number")
        found[name] = reward, weight
    if not found:
        raise Timer1Error("rewards: name at least one, such as tiou:1.0, format:1.0")
    return found


def _own(reference: str) -> tuple[str, Reward]:
    idea = ideas.load(reference, "reward")
    for text in TRIED:
        value_of(idea, RewardInput(text, ((3.0, 6.0),), 10.0, query="a dog runs"))
    return idea.name, partial(value_of, idea)


TRIED = ("<think>a</think><answer>2.00 to 5.00</answer>", "")
"""Completions that a reward of one's own must give a number for before anything starts: an answer, and none."""


def value_of(idea: ideas.Idea, x: RewardInput) -> float:
    """What a reward of one's own gives; a Timer1Error with the completion where it raises or gives no number."""
    where = f"on {shown(x.completion)}"
    return ideas.number(ideas.call(idea, x, "reward", where), f"reward {idea.reference}", where)
