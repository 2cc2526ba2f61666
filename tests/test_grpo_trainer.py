"""Trainings with the video trainer: the fast path ends where the plain one does, failures drop a group, kills cost nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from grpo_runs import flat_reward, furthest, letter_reward, tiny_folder, trainer, weights  # noqa: E402

from timer1lib.models.features import FeatureCache  # noqa: E402
from timer1lib.training.common import load_weights, resume_point  # noqa: E402

GREEDY = {"do_sample": False}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: Any) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: tiny_folder(root / family, family) for family in ("qwen3_vl", "qwen2_5_vl")}


def spread(tr: Any) -> None:
    """Greedy completions of a group are equal, and equal ones cancel: change one token of each, and shorten some."""
    greedy = tr._sample

    def sample(batch: Any, which: Any, attempt: int) -> list[list[int]]:
        out = []
        for i, row in enumerate(greedy(batch, which, attempt)):
            place = i % batch.group
            changed = [40 + (token + 13 * place) % 500 if k == place else token for k, token in enumerate(row)]
            out.append(changed[: len(row) - place % 3])
        return out

    tr._sample = sample


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("qwen3_vl", {"frozen": True}),
        ("qwen2_5_vl", {"gradient_checkpointing": True, "beta": 0.05}),
    ],
    ids=["qwen3_vl frozen tower", "qwen2_5_vl beta checkpointing"],
)
def test_twenty_steps_fast_and_plain_end_in_the_same_weights(
    folders: dict[str, Path], family: str, options: dict[str, Any], tmp_path: Path
) -> None:
    ends, rollouts = {}, {}
    for path in ("shared_prefix", "repeated"):
        seen: list[Any] = []
        tr, _ = trainer(
            folders[family], tmp_path / path, max_steps=20, scoring=path, rollouts=path,
            generation_kwargs=GREEDY, on_rollouts=lambda step, rows, seen=seen: seen.append((step, rows)),
            learning_rate=3e-5, adam_epsilon=1e-4, fast_vision=path == "shared_prefix", **options,
        )  # fmt: skip
        spread(tr)
        before = weights(tr)
        tr.train()
        ends[path], rollouts[path] = weights(tr), seen
        assert furthest(before, ends[path]) > 1e-4  # it did train
    assert rollouts["shared_prefix"] == rollouts["repeated"]
    assert len({text for _, rows in rollouts["repeated"] for row in rows for text in row["completions"]}) > 3
    assert furthest(ends["shared_prefix"], ends["repeated"]) < 1e-5


class Killed(Exception):
    pass


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_a_killed_run_goes_on_to_the_same_weights(folders: dict[str, Path], family: str, tmp_path: Path) -> None:
    """8 steps straight against 4 + kill + resume, over an epoch's end (4 steps an epoch), with sampled rollouts."""
    common: dict[str, Any] = {"max_steps": 8, "save_strategy": "steps", "save_steps": 3, "beta": 0.02}
    straight, _ = trainer(folders[family], tmp_path / "straight", **common)
    straight.train()

    def kill(step: int, _: Any) -> None:
        if step == 7:
            raise Killed

    cut, _ = trainer(folders[family], tmp_path / "cut", on_rollouts=kill, **common)
    with pytest.raises(Killed):
        cut.train()
    half = tmp_path / "cut" / "checkpoint-7"  # as a kill in the middle of saving leaves it
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"\x00" * 64)
    point = resume_point(tmp_path / "cut")
    assert point is not None
    assert point.name == "checkpoint-6"
    torch.manual_seed(12345)  # whatever the new process did before
    resumed, _ = trainer(folders[family], tmp_path / "cut", **common)
    resumed.train(resume_from_checkpoint=str(point))
    assert furthest(weights(straight), weights(resumed)) < 1e-6
    assert [row["reward"] for row in straight.state.log_history if "reward" in row] == [
        row["reward"] for row in resumed.state.log_history if "reward" in row
    ]


def test_a_killed_lora_run_goes_on_to_the_same_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    import peft

    def lora() -> Any:
        return peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.0)

    common: dict[str, Any] = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "beta": 0.02}
    straight, _ = trainer(folders["qwen3_vl"], tmp_path / "straight", peft_config=lora(), **common)
    before = weights(straight)
    straight.train()
    assert furthest(before, weights(straight)) > 1e-4
    resumed, _ = trainer(folders["qwen3_vl"], tmp_path / "cut", peft_config=lora(), **common)
    resumed.train(resume_from_checkpoint=str(resume_point(tmp_path / "straight").parent / "checkpoint-2"))  # type: ignore[union-attr]
    assert furthest(weights(straight), weights(resumed)) < 1e-6


def test_weights_really_come_from_a_qwen2_5_checkpoint(folders: dict[str, Path], tmp_path: Path) -> None:
    tr, _ = trainer(folders["qwen2_5_vl"], tmp_path, max_steps=2)
    before = weights(tr)
    tr.train()
    tr.save_model(str(tmp_path / "saved"))
    after = weights(tr)
    fresh, _ = trainer(folders["qwen2_5_vl"], tmp_path)
    assert furthest(weights(fresh), before) == 0
    load_weights(fresh.model, tmp_path / "saved")
    assert furthest(weights(fresh), after) == 0


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert resume_point(tmp_path) is None
    (tmp_path / "checkpoint-final").mkdir()
    assert resume_point(tmp_path) is None


def test_a_broken_video_makes_room_for_another_and_is_logged(folders: dict[str, Path], tmp_path: Path, caplog: Any) -> None:
    seen: list[Any] = []
    broken = ("s1", "s2", "s3")
    tr, encoder = trainer(
        folders["qwen3_vl"], tmp_path, max_steps=4, broken=broken, on_rollouts=lambda step, rows: seen.append((step, rows))
    )
    with caplog.at_level("WARNING"):
        tr.train()
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    assert all(len(rows) == 3 and len(row["completions"]) == len(row["rewards"]) == 4 for _, rows in seen for row in rows)
    shown = {row["id"] for _, rows in seen for row in rows}
    assert not shown & set(broken)
    assert "sample s2 is left out of this step: s2.mp4: moov atom not found" in caplog.text
    assert sum(row.get("groups_failed", 0) for row in tr.state.log_history) >= 3
    assert all(len({row["id"] for row in rows}) == 3 for _, rows in seen)
    assert encoder.calls.count("s4") <= 4


def test_a_data_set_without_one_good_video_says_so(folders: dict[str, Path], tmp_path: Path) -> None:
    tr, _ = trainer(folders["qwen3_vl"], tmp_path, count=4, broken=("s0", "s1", "s2", "s3"))
    with pytest.raises(RuntimeError, match="no row of the data set is left"):
        tr.train()


def test_groups_without_gradient_are_counted(folders: dict[str, Path], tmp_path: Path) -> None:
    tr, _ = trainer(folders["qwen3_vl"], tmp_path, reward=flat_reward, max_steps=1)
    before = weights(tr)
    tr.train()
    assert tr.state.log_history[0]["frac_groups_without_gradient"] == 1.0
    assert furthest(before, weights(tr)) == 0


def half_flat(completions: list[str], sample_id: list[str], **_: Any) -> list[float]:
    """Odd samples reward all alike."""
    return [0.5 if int(name[1:]) % 2 else float(i % 4) for i, name in enumerate(sample_id)]


def test_dynamic_sampling_replaces_groups_of_equal_rewards(folders: dict[str, Path], tmp_path: Path) -> None:
    seen: list[Any] = []
    tr, _ = trainer(
        folders["qwen3_vl"], tmp_path, reward=half_flat, dynamic_sampling=8, max_steps=2, shuffle_dataset=False,
        on_rollouts=lambda step, rows: seen.append(rows),
    )  # fmt: skip
    tr.train()
    for rows in seen:  # s0 s1 s2, then s3 s4 s5: the odd ones had to go
        assert all(int(row["id"][1:]) % 2 == 0 for row in rows)
        assert len({row["id"] for row in rows}) == 3
    first = tr.state.log_history[0]
    assert first["groups_resampled"] >= 1
    assert first["frac_groups_without_gradient"] == 0
    plain, _ = trainer(folders["qwen3_vl"], tmp_path, reward=half_flat, max_steps=1, shuffle_dataset=False)
    plain.train()
    assert plain.state.log_history[0]["frac_groups_without_gradient"] == pytest.approx(1 / 3)


def test_dynamic_sampling_gives_up_after_its_tries(folders: dict[str, Path], tmp_path: Path) -> None:
    tr, _ = trainer(folders["qwen3_vl"], tmp_path, reward=flat_reward, dynamic_sampling=2, max_steps=1)
    tr.train()
    assert tr.state.log_history[0]["groups_resampled"] == 6.0
    assert tr.state.log_history[0]["frac_groups_without_gradient"] == 1.0


def test_the_tower_runs_once_a_group_and_never_again_with_a_cache(folders: dict[str, Path], tmp_path: Path) -> None:
    def tower_rows(cache: FeatureCache | None, steps: int) -> list[int]:
        tr, _ = trainer(
            folders["qwen3_vl"], tmp_path / "out", frozen=True, beta=0.05, feature_cache=cache, count=6, max_steps=steps
        )
        rows: list[int] = []
        for model in (tr.model, tr.ref_model):
            model.model.visual.patch_embed.register_forward_hook(lambda _, args, __: rows.append(args[0].shape[0]))
        tr.train()
        return rows

    # videos of 4 and 5 frame pairs, 4 patches each: 16 and 20 rows; 3 + 3 in the two batches of 6 samples
    assert sum(tower_rows(None, 2)) == 3 * 16 + 3 * 20
    cache = FeatureCache(tmp_path / "cache")
    assert sum(tower_rows(cache, 4)) == 3 * 16 + 3 * 20  # two epochs
    assert tower_rows(FeatureCache(tmp_path / "cache"), 2) == []  # another run


def test_a_cache_needs_a_frozen_tower(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen vision tower"):
        trainer(folders["qwen3_vl"], tmp_path, feature_cache=FeatureCache(None))


def test_accumulation_keeps_groups_whole_and_old_log_probabilities_work(folders: dict[str, Path], tmp_path: Path) -> None:
    """One group a forward, three forwards a step, two passes over every generation."""
    tr, _ = trainer(
        folders["qwen3_vl"], tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=3, steps_per_generation=3,
        num_iterations=2, max_steps=4, reward=letter_reward,
    )  # fmt: skip
    sizes: list[tuple[int, int]] = []
    original = tr._score

    def counted(model: Any, rows: Any, completions: Any, mask: Any) -> Any:
        sizes.append((len(rows), len({id(row) for row in rows})))
        return original(model, rows, completions, mask)

    tr._score = counted
    before = weights(tr)
    tr.train()
    assert set(sizes) == {(4, 1)}
    assert furthest(before, weights(tr)) > 1e-4
    assert tr.state.global_step == 4


def test_evaluation_scores_too(folders: dict[str, Path], tmp_path: Path) -> None:
    tr, _ = trainer(folders["qwen3_vl"], tmp_path, per_device_eval_batch_size=12)
    from grpo_runs import rows

    metrics = tr.evaluate(rows(3))
    assert metrics["eval_reward"] > 0


def test_small_rollout_calls_sample_the_same(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from timer1lib.training.video_grpo import trainer as module

    ends = []
    for most in (10**6, 100):
        monkeypatch.setattr(module, "rollout_tokens", lambda *_, most=most: most)
        seen: list[Any] = []
        tr, _ = trainer(folders["qwen3_vl"], tmp_path, max_steps=1, on_rollouts=lambda _, rows, seen=seen: seen.append(rows))
        tr.train()
        ends.append(seen)
    assert ends[0] == ends[1]
    assert [(s.start, s.stop) for s in module._chunks([40, 60, 30, 200, 10], 100)] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    assert [(s.start, s.stop) for s in module._chunks([40, 50, 30, 200, 10, 20], 150)] == [(0, 3), (3, 4), (4, 6)]


def test_no_step_touches_the_environment_that_threads_read(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `getenv` of the tokenizer's or a decoder's while accelerate emptied the environment ended ranks by signal 11."""
    import os

    from transformers import TrainerCallback

    from timer1lib.training import common

    touched: list[Any] = []

    class Listen(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            for name in ("putenv", "unsetenv"):
                monkeypatch.setattr(os, name, lambda *given, name=name: touched.append((name, *given)))

    made, _ = trainer(folders["qwen3_vl"], tmp_path, encode_threads=1, max_steps=3, callbacks=[Listen()])
    common.prepare(made)
    made.train()
    monkeypatch.undo()
    assert made.state.global_step == 3
    assert touched == []
