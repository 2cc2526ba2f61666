"""The groups of one generation: failed prompts and groups without gradient give way to other samples."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from timer1lib.models.encoded import EncodedPrompt
from timer1lib.rewards import FLAT
from timer1lib.workers.team import team

logger = logging.getLogger(__name__)

Row = dict[str, Any]
EncodePrompt = Callable[[Row], Mapping[str, Any]]
"""A data set row -> the processor's output for its prompt alone (batch of 1): `input_ids`, `attention_mask` and
`mm_token_type_ids` (1, P), `pixel_values_videos` (patches, width), `video_grid_thw` (videos, 3), where positions
tell times also `second_per_grid_ts` (videos,). An optional text under `video_key` names the frames for the feature cache."""


def flat_groups(rewards: Tensor) -> Tensor:
    """Which groups have equal rewards, and so no advantage and no gradient. (groups, G) -> (groups,) bool."""
    return (rewards.amax(-1) - rewards.amin(-1)) < FLAT


def group_order(groups: int, updates: int) -> list[int]:
    """Which of a generation's groups each rank has, rank by rank: of every update a share, so that each is one process's."""
    step = groups // updates
    part = step // team.size
    return [u * step + r * part + i for r in range(team.size) for u in range(updates) for i in range(part)]


@dataclass
class GroupSource:
    """One row a group, and the encoded prompts of this rank's share of them.

    Every rank decides alike which rows take the place of others, as one process would: in the order of groups, from one
    shuffled list. Who owns a group encodes for it, and tells the others whether that went well.
    """

    rows: list[Row]  # of all ranks, as the sampler drew them
    dataset: Any  # where replacements come from
    encode: Callable[[Row], EncodedPrompt]
    seed: int  # of the choice of replacements
    prompts: list[EncodedPrompt] = field(default_factory=list)  # of this rank's groups
    failed: int = 0  # on all ranks
    _spare: list[int] | None = None
    _tried: set[str] = field(default_factory=set)

    updates: int = 1  # optimizer steps that share this generation: each takes its groups in order, as one process would

    @property
    def share(self) -> int:
        """Groups of a rank."""
        return len(self.rows) // team.size

    @property
    def order(self) -> list[int]:
        """All groups, rank by rank: which one each rank's first, second, ... group is among `rows`."""
        return group_order(len(self.rows), self.updates)

    @property
    def own(self) -> list[int]:
        """This rank's groups among all."""
        return self.order[team.rank * self.share : (team.rank + 1) * self.share]

    def fill(self) -> None:
        """Encode this rank's rows; where any fails, that is logged and another row of the data set takes its place.

        Raises:
            RuntimeError: no row of the data set can be encoded.
        """
        own = self.own
        self.prompts = [self._try(self.rows[i]) for i in own]  # type: ignore[misc]  # those that failed are replaced at once
        lost = {i for i, prompt in zip(own, self.prompts, strict=True) if prompt is None}
        lost = {i for found in team.all(lost) for i in found}
        self.failed += len(lost)
        for i, row in enumerate(self.rows):
            self._tried.add(str(row["sample_id"]))
            if i in lost:
                self._put_another(i)

    def replace(self, which: list[int]) -> None:
        """Put other rows in the place of some groups; where none is left a group keeps its row and is sampled anew."""
        for i in which:
            with contextlib.suppress(RuntimeError):
                self._put_another(i)

    def _try(self, row: Row) -> EncodedPrompt | None:
        try:
            return self.encode(row)
        except Exception as error:  # whatever a broken file does to a decoder, the run goes on without it
            logger.warning("sample %s is left out of this step: %s", row["sample_id"], " ".join(str(error).split()))
            return None

    def _put_another(self, i: int) -> None:
        """Give group `i` a row that this generation has not tried yet and that can be encoded."""
        if self._spare is None:
            self._spare = list(range(len(self.dataset)))
            random.Random(self.seed).shuffle(self._spare)
        owner, place = divmod(self.order.index(i), self.share)
        while self._spare:
            row: Row = dict(self.dataset[self._spare.pop()])
            if str(row["sample_id"]) not in self._tried:
                self._tried.add(str(row["sample_id"]))
                prompt = self._try(row) if owner == team.rank else None
                if team.from_rank(owner, prompt is not None):
                    self.rows[i] = row
                    if prompt is not None:
                        self.prompts[place] = prompt
                    return
                self.failed += 1
        raise RuntimeError("no row of the data set is left that could be encoded; the log names every failure")
