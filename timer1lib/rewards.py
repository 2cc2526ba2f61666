"""Rewards as pure functions of one completion: no model, no state, no files."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from timer1lib.parsing import Policy, follows_form, parse
from timer1lib.schema import Window
from timer1lib.spans import iou


@dataclass(frozen=True, slots=True)
class RewardInput:
    """What a reward may look at. Times in seconds from the start of the video or clip."""

    completion: str
    window: Window | None
    duration: float
    policy: Policy = "timer1"
    options: tuple[str, ...] | None = None
    answer: int | None = None

    @property
    def span(self) -> Window | None:
        return parse(self.completion, self.policy).span


Reward = Callable[[RewardInput], float]


def iou_reward(x: RewardInput) -> float:
    """Plain IoU of answer and window, in [0, 1]: the ablation of Time-R1."""
    return iou(x.span, x.window)


def tiou_reward(x: RewardInput) -> float:
    """Timestamp-aware IoU (Time-R1, arXiv 2503.13377, section 3.2).

    r = IoU * (1 - |s - s'| / t) * (1 - |e - e'| / t), t the duration in seconds. A factor is never below 0,
    so an answer far outside the video cannot turn two negative factors into a reward.
    """
    span = x.span
    overlap = iou(span, x.window)
    if overlap == 0.0 or span is None or x.window is None or x.duration <= 0:
        return 0.0
    start_factor = max(0.0, 1 - abs(span[0] - x.window[0]) / x.duration)
    end_factor = max(0.0, 1 - abs(span[1] - x.window[1]) / x.duration)
    return overlap * start_factor * end_factor


def form_reward(x: RewardInput) -> float:
    """1 where the whole completion has the policy's form, else 0 (Time-R1's r_form)."""
    return float(follows_form(x.completion, x.policy))


def tvg_r1_reward(x: RewardInput) -> float:
    """0.9 IoU + 0.1 form (TVG-R1, arXiv 2507.18100)."""
    return 0.9 * iou_reward(x) + 0.1 * form_reward(x)


def tiou_centered_reward(x: RewardInput) -> float:
    """tIoU times the shorter length over the longer: an answer that hedges by length pays for it.

    tIoU alone rewards answers longer than the window when the place is uncertain; the extra factor
    min(l, l') / max(l, l') takes that gain back and is 1 where the lengths agree.
    """
    span = x.span
    value = tiou_reward(x)
    if value == 0.0 or span is None or x.window is None:
        return 0.0
    predicted, true = span[1] - span[0], x.window[1] - x.window[0]
    return value * min(predicted, true) / max(predicted, true)


_BOXED = re.compile(r"\\boxed\{\s*\(?([A-Z])\)?[^{}]{0,200}\}")


def boxed_letter(text: str) -> int | None:
    """Index of the last `\\boxed{A}`-style letter in the text, None where there is none."""
    letters = _BOXED.findall(text[-20_000:])
    return ord(letters[-1]) - ord("A") if letters else None


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
"""Names usable in `grpo.rewards`; add a function here to try an idea."""
