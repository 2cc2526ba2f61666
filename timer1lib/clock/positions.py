"""Position ids by the rules published with the model families, computed without asking the installed transformers.

Qwen2.5-VL (arXiv 2502.13923, section 2.1.2): a video token's temporal position is its start plus
floor(grid step x seconds per grid step x tokens per second); height and width count merged patches; text goes on
after the largest position so far. Qwen3-VL writes times as text, so each temporal patch is a picture of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from timer1lib.errors import Timer1Error

TEXT, IMAGE, VIDEO = 0, 1, 2
"""Values of `mm_token_type_ids`."""


@dataclass(frozen=True, slots=True)
class PositionConfig:
    """What a rule needs to know of a model.

    Attributes:
        merge: spatial merge size, patches a side that make one token.
        tokens_per_second: temporal positions a second (Qwen2.5-VL); None for families that write times as text.
        text_restarts: the wrong rule of the experiment: text after a video goes on at the video's start plus
            max(h, w) instead of after the largest position.
    """

    merge: int
    tokens_per_second: float | None
    text_restarts: bool = False


def positions(
    config: PositionConfig,
    token_types: Tensor,
    video_grid_thw: Tensor | None,
    image_grid_thw: Tensor | None = None,
    second_per_grid_ts: Tensor | list[float] | None = None,
    attention_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Position ids of a padded batch.

    Args:
        token_types: int [B, L], 0 text, 1 image, 2 video.
        video_grid_thw: int [videos of the whole batch, 3], patches before the spatial merge.
        second_per_grid_ts: float [videos], seconds from one temporal patch to the next (Qwen2.5-VL only).
        attention_mask: int [B, L], 0 on padding, which may stand on either side.

    Returns:
        position ids, int64 [3, B, L] (temporal, height, width; 0 on padding), and rope deltas, int64 [B, 1]: the
        next token's position is its index among the row's real tokens plus the delta.

    Raises:
        Timer1Error: vision tokens and grids do not match, or a time step is missing.
    """
    batch, length = token_types.shape
    mask = torch.ones(batch, length, dtype=torch.bool) if attention_mask is None else attention_mask.cpu().bool()
    if mask.dim() != 2:
        raise Timer1Error("positions need a 2-D attention mask of shape [batch, length]")
    videos = _video_grids(config, video_grid_thw, second_per_grid_ts)
    images = iter([] if image_grid_thw is None else [(tuple(row), 0.0) for row in image_grid_thw.tolist()])
    out = torch.zeros(3, batch, length, dtype=torch.long)
    deltas = []
    for row in range(batch):
        real = mask[row]
        ids = _row(config, token_types[row].cpu()[real].tolist(), videos, images)
        out[:, row, real] = ids
        deltas.append(int(ids.max()) + 1 - ids.shape[1] if ids.shape[1] else 0)
    if next(videos, None) is not None:
        raise Timer1Error("there are more video grids than runs of video tokens in the batch")
    device = token_types.device
    return out.to(device), torch.tensor(deltas, dtype=torch.long, device=device).unsqueeze(1)


Grid = tuple[tuple[int, ...], float]
"""Temporal, height and width patches, and temporal positions a grid step."""


def _video_grids(config: PositionConfig, grids: Tensor | None, seconds: Tensor | list[float] | None) -> Iterator[Grid]:
    """Grids in the order of their tokens, each with its step in positions."""
    if grids is None:
        return iter(())
    rows: list[list[int]] = grids.tolist()
    if config.tokens_per_second is None:
        return iter([((1, h, w), 0.0) for t, h, w in rows for _ in range(t)])
    if seconds is None or len(seconds) != len(rows):
        given = 0 if seconds is None else len(seconds)
        raise Timer1Error(f"{len(rows)} videos but {given} time steps: every video of this family needs second_per_grid_ts")
    return iter([(tuple(row), float(step)) for row, step in zip(rows, seconds, strict=True)])


def _row(config: PositionConfig, types: list[int], videos: Iterator[Grid], images: Iterator[Grid]) -> Tensor:
    """Positions of one unpadded row, int64 [3, tokens]."""
    parts: list[Tensor] = [torch.zeros(3, 0, dtype=torch.long)]
    restart: int | None = None
    position = done = 0
    for kind, group in itertools.groupby(types):
        run = len(list(group))
        done += run
        if kind == TEXT:
            parts.append(torch.arange(run).expand(3, -1) + position)
            position += run
            continue
        while run > 0:
            grid = next(videos if kind == VIDEO else images, None)
            if grid is None:
                raise Timer1Error("there are more runs of vision tokens than grids in the batch")
            ids = _vision(config, grid) + position
            if kind == VIDEO and restart is None:
                restart = position + max(grid[0][1:]) // config.merge
            parts.append(ids)
            position = int(ids.max()) + 1
            run -= ids.shape[1]
        if run < 0:
            raise Timer1Error("a run of vision tokens is shorter than its grid")
        if config.text_restarts and restart is not None and kind == VIDEO and VIDEO not in types[done:]:
            position = restart
    return torch.cat(parts, dim=1)


def _vision(config: PositionConfig, grid: Grid) -> Tensor:
    """Positions of one grid from 0 on, int64 [3, t * h * w], temporal slowest."""
    (frames, height, width), seconds = grid
    # In float32 and in this order, as published; the order decides which products fall below a whole number.
    time = (torch.arange(frames) * torch.tensor(seconds, dtype=torch.float32) * (config.tokens_per_second or 0.0)).long()
    axes = torch.meshgrid(time, torch.arange(height // config.merge), torch.arange(width // config.merge), indexing="ij")
    return torch.stack(axes).reshape(3, -1)
