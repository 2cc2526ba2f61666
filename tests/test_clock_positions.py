"""Positions against the published example and against a second implementation, token by token, written here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from timer1lib.clock.positions import PositionConfig, positions
from timer1lib.errors import Timer1Error


def test_the_example_published_with_qwen2_5_vl() -> None:
    # Three steps of 2 x 2 tokens at 25 tokens a second and 2 seconds a step, then five text tokens.
    types = torch.tensor([[2] * 12 + [0] * 5])
    ids, deltas = positions(PositionConfig(2, 25.0), types, torch.tensor([[3, 4, 4]]), second_per_grid_ts=[2.0])
    assert ids[0, 0].tolist() == [0] * 4 + [50] * 4 + [100] * 4 + [101, 102, 103, 104, 105]
    assert ids[1, 0].tolist() == [0, 0, 1, 1] * 3 + [101, 102, 103, 104, 105]
    assert ids[2, 0].tolist() == [0, 1, 0, 1] * 3 + [101, 102, 103, 104, 105]
    assert deltas.tolist() == [[106 - 17]]


def walk(
    types: list[int], mask: list[int], videos: list[tuple[int, int, int, float]], rate: float | None, merge: int
) -> tuple[list[list[int]], int]:
    """Positions of one row by visiting token after token; videos are (t, h, w, seconds) in patches."""
    queue = list(videos)
    out: list[list[int]] = []
    nxt, inside, start, largest = 0, 0, 0, -1
    for kind, real in zip(types, mask, strict=True):
        if not real:
            out.append([0, 0, 0])
            continue
        if kind == 0:
            out.append([nxt] * 3)
            largest = nxt
        else:
            if inside == 0:
                t, h, w, seconds = queue.pop(0)
                start, columns, rows = nxt, w // merge, h // merge
            frame, place = divmod(inside, rows * columns)
            tick = int(np.float32(np.float32(frame) * np.float32(seconds)) * np.float32(rate)) if rate is not None else 0
            token = [start + tick, start + place // columns, start + place % columns]
            out.append(token)
            largest = max(largest, *token)
            inside += 1
            if inside == t * rows * columns:
                inside = 0
            else:
                continue
        nxt = largest + 1
    return out, largest + 1 - sum(mask)


video = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.floats(0.0625, 20.0, width=32))
row = st.lists(st.tuples(st.integers(1, 6), video), min_size=0, max_size=3)


@given(
    st.lists(row, min_size=1, max_size=3),
    st.sampled_from(["left", "right"]),
    st.sampled_from([1, 2, 25, None]),
    st.sampled_from([1, 2]),
)
@settings(max_examples=150, deadline=None)
def test_random_batches_equal_the_second_implementation(batch: list, side: str, rate: int | None, merge: int) -> None:
    rows, grids, seconds, expected_input = [], [], [], []
    for parts in batch:
        types: list[int] = [0] * 2
        mine = []
        for text, (t, h, w, s) in parts:
            if rate is None:  # every frame has its own run, after a timestamp
                for _ in range(t):
                    types += [0] * text + [2] * (h * w)
                    mine.append((1, h * merge, w * merge, s))
            else:
                types += [0] * text + [2] * (t * h * w)
                mine.append((t, h * merge, w * merge, s))
            grids.append([t, h * merge, w * merge])
            seconds.append(s)
        types += [0] * 3
        rows.append(types)
        expected_input.append(mine)
    length = max(map(len, rows)) + 2
    padded, masks = [], []
    for types in rows:
        gap = [0] * (length - len(types))
        padded.append(gap + types if side == "left" else types + gap)
        masks.append(gap + [1] * len(types) if side == "left" else [1] * len(types) + gap)
    grid = torch.tensor(grids) if grids else None
    config = PositionConfig(merge, None if rate is None else float(rate))
    ids, deltas = positions(
        config, torch.tensor(padded), grid, None, torch.tensor(seconds, dtype=torch.float32), torch.tensor(masks)
    )
    for i, mine in enumerate(expected_input):
        expected, delta = walk(padded[i], masks[i], mine, config.tokens_per_second, merge)
        assert ids[:, i].T.tolist() == expected
        assert int(deltas[i]) == delta


def test_two_videos_without_text_between_them() -> None:
    types = torch.tensor([[0, 2, 2, 2, 0]])
    ids, _ = positions(PositionConfig(2, 1.0), types, torch.tensor([[2, 2, 2], [1, 2, 2]]), second_per_grid_ts=[3.0, 3.0])
    assert ids[0, 0].tolist() == [0, 1, 4, 5, 6]


def test_images_and_videos_keep_their_own_grids() -> None:
    types = torch.tensor([[1, 1, 0, 2, 2, 0]])
    ids, _ = positions(PositionConfig(1, 2.0), types, torch.tensor([[2, 1, 1]]), torch.tensor([[1, 1, 2]]), [1.5])
    assert ids[0, 0].tolist() == [0, 0, 2, 3, 6, 7]
    assert ids[2, 0].tolist() == [0, 1, 2, 3, 3, 7]


@pytest.mark.parametrize(
    ("types", "grids", "seconds", "match"),
    [
        ([2, 2, 0], [[1, 1, 1]], [1.0], "more runs"),
        ([2, 0], [[2, 1, 1]], [1.0], "shorter than its grid"),
        ([2, 0], [[1, 1, 1], [1, 1, 1]], [1.0, 1.0], "more video grids"),
        ([2, 0], [[1, 1, 1]], None, "second_per_grid_ts"),
        ([2, 0], [[1, 1, 1]], [1.0, 2.0], "second_per_grid_ts"),
    ],
)
def test_mismatches_are_errors(types: list[int], grids: list[list[int]], seconds: list[float] | None, match: str) -> None:
    with pytest.raises(Timer1Error, match=match):
        positions(PositionConfig(1, 2.0), torch.tensor([types]), torch.tensor(grids), second_per_grid_ts=seconds)


def test_the_wrong_rule_of_the_experiment_lets_text_restart() -> None:
    types = torch.tensor([[0, 2, 2, 0, 2, 2, 0, 0]])
    wrong, deltas = positions(PositionConfig(1, None, text_restarts=True), types, torch.tensor([[2, 1, 2]]))
    assert wrong[0, 0].tolist() == [0, 1, 1, 3, 4, 4, 3, 4]  # 1 + max(h, w) = 3, where 6 is right
    right, _ = positions(PositionConfig(1, None), types, torch.tensor([[2, 1, 2]]))
    assert right[0, 0].tolist() == [0, 1, 1, 3, 4, 4, 6, 7]
    assert int(deltas) == 6 - 8  # the next token would stand at 6: a jump from 4
