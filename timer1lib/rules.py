"""Rules of one's own for which samples there are: checks of the audit, and for RL a weight to be drawn by and what stays
between epochs. See docs/ideas.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

from timer1lib import ideas
from timer1lib.errors import Timer1Error, did_you_mean, shown
from timer1lib.schema import Sample, Window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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


class NoPictures(Timer1Error):
    """A check asked for the pictures of a video that cannot be read, which the audit has found already."""


def _grey(count: int) -> NDArray[np.uint8]:
    import numpy as np

    return np.random.default_rng(0).integers(90, 160, (count, 56, 56, 3), dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Audited:
    """A row of an annotation file as the audit's own checks left it: what a check of one's own looks at. Times in seconds."""

    id: str
    video: str
    query: str
    windows: tuple[Window, ...]
    duration: float | None
    type: str = ""
    split: str = ""
    options: tuple[str, ...] | None = None
    answer: int | None = None
    frames: Callable[[int], NDArray[np.uint8]] = field(default=_grey, repr=False, compare=False)
    """`frames(8)`: uint8 (8, height, width, 3), spread evenly over the video or clip, some hundred pixels wide."""

    @classmethod
    def of(cls, sample: Sample, split: str, frames: Callable[[int], NDArray[np.uint8]]) -> Audited:
        options = None if sample.options is None else tuple(sample.options)
        windows, facts = tuple(sample.windows), (split, options, sample.answer, frames)
        return cls(sample.id, sample.video, sample.query, windows, sample.duration, sample.type, *facts)


@dataclass(frozen=True, slots=True)
class OwnCheck:
    """A check of the audit that a person brings. `find` gives what is wrong with a row in words, "" where nothing is."""

    name: str
    about: str
    treatment: Literal["keep", "drop"]
    find: Callable[[Audited], str]


ROW = Audited("a", "a.mp4", "a dog runs", ((3.0, 6.0),), 10.0)
QUESTION = Audited("b", "b.mp4", "What runs?", (), None, options=("a dog", "a cat"), answer=0)


def parse_checks(text: str) -> list[OwnCheck]:
    """`"ideas/my_check.py:too_still, ideas/my_check.py:too_long:drop"` -> checks, each tried on made-up rows at once.

    Without `:drop` a finding is reported and the row stays.

    Raises:
        Timer1Error: names what is wrong: a file or function that is not there, another treatment, a value that is no text.
    """
    checks: list[OwnCheck] = []
    for part in filter(None, map(str.strip, text.split(","))):
        if not ideas.is_reference(part):
            raise Timer1Error(f"check {shown(part)}: write it as ideas/my_check.py:name, or ideas/my_check.py:name:drop")
        place, _, rest = part.partition(".py:")
        name, _, treatment = map(str.strip, rest.partition(":"))
        if treatment not in ("", "keep", "drop"):
            raise Timer1Error(f"check {shown(part)}: what is found is kept or dropped (keep, drop), not {shown(treatment)}")
        if name in [check.name for check in checks]:
            raise Timer1Error(f"checks {shown(text)}: {name!r} stands twice")
        checks.append(own_check(f"{place}.py:{name}", cast(Literal["keep", "drop"], treatment or "keep")))
    return checks


def own_check(reference: str, treatment: Literal["keep", "drop"] = "keep") -> OwnCheck:
    """The check that `path.py:name` names; tried at once (Timer1Error)."""
    idea = ideas.load(reference, "check")

    def find(row: Audited) -> str:
        where = f"on row {row.id!r}"
        try:
            value = ideas.call(idea, row, "check", where)
        except Timer1Error as error:
            if isinstance(error.__cause__, NoPictures):
                return ""
            raise
        if not isinstance(value, str | None):
            raise Timer1Error(f"check {reference} gives {shown(value)}, neither text nor None, {where}")
        return " ".join((value or "").split())

    for row in (ROW, QUESTION):
        find(row)
    about = " ".join((idea.function.__doc__ or "").split()) or "your own check"
    return OwnCheck(idea.name, about, treatment, find)
