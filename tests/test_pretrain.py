"""Pretraining: its shortcuts equal the real pipeline, it learns, and a killed one goes on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from timer1lib.errors import Timer1Error
from timer1lib.files import read_jsonl
from timer1lib.world.base import pretrain as module
from timer1lib.world.base.lessons import FRAMES, SIDE, Mix, build_lesson, lesson_pixels, lesson_scene, sampled_times
from timer1lib.world.base.pretrain import (
    BatchedMuon,
    Recipe,
    batch_indices,
    collate_lessons,
    lesson_videos,
    orthogonalise,
    pretrain,
)
from timer1lib.world.base.tiny import build_tiny, build_tokenizer
from timer1lib.world.render import write_video


@pytest.mark.parametrize(("family", "textual"), [("qwen3_vl", True), ("qwen2_5_vl", True), ("qwen2_5_vl", False)])
def test_a_lesson_is_what_the_processor_makes_of_the_same_video_and_prompt(family: str, textual: bool, tmp_path) -> None:
    from timer1lib.clock.frames import Frames
    from timer1lib.forms import FORMS
    from timer1lib.models.inputs import encode_prompt
    from timer1lib.models.load import load_model

    loaded = load_model(build_tiny(tmp_path / "model", family, textual=textual))  # type: ignore[arg-type]
    scene = lesson_scene(5, Mix())
    pixels = lesson_pixels(scene)
    mix = Mix(question=0, grounded_question=0, moment=0, describe=0, turns=1)
    lesson = build_lesson(scene, pixels, loaded.tokenizer, np.random.default_rng(0), mix, textual)
    text = loaded.tokenizer.decode(lesson.ids)
    query = text.split("when: ")[1].split("?")[0]
    answer = text.split("assistant\n")[1].removesuffix("<|im_end|>")
    times = sampled_times(scene.duration, FRAMES)
    frames = Frames(pixels, times, scene.duration, float(times[-1]) / (FRAMES - 1), "test", "", 1.0)
    real = encode_prompt(loaded, frames, FORMS["brief"].ask(query, scene.duration), answer)
    assert real["input_ids"][0].tolist() == lesson.ids
    assert real["labels"][0].tolist() == lesson.labels
    batch, _, _ = collate_lessons([lesson], loaded.model.config, 0)
    assert batch["video_grid_thw"].equal(real["video_grid_thw"])
    assert ("second_per_grid_ts" in batch) == ("second_per_grid_ts" in real) == (family == "qwen2_5_vl")
    if family == "qwen2_5_vl":
        assert torch.allclose(batch["second_per_grid_ts"], real["second_per_grid_ts"])
    assert torch.allclose(batch["pixel_values_videos"], real["pixel_values_videos"], atol=1e-6)


def test_told_times_are_those_of_the_written_file(tmp_path) -> None:
    from timer1lib.clock.frames import Sampling
    from timer1lib.video.decode import read_frames
    from timer1lib.world.base.lessons import told_times

    scene = lesson_scene(7, Mix())
    write_video(scene, tmp_path / "v.mp4")
    frames = read_frames(
        tmp_path / "v.mp4",
        Sampling("frames", frames=FRAMES, min_frame_pixels=SIDE * SIDE, total_pixels=16 * SIDE * SIDE, factor=56),
    )
    assert frames.pixels.shape == (FRAMES, SIDE, SIDE, 3)
    pairs = frames.times_s.reshape(-1, 2).mean(1)
    assert pairs == pytest.approx(np.array(told_times(scene.duration)))
    drawn = lesson_pixels(scene).astype(int)
    assert abs(frames.pixels.astype(int) - drawn).mean() < 6  # H.264 and resizing change little


def small(steps: int) -> Recipe:
    return Recipe(steps=steps, batch=4, fresh=2, pool=8, warmup=2, save_every=3)


def test_killed_and_run_again_ends_in_the_same_weights(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    whole = pretrain(tmp_path / "whole", small(6), Mix(turns=2), hidden=32, layers=1)
    real, calls = module.train_step, []

    def dies(*args: object) -> float:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        pretrain(tmp_path / "cut", small(6), Mix(turns=2), hidden=32, layers=1)
    monkeypatch.setattr(module, "train_step", real)
    cut = pretrain(tmp_path / "cut", small(6), Mix(turns=2), hidden=32, layers=1)
    assert (whole / "model.safetensors").read_bytes() == (cut / "model.safetensors").read_bytes()
    assert not (cut / "pretraining.pt").exists()


def test_the_loss_falls(tmp_path) -> None:
    torch.set_num_threads(1)
    folder = pretrain(
        tmp_path / "m", Recipe(steps=50, batch=4, fresh=2, pool=8, warmup=5, save_every=100), Mix(), hidden=64, layers=1
    )
    loss = next(iter(read_jsonl(folder / "curve.jsonl")))["loss"]
    assert loss < 5.9  # the mean of all 50 steps; a uniform guess costs ln(960) = 6.9


def test_batches_hold_new_videos_and_old_ones() -> None:
    recipe = Recipe(batch=16, fresh=4, pool=100)
    drawn = batch_indices(500, recipe, np.random.default_rng(0))
    assert drawn[:4] == [2000, 2001, 2002, 2003]
    assert all(1904 <= i < 2004 for i in drawn[4:])
    video = lesson_videos(Mix(), keep=2)
    assert video(3)[1] is video(3)[1]


def test_orthogonalise_pulls_singular_values_towards_one() -> None:
    torch.manual_seed(0)
    for shape in ((3, 24, 40), (2, 40, 24)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.min() > 0.3
        assert values.max() < 1.4


def test_the_update_is_torchs_muon() -> None:
    torch.manual_seed(0)
    start, gradient = torch.randn(24, 40), torch.randn(24, 40)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    pair = (BatchedMuon([ours], lr=0.1), torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"))
    for step in range(3):
        for parameter, optimizer in zip((ours, theirs), pair, strict=True):
            parameter.grad = gradient * (step + 1)
            optimizer.step()
    # torch's runs in bfloat16, so the two agree to its precision
    assert torch.allclose(ours, theirs, atol=0.02)
    assert not torch.allclose(ours, start, atol=0.02)


def test_the_tokenizer_of_lessons_is_the_models() -> None:
    ids = build_tokenizer()("when: the red circle is there?")["input_ids"]
    assert len(ids) == 8


def test_positions_are_refused_for_a_family_that_has_none(tmp_path) -> None:
    with pytest.raises(Timer1Error, match="--family qwen2_5_vl"):
        pretrain(tmp_path / "m", Recipe(steps=1), Mix(), "qwen3_vl", textual=False)
    assert not (tmp_path / "m").exists()
