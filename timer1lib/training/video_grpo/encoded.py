"""A prompt with its video, encoded once a group, and the groups of one generation.

Scoring and rollouts share an encoded prompt among all its completions; failed prompts and groups without gradient give
way to other samples.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from timer1lib.rewards import FLAT
from timer1lib.workers.team import team

logger = logging.getLogger(__name__)

Row = dict[str, Any]
EncodePrompt = Callable[[Row], Mapping[str, Any]]
"""A data set row -> the processor's output for its prompt alone (batch of 1): `input_ids`, `attention_mask` and
`mm_token_type_ids` (1, P), `pixel_values_videos` (patches, width), `video_grid_thw` (videos, 3), where positions
tell times also `second_per_grid_ts` (videos,). An optional text under `video_key` names the frames for the feature cache."""

_TEXT_KEYS = ("input_ids", "attention_mask", "mm_token_type_ids")
_KNOWN = {*_TEXT_KEYS, "pixel_values_videos", "video_grid_thw", "second_per_grid_ts", "video_key"}


@dataclass(slots=True)
class EncodedPrompt:
    """One prompt of P tokens, without padding, on the model's device."""

    sample_id: str
    input_ids: Tensor  # (P,)
    token_types: Tensor  # (P,), 2 at video tokens, else 0
    positions: Tensor  # (3, P): temporal, height and width, from the model's own `get_rope_index`
    delta: int  # a completion's token t stands at position P + t + delta
    video: Tensor | None  # pixels (patches, width) or cached features (patches, 1, width)
    grid: Tensor | None  # (videos, 3)
    seconds: Tensor | None  # (videos,), `second_per_grid_ts`
    key: str | None = None  # names the frames in the feature cache; None: they are told apart by their pixels

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])


def base_model(model: nn.Module) -> Any:
    """The `...ForConditionalGeneration` inside a PEFT wrapper, or `model` itself."""
    return model.get_base_model() if hasattr(model, "peft_config") else model  # type: ignore[operator]


def encode(model: nn.Module, encoded: Mapping[str, Any], sample_id: str) -> EncodedPrompt:
    """Move a processor's output to the model and ask the model for its positions.

    Raises:
        ValueError: not a batch of one, keys of another modality, or a prompt of fewer than two tokens.
    """
    base = base_model(model)
    device = base.get_input_embeddings().weight.device
    unknown = {key for key, value in encoded.items() if key not in _KNOWN and value is not None}
    if unknown:
        raise ValueError(f"sample {sample_id}: the encoded prompt has {sorted(unknown)}; video prompts have {sorted(_KNOWN)}")
    given = {k: torch.as_tensor(v).to(device) for k, v in encoded.items() if k != "video_key" and v is not None}
    ids = given["input_ids"]
    if ids.ndim != 2 or ids.shape[0] != 1 or ids.shape[1] < 2:
        raise ValueError(f"sample {sample_id}: input_ids must have shape (1, P), P >= 2, got {tuple(ids.shape)}")
    if "attention_mask" in given:
        kept = given["attention_mask"][0].bool()
        ids, given["mm_token_type_ids"] = ids[:, kept], given["mm_token_type_ids"][:, kept]
    types = given["mm_token_type_ids"]
    rope = {k: given[k] for k in ("video_grid_thw", "second_per_grid_ts") if k in given}
    positions, delta = base.model.get_rope_index(ids, mm_token_type_ids=types, attention_mask=torch.ones_like(ids), **rope)
    return EncodedPrompt(
        sample_id=sample_id,
        input_ids=ids[0],
        token_types=types[0],
        positions=positions[:, 0],
        delta=int(delta.reshape(-1)[0]),
        video=given.get("pixel_values_videos"),
        grid=given.get("video_grid_thw"),
        seconds=given.get("second_per_grid_ts"),
        key=encoded.get("video_key"),
    )


def video_inputs(prompts: Sequence[EncodedPrompt]) -> dict[str, Tensor]:
    """`pixel_values_videos` and `video_grid_thw` of several prompts, one after the other; empty where none has a video."""
    shown = [p for p in prompts if p.video is not None and p.grid is not None]
    if not shown:
        return {}
    return {
        "pixel_values_videos": torch.cat([p.video for p in shown]),  # type: ignore[misc]
        "video_grid_thw": torch.cat([p.grid for p in shown]),  # type: ignore[misc]
    }


def padded(texts: Sequence[tuple[Tensor, Tensor]], pad_token_id: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Pairs of tokens (P,) and positions (3, P), padded on the right: ids (B, P), positions (3, B, P), lengths (B,).

    The last is True (B, P) at real tokens, None where no text is padded.
    """
    ids = pad_sequence([tokens for tokens, _ in texts], batch_first=True, padding_value=pad_token_id)
    positions = pad_sequence([places.T for _, places in texts], batch_first=True).permute(2, 0, 1).contiguous()
    lengths = torch.tensor([len(tokens) for tokens, _ in texts], device=ids.device)
    real = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    return ids, positions, lengths, None if bool(real.all()) else real


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
