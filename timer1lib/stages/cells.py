"""Ideas that stand in a notebook's cell: written down in the run's folder, and from there on like any other file's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from timer1lib import ideas
from timer1lib.errors import Timer1Error, shown
from timer1lib.files import atomic_write_text
from timer1lib.forms import OwnForm
from timer1lib.rewards import REWARDS, Reward, parse_rewards, value_of
from timer1lib.rules import Audited
from timer1lib.stages import Stage

GivenRewards = Mapping[str, "tuple[Reward, float] | Reward | float"]
"""{name: weight} for the library's rewards, {name: (function, weight)} or {name: function} for one's own."""

GivenChecks = Mapping[str, "Callable[[Audited], str | None] | tuple[Callable[[Audited], str | None], str]"]
"""{name: function} to report what a check of one's own finds, {name: (function, "drop")} to drop it."""


def checks_text(stage: Stage[Any], checks: str | GivenChecks) -> str:
    """What `curate.checks` would say for checks given in a cell."""
    if isinstance(checks, str):
        return checks
    parts = []
    for name, value in checks.items():
        function, treatment = value if isinstance(value, tuple) else (value, "keep")
        parts.append(f"{reference(stage, function, name, 'check')}:{treatment}")
    return ", ".join(parts)


def rewards_text(stage: Stage[Any], rewards: str | GivenRewards) -> str:
    """What `grpo.rewards` would say for rewards given in a cell; a Timer1Error names one that is neither known nor a function."""
    if isinstance(rewards, str):
        return rewards
    parts = []
    for name, value in rewards.items():
        function, weight = _pair(name, value)
        place = name if function is None or REWARDS.get(name) is function else reference(stage, function, name, "reward")
        parts.append(f"{place}:{weight}")
    return ", ".join(parts)


def weighted(name: str, value: tuple[Reward, float] | Reward | float) -> tuple[Reward, float]:
    """A reward given in a cell, with its weight, without writing it down; where it fails it says on which completion."""
    function, weight = _pair(name, value)
    if function is None or REWARDS.get(name) is function:
        return parse_rewards(name)[name.rpartition(":")[2]][0], weight
    return partial(value_of, ideas.Idea(name, name, function, "")), weight


def _pair(name: str, value: tuple[Reward, float] | Reward | float) -> tuple[Reward | None, float]:
    function, weight = value if isinstance(value, tuple) else (value, 1.0) if callable(value) else (None, value)
    if function is None and name not in REWARDS and not ideas.is_reference(name):
        raise Timer1Error(f"reward {name!r}: give a function, or one of the names {', '.join(REWARDS)}")
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise Timer1Error(f"reward {name!r}: its weight must be a number (given {shown(weight)})")
    return function, float(weight)


def reference(stage: Stage[Any], function: Callable[..., Any] | OwnForm | str, name: str, what: str) -> str:
    """Write a cell's function or form into `ideas/` of the run and name it as a params file would; text is such a name."""
    if isinstance(function, str):
        return function
    if not name.isidentifier():
        raise Timer1Error(f"{what} {name!r}: a name of letters, digits and underscores is needed")
    path = stage.run.root / "ideas" / f"{name}.py"
    text = ideas.written_out(function, name, what)
    if not path.is_file() or path.read_text() != text:
        atomic_write_text(path, text)
    return f"{path}:{name}"
