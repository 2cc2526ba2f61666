"""Which window counts where a query has several: the best one, in selection, rewards, filter, metrics and view alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timer1lib.data.selection import difficulty_rows, published_rows
from timer1lib.evaluation.scored import join
from timer1lib.evaluation.signatures.exploitation import _mean_iou
from timer1lib.files import atomic_write_jsonl, read_jsonl
from timer1lib.forms import FORMS
from timer1lib.params.sections import DifficultyParams, GrpoParams, SharedParams
from timer1lib.rewards import REWARDS
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Prediction, Sample
from timer1lib.spans import best_iou, best_window, iou
from timer1lib.stages import Stage
from timer1lib.stages import difficulty as stage_difficulty
from timer1lib.stages import grpo as stage_grpo
from timer1lib.training.grpo import RewardFunction, _RolloutLog
from timer1lib.view.items import Item, Lane, Style, load_rollouts

TWO = Sample("a", "v.mp4", "she waves", 40.0, [(0.0, 5.0), (20.0, 30.0)], extra={"pred": [19.0, 29.0]})
TEXT = "<think>so</think><answer>19.00 to 29.00</answer>"
ANSWER = Prediction("a", 19.0, 29.0, TEXT)
IOU = 9 / 11  # of 19-29 with the second window; it does not touch the first
TIOU = 9 / 11 * (39 / 40) ** 2  # both edges are 1 s of 40 s off


def test_selection() -> None:
    assert difficulty_rows([TWO], [ANSWER])[0]["iou"] == pytest.approx(IOU)
    assert published_rows([TWO])[0]["iou"] == pytest.approx(IOU)


def test_rewards_of_sampled_answers(tmp_path: Path) -> None:
    stage = Stage("difficulty", RunFolder(tmp_path), SharedParams(), DifficultyParams(rollout_reward="iou"))
    assert stage_difficulty.rollout_rewards(TWO, [ANSWER], stage) == [pytest.approx(IOU)]


@pytest.mark.parametrize(
    ("name", "value"), [("iou", IOU), ("tiou", TIOU), ("tiou_centered", TIOU), ("tvg_r1", 0.9 * IOU + 0.1), ("format", 1.0)]
)
def test_rewards_of_training(name: str, value: float) -> None:
    reward = RewardFunction(name, REWARDS[name], {"a": TWO}, FORMS["timer1"])
    assert reward([TEXT], ["a"]) == [pytest.approx(value)]


def test_filter_between_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(stage: Any, phase: str, *, folder: str, ids: list[str], epoch: int) -> None:
        answers = [ANSWER, Prediction("b", error="gone")]
        atomic_write_jsonl(stage_grpo._answers(folder, epoch), (answer.to_json() for answer in answers))

    monkeypatch.setattr(stage_grpo, "do", asked)
    stage = Stage("grpo", RunFolder(tmp_path), SharedParams(), GrpoParams())
    samples = {"a": TWO, "b": Sample("b", "v.mp4", "q", 40.0, [(0.0, 5.0)])}
    trainer = stage_grpo._Trainer(stage, samples, None)
    assert trainer.measure(str(tmp_path / "model"), ["a", "b"], 1) == {"a": pytest.approx(IOU), "b": None}


def test_evaluation() -> None:
    scored = join([TWO], [ANSWER])
    assert scored.iou.tolist() == [pytest.approx(IOU)]
    assert scored.window.tolist() == [[20.0, 30.0]]
    assert join([TWO], [Prediction("a", 8.0, 9.0)]).window.tolist() == [[0.0, 5.0]], "the first where none is met"
    assert join([TWO], []).window.tolist() == [[0.0, 5.0]]


def test_view_and_the_log_of_rollouts(tmp_path: Path) -> None:
    item = Item("a", TWO, [Lane("r", "r", ANSWER.span, TEXT, Style("#000000", "solid"))])
    assert item.ious() == {"r": pytest.approx(IOU)}
    run = RunFolder(tmp_path)
    rows: list[dict[str, Any]] = [{"id": "a", "completions": [TEXT, "x"], "rewards": [1.0, 0.0]}]
    _RolloutLog(run.log("rollouts"), {"a": TWO}, FORMS["timer1"], 1, 0)(1, rows)
    (logged,) = read_jsonl(run.log("rollouts"))
    assert (logged["gt"], logged["windows"]) == ([0.0, 5.0], [[0.0, 5.0], [20.0, 30.0]])
    assert _mean_iou(logged) == pytest.approx(IOU / 2)
    assert list(load_rollouts(run)[0].ious().values()) == [pytest.approx(IOU), 0.0]


SEGMENT = st.tuples(st.floats(0, 50), st.floats(0, 50))


@given(SEGMENT | st.none(), st.lists(SEGMENT, max_size=5))
def test_the_best_window_is_the_first_of_the_best(span: tuple[float, float] | None, windows: list[tuple[float, float]]) -> None:
    best = best_window(span, windows)
    assert (best is None) == (not windows)
    if best is not None:
        values = [iou(span, window) for window in windows]
        assert windows[values.index(max(values))] == best
        assert best_iou(span, windows) == max(values)
    else:
        assert best_iou(span, windows) == 0.0
