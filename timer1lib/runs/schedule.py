"""Which row of a sweep runs which of its stages when: pure bookkeeping, the same for every engine.

What two rows share is known before anything runs: a stage of one is a stage of the other where its own parameters and all
that it reads are the same. Rows are cut where they begin or cease to share, so that a row which waits for a stage of
another's waits for that stage alone and holds no place meanwhile. Every call costs O(log rows).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from timer1lib.params.sections import Params
from timer1lib.runs.graph import STAGES, StageRef, upstream
from timer1lib.runs.keys import given_parameters, stage_key

TRIES = 3
"""How often a part of a row is started whose process or node was lost."""
FAILURES = 2
"""So many rows try a stage that they share before its error counts for all of them."""


def identities(params: Params, stages: Sequence[StageRef] = STAGES) -> list[str]:
    """For each stage what its key will be made from, known before it runs: equal text, equal result.

    The code, the notebooks and the content of files are left out, as they are the same for all rows.
    """
    known: dict[str, str] = {}
    for stage in stages:
        read = {name: known[name] for name in upstream(stage.name, params)}
        known[stage.name] = stage_key({"stage": stage.name, "params": given_parameters(params, stage), "upstream": read})
    return list(known.values())


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of a row that runs in one process: its stages `first` to `last`, counted from 0, after taking earlier ones."""

    row: int
    first: int
    last: int


@dataclass(slots=True)
class _Stage:
    """A stage with all rows that have it."""

    crowd: int
    users: int
    done: bool = False
    by: int | None = None
    """The row that runs it now."""
    errors: list[tuple[int, str]] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)


class Scheduler:
    """Hands out units and is told how they ended."""

    def __init__(self, paths: Sequence[Sequence[Hashable]], names: Sequence[str] = ()) -> None:
        """`paths`: for each row the identities of its stages, in order."""
        self.names = list(names) or [str(i) for i in range(len(paths))]
        rows: dict[Hashable, list[int]] = {}
        for row, path in enumerate(paths):
            for identity in path:
                rows.setdefault(identity, []).append(row)
        crowds: dict[tuple[int, ...], int] = {}
        stages = {k: _Stage(crowds.setdefault(tuple(users), len(crowds)), len(users)) for k, users in rows.items()}
        self.distinct = len(stages)
        self.failed: dict[int, str] = {}
        self.dropped: list[int] = []
        """Rows that failed without being started, since their last `take_dropped`."""
        self._paths = [[stages[identity] for identity in path] for path in paths]
        self._at = [0] * len(paths)
        self._lost = [0] * len(paths)
        self._parked: list[int] = []
        self._left = self._running = 0
        self._ready: list[tuple[int, int]] = []
        for row in range(len(paths)):
            self._left += 1
            self._push(row)

    @property
    def over(self) -> bool:
        return self._left == 0

    def next(self) -> Unit | None:
        """The most wanted part of a row that nothing keeps from running; None where all wait, or all is done."""
        if not (self._ready or self._running):
            self._wake(self._parked)
        while self._ready:
            before, row = heapq.heappop(self._ready)
            if before != self._rank(row):
                self._push(row)
                continue
            stage = self._paths[row][min(self._at[row], len(self._paths[row]) - 1)]
            if len(stage.errors) >= FAILURES and not stage.done:
                first, error = stage.errors[0]
                self._fail(row, f"{error} (in {self.names[first]}, which shares the stage)")
                self.dropped.append(row)
            elif stage.by is not None:
                stage.waiting.append(row)
            else:
                return self._begin(row)
        return None

    def ended(self, unit: Unit, reached: int, error: str | None = None, *, lost: bool = False, claimed: bool = False) -> str:
        """A unit has ended, after `reached` of its row's stages stand. Returns what becomes of the row.

        Args:
            error: why it went no further.
            lost: its process or node was, so that it is tried again.
            claimed: nothing went wrong, but somebody else works on the next stage under the same key.

        Returns:
            done, failed, again (it was lost) or later.
        """
        row, path = unit.row, self._paths[unit.row]
        self._running -= 1
        for i, stage in enumerate(path):
            stage.done |= i < reached
            if stage.by == row:
                stage.by = None
            if unit.first <= i <= unit.last:
                self._wake(stage.waiting)
        self._wake(self._parked)
        if claimed:
            self._parked.append(row)
            return "later"
        if lost and self._lost[row] + 1 < TRIES:
            self._lost[row] += 1
            self._push(row)
            return "again"
        if error is not None:
            if not lost and reached < len(path):
                path[reached].errors.append((row, error))
            self._fail(row, error)
            return "failed"
        if reached < len(path):
            self._push(row)
            return "later"
        self._left -= 1
        return "done"

    def take_dropped(self) -> list[int]:
        rows, self.dropped = self.dropped, []
        return rows

    def _begin(self, row: int) -> Unit:
        path = self._paths[row]
        first = last = min(self._at[row], len(path) - 1)  # behind its end: all is done, and the row takes it
        while last + 1 < len(path) and path[last + 1].crowd == path[first].crowd and path[last + 1].by is None:
            last += 1
        for stage in path[first : last + 1]:
            if not stage.done:
                stage.by = row
        self._running += 1
        return Unit(row, first, last)

    def _push(self, row: int) -> None:
        heapq.heappush(self._ready, (self._rank(row), row))

    def _rank(self, row: int) -> int:
        """What most rows wait for comes first; the row's place moves on past what others have done."""
        path = self._paths[row]
        while self._at[row] < len(path) and path[self._at[row]].done:
            self._at[row] += 1
        return -path[self._at[row]].users if self._at[row] < len(path) else 0

    def _wake(self, rows: list[int]) -> None:
        for row in rows:
            self._push(row)
        rows.clear()

    def _fail(self, row: int, error: str) -> None:
        self.failed[row] = error
        self._left -= 1


def least_time(paths: Iterable[Sequence[tuple[Hashable, float]]], places: int) -> tuple[float, float]:
    """The bounds that no schedule beats: (longest row, all distinct work over the places), in the unit of the costs."""
    work: dict[Hashable, float] = {}
    longest = 0.0
    for path in paths:
        longest = max(longest, math.fsum(cost for _, cost in path))
        work.update(path)
    return longest, math.fsum(work.values()) / places
