"""The groups of one generation: failed prompts and groups without gradient give way to other samples."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from timer1lib.training.video_grpo.encoded import EncodedPrompt, Row

logger = logging.getLogger(__name__)


def flat_groups(rewards: Tensor) -> Tensor:
    """Which groups have equal rewards, and so no advantage and no gradient. (groups, G) -> (groups,) bool."""
    return (rewards.amax(-1) - rewards.amin(-1)) < 1e-6


@dataclass
class GroupSource:
    """One row and its encoded prompt a group.

    Args:
        rows: the rows that the sampler drew.
        dataset: where replacements come from.
        encode: encodes a row, or raises.
        seed: of the choice of replacements.
    """

    rows: list[Row]
    dataset: Any
    encode: Callable[[Row], EncodedPrompt]
    seed: int
    prompts: list[EncodedPrompt] = field(default_factory=list)
    failed: int = 0
    _spare: list[int] | None = None
    _tried: set[str] = field(default_factory=set)

    def fill(self) -> None:
        """Encode every row; one that fails is logged and another row of the data set takes its place.

        Raises:
            RuntimeError: no row of the data set can be encoded.
        """
        for i, row in enumerate(self.rows):
            self._tried.add(str(row["sample_id"]))
            prompt = self._try(row)
            while prompt is None:
                row = self._next()
                prompt = self._try(row)
            self.rows[i] = row
            self.prompts.append(prompt)

    def replace(self, which: list[int]) -> None:
        """Put other rows in the place of some groups; where none is left a group keeps its row and is sampled anew."""
        for i in which:
            prompt = None
            while prompt is None:
                try:
                    row = self._next()
                except RuntimeError:
                    break
                prompt = self._try(row)
            if prompt is not None:
                self.rows[i], self.prompts[i] = row, prompt

    def _try(self, row: Row) -> EncodedPrompt | None:
        try:
            return self.encode(row)
        except Exception as error:  # whatever a broken file does to a decoder, the run goes on without it
            self.failed += 1
            logger.warning("sample %s is left out of this step: %s", row["sample_id"], " ".join(str(error).split()))
            return None

    def _next(self) -> Row:
        """A row that this generation has not tried yet."""
        if self._spare is None:
            self._spare = list(range(len(self.dataset)))
            random.Random(self.seed).shuffle(self._spare)
        while self._spare:
            row: Row = dict(self.dataset[self._spare.pop()])
            if str(row["sample_id"]) not in self._tried:
                self._tried.add(str(row["sample_id"]))
                return row
        raise RuntimeError("no row of the data set is left that could be encoded; the log names every failure")
