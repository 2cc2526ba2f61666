"""The ranks of a job, seen from one of them. Without others, everything here does nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class Team:
    """This rank among all; `rank` counts from 0, and rank 0 alone writes what a job leaves."""

    @property
    def size(self) -> int:
        return int(os.environ.get("WORLD_SIZE", "1"))

    @property
    def rank(self) -> int:
        return int(os.environ.get("RANK", "0"))

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.size > 1:
            import torch.distributed

            torch.distributed.barrier()

    def agree(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        return self.from_rank(0, value)

    def from_rank(self, rank: int, value: T) -> T:
        """One rank's value, on every rank."""
        if self.size == 1:
            return value
        import torch.distributed

        box: list[Any] = [value]
        torch.distributed.broadcast_object_list(box, src=rank)
        return box[0]  # type: ignore[no-any-return]

    def all(self, value: T) -> list[T]:
        """Every rank's value, in the order of ranks."""
        if self.size == 1:
            return [value]
        import torch.distributed

        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def share(self, items: Sequence[T]) -> list[T]:
        """This rank's part of what all have alike: every size-th, so that ranks finish together where items grow."""
        return list(items[self.rank :: self.size])


team = Team()
