"""What each schedule trains on, worked out by hand."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timer1lib.data.schedules import SCHEDULES, filter_epoch, plan_epoch, slice_of
from timer1lib.errors import Timer1Error
from timer1lib.params import parse_bands

POOL = ["a", "b", "c", "d", "e", "f"]
IOU = {"a": 0.0, "b": 0.1, "c": 0.5, "d": 0.7, "e": 0.71, "f": None}


def test_filter_bounds_are_open_below_and_closed_above() -> None:
    rows = filter_epoch(POOL, IOU)
    assert [(r["id"], r["kept"], r["reason"]) for r in rows] == [
        ("a", False, "too hard"), ("b", True, "kept"), ("c", True, "kept"), ("d", True, "kept"), ("e", False, "too easy"), ("f", False, "no answer"),
    ]  # fmt: skip
    assert [r["id"] for r in filter_epoch(POOL, IOU, 0.1, 0.5) if r["kept"]] == ["c"]
    with pytest.raises(Timer1Error, match="below"):
        filter_epoch(POOL, IOU, 0.7, 0.7)


def test_multi_epoch_trains_on_everything_in_another_order() -> None:
    epochs = [plan_epoch("multi_epoch", k, 3, POOL, {}).ids for k in range(3)]
    assert all(sorted(ids) == POOL for ids in epochs)
    assert len({tuple(ids) for ids in epochs}) > 1
    assert plan_epoch("multi_epoch", 1, 3, POOL, {}).ids == epochs[1]


def test_sample_filtering_starts_with_everything_and_then_shrinks() -> None:
    assert sorted(plan_epoch("sample_filtering", 0, 5, POOL, IOU).ids) == POOL
    assert sorted(plan_epoch("sample_filtering", 1, 5, POOL, IOU).ids) == ["b", "c", "d"]
    assert plan_epoch("sample_filtering", 2, 5, ["b", "c"], {"b": 0.9, "c": 0.2}).ids == ["c"]
    with pytest.raises(Timer1Error, match="no sample to train on"):
        plan_epoch("sample_filtering", 1, 5, POOL, dict.fromkeys(POOL, 0.0))


def test_curricula_cost_the_same_and_go_one_way() -> None:
    easy = [plan_epoch("easy_to_hard", k, 3, POOL, IOU).ids for k in range(3)]
    assert [Counter(ids) for ids in easy] == [Counter({"e": 3, "d": 3}), Counter({"c": 3, "b": 3}), Counter({"a": 3, "f": 3})]
    hard = [set(plan_epoch("hard_to_easy", k, 3, POOL, IOU).ids) for k in range(3)]
    assert hard == [{"a", "f"}, {"b", "c"}, {"d", "e"}]


def test_stages_take_their_band_and_the_last_one_stays() -> None:
    bands = "0.6:1, 0.05:0.6"
    assert [sorted(plan_epoch("staged", k, 4, POOL, IOU, bands=bands).ids) for k in range(4)] == [
        ["d", "e"],
        ["b", "c"],
        ["b", "c"],
        ["b", "c"],
    ]
    with pytest.raises(Timer1Error, match="no sample"):
        plan_epoch("staged", 0, 1, POOL, IOU, bands="0.8:1")


@pytest.mark.parametrize("text", ["", "0.5", "0.5:0.2", "a:b", "0:2", "0:1,"])
def test_bad_bands_are_named(text: str) -> None:
    with pytest.raises(Timer1Error, match="bands"):
        parse_bands(text)


def test_bad_names_and_epochs() -> None:
    with pytest.raises(Timer1Error, match="one of multi_epoch"):
        plan_epoch("curriculum", 0, 1, POOL, IOU)
    with pytest.raises(Timer1Error, match="from 0"):
        plan_epoch("multi_epoch", 3, 3, POOL, IOU)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(SCHEDULES), st.lists(st.floats(0, 1), min_size=1, max_size=25), st.integers(1, 6))
def test_nothing_is_invented_and_curricula_cover_the_pool(schedule: str, ious: list[float], epochs: int) -> None:
    difficulty = {f"s{i}": iou for i, iou in enumerate(ious)}
    seen: Counter[str] = Counter()
    for k in range(epochs):
        try:
            ids = plan_epoch(schedule, k, epochs, list(difficulty), difficulty, seed=3).ids
        except Timer1Error:
            continue
        assert set(ids) <= set(difficulty)
        seen.update(ids)
    if schedule in ("multi_epoch", "easy_to_hard", "hard_to_easy"):
        assert seen == Counter(dict.fromkeys(difficulty, epochs))
    assert sorted(name for k in range(epochs) for name in slice_of(list(difficulty), k, epochs)) == sorted(difficulty)
