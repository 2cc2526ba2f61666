"""The seam between a sweep and the engines that run its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from timer1lib.errors import Timer1Error


@dataclass(frozen=True, slots=True)
class Resources:
    """What a row may use. None: left to the engine."""

    gpus: float | None = None
    cpus: int | None = None

    def __str__(self) -> str:
        given = {"gpus": self.gpus, "cpus": self.cpus}
        return ", ".join(f"{name}: {value:g}" for name, value in given.items() if value is not None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a part of a row ended. `stages` as in `RunResult`, of those that stand in the row now."""

    error: str | None
    stages: Mapping[str, Mapping[str, Any]]
    lost: bool = False
    """Its process or its node died: no fault of its own that anybody knows of."""
    claimed: bool = False
    """Another process works on the next stage under the same key."""


class Engine(Protocol):
    """Starts rows somewhere, each in a process of its own, and says how they ended."""

    def places(self) -> int:
        """How many rows may run at the same time now."""

    def start(self, name: str, job: Mapping[str, Any]) -> None:
        """Start a job (see `runs.row`) under a row's name."""

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        """The rows that have ended, by name; returns at the first, or after so many seconds with none."""

    def close(self) -> None:
        """End what still runs, at once."""


def no_room(resources: Resources, where: str) -> Timer1Error:
    return Timer1Error(f"a row asks for {resources}, and {where}; lower gpus or cpus in the sweep file")
