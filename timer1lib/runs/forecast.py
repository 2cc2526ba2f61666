"""How long a sweep will take, before it starts and while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from timer1lib.runs.graph import STAGES
from timer1lib.runs.runner import Planned
from timer1lib.runs.schedule import identities
from timer1lib.runs.sweepfile import Row


class Forecast:
    """Seconds that stages will take: by what finished ones took, the same listed row's first, else by `minutes` a row.

    Stages that rows share count once.
    """

    def __init__(self, rows: Sequence[Row], plans: Sequence[Sequence[Planned]], minutes: float | None) -> None:
        self._minutes = minutes
        self._rows = [row.name for row in rows]
        self._paths = [identities(row.params, STAGES[: len(plan)]) for row, plan in zip(rows, plans, strict=True)]
        self._names: dict[str, tuple[str, str]] = {}
        self._took: dict[str, list[float]] = {}
        self._done: set[str] = set()
        self.open = [i for i, plan in enumerate(plans) if any(stage.why for stage in plan)]
        """Rows that are not finished."""
        for row, plan, path in zip(rows, plans, self._paths, strict=True):
            for stage, identity in zip(plan, path, strict=True):
                self._names[identity] = f"{row.way} {stage.notebook}", stage.notebook
                if stage.seconds is not None:
                    self._learn(identity, stage.seconds)
                    if not stage.why:
                        self._done.add(identity)

    def ended(self, row: int, stages: Mapping[str, Mapping[str, Any]]) -> None:
        """These stages of a row stand now, by notebook."""
        for identity in self._paths[row]:
            stage = stages.get(self._names[identity][1])
            if stage is not None and identity not in self._done:
                self._done.add(identity)
                if stage.get("how") == "ran":
                    self._learn(identity, stage["seconds"])

    def work(self, rows: Iterable[int], stages: slice = slice(None)) -> float | None:
        """Seconds of what is left of these stages of these rows, one after the other; None where nothing tells."""
        left = [set(self._paths[i][stages]) - self._done for i in rows]
        by_stages = self._by_stages(left)
        if by_stages is None and self._minutes:
            return 60 * self._minutes * sum(map(bool, left))
        return by_stages

    def _by_stages(self, left: Iterable[set[str]]) -> float | None:
        known = [self._expected(identity) for identity in set().union(*left)]
        return None if None in known else sum(seconds for seconds in known if seconds is not None)

    def first(self, places: int) -> str:
        """In words, before anything starts, with so many rows at a time."""
        whole, left = len(self._rows), len(self.open)
        if not left:
            return f"{whole} rows, all of them finished"
        seconds = self.work(self.open)
        if seconds is None:
            return f"{whole} rows, {left} to run; none has finished yet that would tell how long they take"
        guessed = self._by_stages(set(self._paths[i]) - self._done for i in self.open) is None
        by = f"at {self._minutes:g} minutes a row" if guessed else "by what finished stages took"
        hours = seconds / max(1, places) / 3600
        return f"{whole} rows, {left} to run: about {hours:.1f} hours with {places} at a time, {by}"

    def _learn(self, identity: str, seconds: float) -> None:
        for name in self._names[identity]:
            self._took.setdefault(name, []).append(seconds)

    def _expected(self, identity: str) -> float | None:
        own, any_way = self._names[identity]
        found = self._took.get(own) or self._took.get(any_way)
        return sum(found) / len(found) if found else None
