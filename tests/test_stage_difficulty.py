"""03 as a notebook runs it, with a stand-in for the model's answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from timer1lib.data.selection import AnswerCache, answer_key, difficulty_rows, spread
from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, read_json, read_jsonl
from timer1lib.params.load import validated
from timer1lib.params.sections import DifficultyParams, Params, SharedParams
from timer1lib.runfolder import RunFolder
from timer1lib.runs.graph import find_stage
from timer1lib.runs.keys import stage_parameters
from timer1lib.schema import Prediction, Sample
from timer1lib.stages import Stage, difficulty

SAMPLES = [
    Sample("a", "v.mp4", "one", 20.0, [(0.0, 10.0)]),
    Sample("b", "v.mp4", "two", 20.0, [(10.0, 20.0)]),
    Sample("c", "w.mp4", "three", 20.0, [(5.0, 10.0), (0.0, 5.0)]),
    Sample("d", "gone.mp4", "four", 20.0, [(5.0, 10.0)]),
]


class Fake:
    """Stands where the model is: answers 0 to 5, counts what it is asked, fails on a missing video."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def predict(
        self, loaded: Any, samples: Sequence[Sample], video: Any, shared: Any, out: Path, *, num_samples: int = 1, **_: Any
    ) -> list[Prediction]:
        answers = []
        for sample in samples:
            self.asked.append(sample.id)
            for i in range(num_samples):
                text = f"<answer>0 to {5 + 5 * i}</answer>"
                missing = sample.video == "gone.mp4"
                answers.append(
                    Prediction(sample.id, None, None, error="no file")
                    if missing
                    else Prediction(sample.id, 0.0, 5.0 + 5 * i, text)
                )
        Path(out).write_text("")
        return answers


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    import torch

    from timer1lib.inference import generate
    from timer1lib.models import load
    from timer1lib.models.family import Geometry

    class Loaded:
        model = torch.nn.Linear(2, 2)
        rule = "none"
        geometry = Geometry(patch=28, merge=2, temporal_patch=2, tokens_per_second=None)

    torch.manual_seed(0)
    double = Fake()
    monkeypatch.setattr(load, "load_model", lambda *_, **__: Loaded)
    monkeypatch.setattr(generate, "predict", double.predict)
    return double


def stage(folder: Path, run: str = "run", **params: Any) -> Stage[DifficultyParams]:
    opened = Stage(
        "difficulty",
        RunFolder(folder / run),
        SharedParams(cache_dir=str(folder / "cache")),
        validated(DifficultyParams, params, "params.yaml"),
    )
    videos = folder / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    for name in ("v.mp4", "w.mp4"):
        if not (videos / name).exists():
            (videos / name).write_bytes(b"film")
    opened.run.write_samples("train", SAMPLES)
    opened.run.set_video_root(videos)
    atomic_write_json(opened.run.data("splits.json"), {"train": {"kind": "grounding", "n": len(SAMPLES)}})
    return opened


def test_difficulty_is_the_iou_of_the_greedy_answer(tmp_path: Path, fake: Fake) -> None:
    opened = stage(tmp_path, rule="all")
    rows = difficulty.measure(opened, difficulty.pool(opened))
    assert [(row["id"], row["iou"]) for row in rows] == [("a", 0.5), ("b", 0.0), ("c", 1.0), ("d", None)]
    assert list(read_jsonl(opened.run.data("difficulty"))) == rows
    selection = difficulty.choose(opened, SAMPLES, rows)
    assert selection.chosen == ["a", "b", "c"]
    assert [s.id for s in opened.run.read_samples("selected")] == ["a", "b", "c"]
    assert read_json(opened.run.data("selection.json"))["table"][3]["fate"] == "not answered"
    assert difficulty.account(selection) == {"chosen": 3, "not answered": 1}


def test_nobody_is_asked_where_every_sample_is_wanted(tmp_path: Path, fake: Fake) -> None:
    opened = stage(tmp_path, difficulty_model="none", rule="all")
    rows = difficulty.measure(opened, difficulty.pool(opened))
    assert fake.asked == []
    selection = difficulty.choose(opened, SAMPLES, rows)
    assert [s.id for s in opened.run.read_samples("selected")] == selection.chosen == ["a", "b", "c", "d"]
    assert list(read_jsonl(opened.run.data("difficulty"))) == rows
    assert difficulty.account(selection) == {"chosen": 4}
    with pytest.raises(Timer1Error, match="with difficulty_model none the rule is all"):
        stage(tmp_path, "other", difficulty_model="none", rule="gaussian")


def test_answers_are_kept_by_model_sample_and_prompt(tmp_path: Path, fake: Fake) -> None:
    first = difficulty.measure(stage(tmp_path), SAMPLES)
    assert fake.asked == ["a", "b", "c", "d"]
    assert difficulty.measure(stage(tmp_path, "other", rule="random"), SAMPLES) == first
    assert fake.asked[4:] == ["d"], "only the one that failed is asked again"
    difficulty.measure(stage(tmp_path, max_new_tokens=7), SAMPLES)
    assert len(fake.asked) == 9
    changed = [Sample("a", "v.mp4", "another question", 20.0, [(0.0, 10.0)]), *SAMPLES[1:3]]
    difficulty.measure(stage(tmp_path), changed)
    assert fake.asked[9:] == ["a"]
    (tmp_path / "videos" / "w.mp4").write_bytes(b"another film")
    difficulty.measure(stage(tmp_path), SAMPLES[:3])
    assert fake.asked[10:] == ["c"]
    assert not list((tmp_path / "run" / "data").glob("difficulty_*"))


def test_kept_answers_follow_the_rule_of_keys(tmp_path: Path, fake: Fake) -> None:
    """Place and speed do not count; device and threads, which change the last bits of sums, do."""
    asked = SAMPLES[:3]
    first = difficulty.measure(stage(tmp_path), asked)
    assert len(fake.asked) == 3
    for change, more in (({"workers": 5, "cache_gb": 1.5}, 0), ({"threads": 2}, 3), ({"device": "cpu"}, 3), ({"seed": 9}, 0)):
        before, opened = len(fake.asked), stage(tmp_path)
        shared = SharedParams(**{"cache_dir": str(tmp_path / "cache"), **change})
        assert difficulty.measure(Stage("difficulty", opened.run, shared, opened.params), asked) == first
        assert len(fake.asked) - before == more, change
    # The videos at another place are the same videos.
    opened = stage(tmp_path)
    (tmp_path / "videos").rename(tmp_path / "moved")
    opened.run.set_video_root(tmp_path / "moved")
    before = len(fake.asked)
    assert difficulty.measure(opened, asked) == first
    assert len(fake.asked) == before


def test_without_reinforcement_learning_nobody_is_asked(tmp_path: Path, fake: Fake) -> None:
    opened = stage(tmp_path, enabled=False)
    assert difficulty.measure(opened, difficulty.pool(opened)) == []
    assert fake.asked == []
    assert not opened.run.data("difficulty").exists()
    assert not opened.run.data("selected").exists()
    given = stage_parameters(Params.model_validate({"grpo": {"enabled": False}}), find_stage("difficulty"))
    assert given["enabled"] is False
    assert stage_parameters(Params(), find_stage("difficulty"))["enabled"] is True


def test_a_form_file_counts_by_its_content(tmp_path: Path, fake: Fake) -> None:
    def measure(name: str, text: str) -> int:
        (tmp_path / name).write_text(text)
        opened = stage(tmp_path)
        shared = SharedParams(cache_dir=str(tmp_path / "cache"), form=str(tmp_path / name))
        before = len(fake.asked)
        difficulty.measure(replace(opened, shared=shared), SAMPLES[:3])
        return len(fake.asked) - before

    assert measure("one.txt", "find {query}") == 3
    assert measure("two.txt", "find {query}") == 0, "another file that says the same"
    assert measure("one.txt", "find me {query}") == 3


def test_spread_of_sampled_answers(tmp_path: Path, fake: Fake) -> None:
    opened = stage(tmp_path, rollouts=2, rollout_reward="iou", rule="top_variance", n=1)
    rows = difficulty.measure(opened, SAMPLES[:3])
    # Answers 0-5 and 0-10: IoU 0.5 and 1 with a; 0 and 0 with b; 1 with the second window of c, and 0.5 with either.
    assert [row["rewards"] for row in rows] == [[0.5, 1.0], [0.0, 0.0], [1.0, 0.5]]
    assert [row["reward_std"] for row in rows] == [0.25, 0.0, 0.25]
    assert difficulty.choose(opened, SAMPLES[:3], rows).chosen[0] in ("a", "c")
    assert spread([1.0, 3.0]) == 1.0


def test_gaussian_leaves_out_what_never_overlaps(tmp_path: Path, fake: Fake) -> None:
    opened = stage(tmp_path, rule="gaussian", n=2)
    assert difficulty.choose(opened, SAMPLES, difficulty.measure(opened, SAMPLES)).chosen == ["a", "c"]


def test_published_answers_need_no_model(tmp_path: Path) -> None:
    opened = stage(tmp_path, difficulty_model="published", rule="band")
    samples = [Sample("a", "v.mp4", "q", 9.0, [(1.0, 4.0)], extra={"pred": [0.0, 3.0], "difficulty": 50.0})]
    rows = difficulty.measure(opened, samples)
    assert rows[0]["iou"] == 0.5
    assert difficulty.choose(opened, samples, rows).chosen == ["a"]
    with pytest.raises(Timer1Error, match="no published answer"):
        difficulty.measure(opened, SAMPLES)


def test_who_judges(tmp_path: Path) -> None:
    assert difficulty.checkpoint(stage(tmp_path)) == SharedParams().model
    with pytest.raises(Timer1Error, match="run 02_sft first"):
        difficulty.checkpoint(stage(tmp_path, difficulty_model="sft"))
    folder = tmp_path / "run" / "checkpoints" / "sft"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert difficulty.checkpoint(stage(tmp_path)) == difficulty.checkpoint(stage(tmp_path, difficulty_model="sft")) == str(folder)
    assert difficulty.checkpoint(stage(tmp_path, difficulty_model="base")) == SharedParams().model


def test_mistakes_are_named(tmp_path: Path, fake: Fake) -> None:
    with pytest.raises(Timer1Error, match="no such split; there are train"):
        difficulty.pool(stage(tmp_path, pool="trian"))
    with pytest.raises(Timer1Error, match="rollout_reward"):
        difficulty.measure(stage(tmp_path, rollouts=2, rollout_reward="iuo"), SAMPLES)
    with pytest.raises(Timer1Error, match="no answer to sample 'a'"):
        difficulty_rows(SAMPLES, [])


def test_a_damaged_cache_file_costs_only_its_own_answers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = AnswerCache(tmp_path)
    cache.add({"k1": [Prediction("a", 1.0, 2.0, "x")], "k2": [Prediction("b", error="broken")]})
    (tmp_path / "torn.jsonl").write_text('{"key": "k3", "answers": [')
    again = AnswerCache(tmp_path)
    found = again.get("k1", SAMPLES[1])
    assert found == [Prediction("b", 1.0, 2.0, "x")]
    assert again.get("k2", SAMPLES[1]) is None
    assert "torn.jsonl" in caplog.text


def test_keys_depend_on_all_that_an_answer_depends_on(tmp_path: Path) -> None:
    video = tmp_path / "v.mp4"
    video.write_bytes(b"x")
    base = answer_key(SAMPLES[0], video, {"prompt": "p"})
    assert base == answer_key(Sample("other id", "v.mp4", "one", 20.0, [(3.0, 4.0)]), video, {"prompt": "p"})
    assert (
        len(
            {
                base,
                answer_key(SAMPLES[1], video, {"prompt": "p"}),
                answer_key(SAMPLES[0], None, {"prompt": "p"}),
                answer_key(SAMPLES[0], video, {"prompt": "q"}),
            }
        )
        == 4
    )
    assert json.dumps(base)
