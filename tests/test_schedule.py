"""Which row runs what when: order and sharing by hand, what always holds on drawn sweeps, failing and lost rows."""

from __future__ import annotations

import heapq
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from timer1lib.params.sections import Params
from timer1lib.runs.schedule import FAILURES, TRIES, Scheduler, Unit, identities, least_time


def next_of(scheduler: Scheduler) -> Unit:
    unit = scheduler.next()
    assert unit is not None
    return unit


def params(**sections: dict[str, object]) -> Params:
    return Params.model_validate(sections)


def test_rows_share_a_stage_where_all_that_it_reads_is_the_same() -> None:
    plain = identities(params())
    assert len(set(plain)) == 7
    assert identities(params(name="other")) == plain  # type: ignore[arg-type]
    assert identities(params(shared={"cache_gb": 1.0})) == plain, "what cannot change a result"
    beta = identities(params(grpo={"beta": 0.5}))
    assert [a == b for a, b in zip(plain, beta, strict=True)] == [True, True, True, False, False, False, False]
    # difficulty judged by the base knows nothing of SFT, and what comes after both does
    base = [identities(params(difficulty={"difficulty_model": "base"}, sft={"steps": n})) for n in (1, 2)]
    assert [a == b for a, b in zip(*base, strict=True)][:4] == [True, False, True, False]


def test_a_row_is_cut_where_it_begins_and_ends_to_share() -> None:
    # Rows 0 and 1 share stages A and B, all three share A; 1 and 2 share D.
    scheduler = Scheduler([["A", "B", "C0"], ["A", "B", "C1", "D"], ["A", "B2", "C2", "D"]])
    assert scheduler.distinct == 7
    first = scheduler.next()
    assert first == Unit(0, 0, 0), "A alone, as row 2 goes on with something else than row 1"
    assert scheduler.next() is None, "the others wait for A"
    assert scheduler.ended(first, 1) == "later"
    # B is wanted by two rows, so it comes before B2; B goes no further than row 1 goes with it.
    assert scheduler.next() == Unit(0, 1, 1)
    second = scheduler.next()
    assert second == Unit(2, 1, 2), "row 2's own stages, up to D, which it shares"
    assert scheduler.next() is None
    assert scheduler.ended(second, 3) == "later"
    assert scheduler.next() == Unit(2, 3, 3), "D is free, though row 1 is still far from it"
    assert scheduler.ended(Unit(0, 1, 1), 2) == "later"
    assert {scheduler.next(), scheduler.next()} == {Unit(0, 2, 2), Unit(1, 2, 2)}
    assert scheduler.ended(Unit(2, 3, 3), 4) == "done"
    assert scheduler.ended(Unit(1, 2, 2), 3) == "later"
    assert scheduler.next() == Unit(1, 3, 3), "it takes what row 2 has done"
    assert scheduler.ended(Unit(1, 3, 3), 4) == "done"
    assert not scheduler.over
    assert scheduler.ended(Unit(0, 2, 2), 3) == "done"
    assert scheduler.over


@given(
    st.lists(st.tuples(*[st.integers(0, 2)] * 4), min_size=1, max_size=12),
    st.integers(1, 5),
    st.lists(st.sampled_from(["ok", "ok", "ok", "lost", "claimed"]), min_size=1, max_size=8),
)
def test_every_stage_runs_once_no_two_at_a_time_and_no_place_is_idle(
    rows: list[tuple[int, ...]], places: int, fates: list[str]
) -> None:
    # a stage reads all before it, but for the third, which reads the first alone
    paths = [[(0, r[:1]), (1, r[:2]), (2, r[0], r[2]), (3, r)] for r in rows]
    scheduler, ran = Scheduler(paths), defaultdict(int)
    running: dict[int, Unit] = {}
    stands: list[set[object]] = [set() for _ in rows]
    done: set[object] = set()
    ended: set[int] = set()
    losses, events, clock = defaultdict(int), [], 0
    while not scheduler.over:
        while len(running) < places and (unit := scheduler.next()):
            running[unit.row] = unit
            heapq.heappush(events, (clock + 1 + unit.row % 3, unit.row))
        busy = {paths[u.row][i] for u in running.values() for i in range(u.first, u.last + 1) if paths[u.row][i] not in done}
        assert len(busy) == sum(paths[u.row][i] not in done for u in running.values() for i in range(u.first, u.last + 1))
        if len(running) < places:
            for row, path in enumerate(paths):
                wanted = next((stage for stage in path if stage not in done), None)
                parked = row in scheduler._parked
                assert row in running or row in ended or parked or wanted in busy, "a place is idle and a row could run"
        assert running, "all wait for each other"
        clock, row = heapq.heappop(events)
        unit = running.pop(row)
        fate = fates[clock % len(fates)]
        if fate == "lost" and losses[row] < TRIES - 1:
            losses[row] += 1
            assert scheduler.ended(unit, unit.first, "its node was lost", lost=True) == "again"
            continue
        if fate == "claimed" and running:
            assert scheduler.ended(unit, unit.first, claimed=True) == "later"
            continue
        for stage in paths[row][: unit.last + 1]:
            if stage not in done:
                ran[stage] += 1
                done.add(stage)
            stands[row].add(stage)
        if scheduler.ended(unit, unit.last + 1) == "done":
            ended.add(row)
    assert set(ran.values()) == {1}
    assert set(ran) == {stage for path in paths for stage in path}
    assert all(stands[row] == set(path) for row, path in enumerate(paths))
    assert ended == set(range(len(rows)))


def test_the_error_of_a_shared_stage_is_tried_by_two_rows_and_counts_for_all() -> None:
    names = ["a", "b", "c", "d"]
    scheduler = Scheduler([["A", i] for i in range(4)], names)
    for row in range(FAILURES):
        unit = scheduler.next()
        assert unit == Unit(row, 0, 0)
        assert scheduler.next() is None
        assert scheduler.ended(unit, 0, f"error {row}") == "failed"
    assert scheduler.next() is None
    assert scheduler.over
    assert sorted(scheduler.take_dropped()) == [2, 3]
    assert scheduler.failed == {
        0: "error 0",
        1: "error 1",
        2: "error 0 (in a, which shares the stage)",
        3: "error 0 (in a, which shares the stage)",
    }


def test_a_row_whose_node_dies_again_and_again_is_given_up_and_the_next_one_takes_over() -> None:
    scheduler = Scheduler([["A", "B"], ["A", "C"]])
    for _ in range(TRIES - 1):
        assert scheduler.ended(next_of(scheduler), 0, "lost", lost=True) == "again"
    assert scheduler.ended(next_of(scheduler), 0, "lost", lost=True) == "failed"
    assert scheduler.next() == Unit(1, 0, 0)


def test_what_stands_already_is_only_taken() -> None:
    scheduler = Scheduler([["A", "B"], ["A", "B"]])
    assert scheduler.next() == Unit(0, 0, 1), "the same rows share both, so nothing is cut"
    assert scheduler.next() is None
    assert scheduler.ended(Unit(0, 0, 1), 2) == "done"
    assert scheduler.next() == Unit(1, 1, 1)


def test_no_schedule_beats_the_longest_row_and_the_work_over_the_places() -> None:
    paths = [[("A", 10.0), ("B", 5.0)], [("A", 10.0), ("C", 7.0)]]
    assert least_time(paths, 2) == (17.0, 11.0)
