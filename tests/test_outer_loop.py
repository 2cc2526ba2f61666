"""TimeRFT's outer loop with training and asking played by fakes: what is trained, from what, on which schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from timer1lib.files import read_jsonl
from timer1lib.params.sections import GrpoParams
from timer1lib.training.outer_loop import PhasePlan, run_epochs

POOL = [f"s{i}" for i in range(12)]


class World:
    """Answers get better with every epoch: sample i has IoU i / 12 + 0.2 * epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trained: list[PhasePlan] = []
        self.asked: list[list[str]] = []

    def train(self, plan: PhasePlan) -> None:
        self.trained.append(plan)
        plan.out_dir.mkdir(parents=True, exist_ok=True)
        for name in ("optimizer.pt", "scheduler.pt"):
            (plan.out_dir / name).touch()

    def measure(self, model: str, ids: Sequence[str], epoch: int) -> Mapping[str, float | None]:
        assert model.endswith(f"epoch{epoch}")
        self.asked.append(list(ids))
        return {i: None if i == "s1" else min(1.0, int(i[1:]) / 12 + 0.2 * epoch) for i in ids}

    def run(self, **params: object) -> list[PhasePlan]:
        return run_epochs(
            POOL,
            {i: int(i[1:]) / 12 for i in POOL},
            "first",
            self.folder / "work",
            lambda k: self.folder / f"filter_epoch{k}.jsonl",
            GrpoParams(prompts_per_step=4, **params),  # type: ignore[arg-type]
            0,
            self.train,
            self.measure,
        )


def test_sample_filtering_drops_what_is_solved_or_hopeless_for_good(tmp_path: Path) -> None:
    world = World(tmp_path)
    plans = world.run(epochs=3, schedule="sample_filtering")
    assert sorted(plans[0].ids) == sorted(POOL)
    # after epoch 1 the IoUs are i/12 + 0.2; at most 0.7 are i <= 6, and s1 gave no answer
    assert sorted(plans[1].ids) == sorted(["s0", "s2", "s3", "s4", "s5", "s6"])
    # after epoch 2 they are i/12 + 0.4 of those: i <= 3
    assert sorted(plans[2].ids) == ["s0", "s2", "s3"]
    rows = {row["id"]: row for row in read_jsonl(tmp_path / "filter_epoch1.jsonl")}
    assert set(rows) == set(POOL)
    assert rows["s1"] == {"id": "s1", "iou": None, "kept": False, "reason": "no answer"}
    assert rows["s11"]["reason"] == "too easy"
    assert rows["s3"]["kept"]


def test_each_phase_starts_from_the_last_model_and_the_first_has_the_long_schedule(tmp_path: Path) -> None:
    plans = World(tmp_path).run(epochs=3, schedule="multi_epoch")
    assert [p.start_from for p in plans] == ["first", str(plans[0].out_dir), str(plans[1].out_dir)]
    assert [p.reference for p in plans] == [p.start_from for p in plans]
    assert [p.steps for p in plans] == [3, 3, 3]
    assert [p.schedule_steps for p in plans] == [9, 3, 3]
    assert all(p.carry_from is None for p in plans)


def test_carry_goes_on_with_optimizer_schedule_and_the_first_reference(tmp_path: Path) -> None:
    plans = World(tmp_path).run(epochs=3, schedule="multi_epoch", phase_policy="carry")
    assert [p.reference for p in plans] == ["first"] * 3
    assert [p.carry_from for p in plans] == [None, plans[0].out_dir, plans[1].out_dir]
    assert [p.schedule_steps for p in plans] == [9, 9, 9]


def test_a_killed_loop_trains_and_asks_nothing_twice(tmp_path: Path) -> None:
    whole = World(tmp_path / "whole")
    expected = [sorted(p.ids) for p in whole.run(epochs=3, schedule="sample_filtering")]
    cut = World(tmp_path / "cut")

    def dies(model: str, ids: Sequence[str], epoch: int) -> Mapping[str, float | None]:
        if epoch == 2:
            raise KeyboardInterrupt
        return World.measure(cut, model, ids, epoch)

    cut.measure = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        cut.run(epochs=3, schedule="sample_filtering")
    again = World(tmp_path / "cut")
    plans = again.run(epochs=3, schedule="sample_filtering")
    assert [sorted(p.ids) for p in plans] == expected
    assert [p.number for p in again.trained] == [2]
    assert len(again.asked) == 2


def test_it_ends_early_when_nothing_is_left(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.measure = lambda model, ids, epoch: dict.fromkeys(ids, 1.0)  # type: ignore[method-assign,assignment]
    assert len(world.run(epochs=3, schedule="sample_filtering")) == 1


def test_easy_to_hard_starts_with_the_easy_ones(tmp_path: Path) -> None:
    plans = World(tmp_path).run(epochs=3, schedule="easy_to_hard")
    assert set(plans[0].ids) == {"s8", "s9", "s10", "s11"}
    assert set(plans[2].ids) == {"s0", "s1", "s2", "s3"}
    assert len(plans[0].ids) == len(POOL)  # each slice is trained as often as there are epochs


def test_staged_takes_a_band_an_epoch(tmp_path: Path) -> None:
    plans = World(tmp_path).run(epochs=2, schedule="staged", stage_bands="0.5:1, 0:0.5")
    assert set(plans[0].ids) == {f"s{i}" for i in range(7, 12)}
    assert set(plans[1].ids) == {f"s{i}" for i in range(1, 7)}


@pytest.mark.parametrize(("policy", "anew"), [("restart", []), ("carry", [1])])
def test_an_epoch_without_its_optimizer_is_unfinished_where_the_next_one_needs_it(
    tmp_path: Path, policy: str, anew: list[int]
) -> None:
    plans = World(tmp_path).run(epochs=3, schedule="multi_epoch", phase_policy=policy)
    (plans[1].out_dir / "optimizer.pt").unlink()
    again = World(tmp_path)
    again.run(epochs=3, schedule="multi_epoch", phase_policy=policy)
    assert [plan.number for plan in again.trained] == anew


def test_several_updates_on_a_rollout_make_more_steps_of_an_epoch(tmp_path: Path) -> None:
    plans = World(tmp_path).run(epochs=2, schedule="multi_epoch", updates_per_rollout=3, num_iterations=2)
    assert [p.steps for p in plans] == [6, 6]  # 12 samples are one batch of rollouts, learned from in 3 updates, twice
    assert plans[0].schedule_steps == 12
