"""Rules of one's own for which samples RL sees: a weight to be drawn by, and what stays between epochs. See docs/ideas.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from timer1lib import ideas
from timer1lib.errors import Timer1Error, did_you_mean, shown
from timer1lib.schema import Sample, Window

SELECTION_RULES = ("gaussian", "uniform", "band", "random", "top_variance", "all")
"""Those that `data.selection` brings."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A sample and how hard it is: what a rule of one's own looks at. Times in seconds."""

    id: str
    query: str
    windows: tuple[Window, ...]
    duration: float
    type: str
    iou: float
    """Of the model's greedy answer, 0 to 1: 1 is easy."""
    reward_std: float | None = None
    """Standard deviation of the reward over sampled answers, where there are any."""
    epoch: int = 0
    """Epochs of RL that the model has behind it."""

    @classmethod
    def of(cls, sample: Sample, iou: float, reward_std: float | None = None, epoch: int = 0) -> Judged:
        duration = sample.duration or max((end for _, end in sample.windows), default=0.0)
        return cls(sample.id, sample.query, tuple(sample.windows), duration, sample.type or "", iou, reward_std, epoch)


TRIED = (
    Judged("a", "a dog runs", ((3.0, 6.0),), 10.0, "", 0.0, 0.0),
    Judged("b", "a dog runs", ((3.0, 6.0),), 10.0, "", 0.5, 0.2, 1),
)
"""What a rule of one's own must have an answer to before anything starts."""


def own_weight(reference: str) -> Callable[[Judged], float]:
    """The weight function that `path.py:name` names: larger is likelier to be drawn, 0 never; tried at once (Timer1Error)."""
    idea = ideas.load(reference, "selection rule")

    def weight(judged: Judged) -> float:
        value = ideas.call(idea, judged, "selection rule", f"on sample {judged.id!r}")
        found = ideas.number(value, f"selection rule {reference}", f"for sample {judged.id!r}")
        if found < 0:
            raise Timer1Error(f"selection rule {reference} gives {found:g}, below 0, for sample {judged.id!r}")
        return found

    for judged in TRIED:
        weight(judged)
    return weight


def own_keep(reference: str) -> Callable[[Judged], bool]:
    """The rule that `path.py:name` names, on which samples go into the next epoch; tried at once (Timer1Error)."""
    idea = ideas.load(reference, "keep rule")

    def keep(judged: Judged) -> bool:
        value = ideas.call(idea, judged, "keep rule", f"on sample {judged.id!r}")
        if type(value).__name__ not in ("bool", "bool_"):
            raise Timer1Error(f"keep rule {reference} gives {shown(value)}, not True or False, for sample {judged.id!r}")
        return bool(value)

    for judged in TRIED:
        keep(judged)
    return keep


def check_rule(text: str) -> None:
    """Whether a text names a rule of selection; a Timer1Error where it does not."""
    if ideas.is_reference(text):
        own_weight(text)
    elif text not in SELECTION_RULES:
        known = f"one of {', '.join(SELECTION_RULES)}, or a file's: ideas/my.py:name"
        raise Timer1Error(f"selection rule {shown(text)}: {did_you_mean(text, SELECTION_RULES) or known}")
