"""Nothing of a finished phase stays alive, and how much is computed together follows free memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import test_stage_training
import torch
from make_videos import write_video
from test_stage_training import GRPO, SFT, new_run

from timer1lib.inference.generate import predict
from timer1lib.models import memory
from timer1lib.models.load import load_model
from timer1lib.params.sections import SharedParams
from timer1lib.schema import Sample
from timer1lib.stages import grpo, open_stage, sft
from timer1lib.training import common
from timer1lib.training.video_grpo.trainer import VideoGRPOTrainer
from timer1lib.world.base.tiny import build_tiny

trained_on, length_reward = test_stage_training.material, test_stage_training.length_reward  # fixtures


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is freed is freed by its last name going, or by the code under test itself."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def watched(monkeypatch: pytest.MonkeyPatch, *modules: Any) -> list[weakref.ref[Any]]:
    """Weak references to every model that is loaded from now on."""
    seen: list[weakref.ref[Any]] = []
    for module in modules:
        real = module.load_shared

        def load(*args: Any, real: Any = real, **kwargs: Any) -> Any:
            loaded = real(*args, **kwargs)
            seen.append(weakref.ref(loaded.model))
            return loaded

        monkeypatch.setattr(module, "load_shared", load)
    return seen


def test_models_and_trainers_end_with_their_phase(
    trained_on: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_collector: None,
) -> None:
    from timer1lib.models import load

    seen = watched(monkeypatch, common, load)
    real = VideoGRPOTrainer.__init__
    alive: list[int] = []

    def noticed(self: Any, *args: Any, **kwargs: Any) -> None:
        alive.append(sum(ref() is not None for ref in seen[:-1]))  # all but the model that this trainer has just been given
        seen.append(weakref.ref(self))
        real(self, *args, **kwargs)

    monkeypatch.setattr(VideoGRPOTrainer, "__init__", noticed)
    options = new_run(tmp_path, trained_on)
    sft.train(open_stage("sft", options | SFT | {"steps": 1}))
    assert len(seen) == 1
    assert seen[0]() is None
    grpo.train(open_stage("grpo", options | GRPO | {"schedule": "sample_filtering", "filter_high": 1.0, "filter_low": 0.0}))
    assert alive
    assert set(alive) == {0}  # no epoch begins with the model of the one before, or of the measuring between them
    assert len(seen) >= 3
    assert [ref() for ref in seen] == [None] * len(seen)


def test_a_model_that_answered_goes_with_its_last_name(tmp_path: Path, no_collector: None) -> None:
    folder = build_tiny(tmp_path / "m", "qwen2_5_vl", hidden=32, layers=1)
    video = write_video(tmp_path / "v.mp4", [i * 200 for i in range(20)])
    loaded = load_model(folder, device="cpu")
    shared = SharedParams(frames=4, cache_dir=str(tmp_path / "cache"), workers=0)
    samples = [Sample("s", "v.mp4", "a red circle", 4.0)]
    predict(loaded, samples, lambda s: video, shared, tmp_path / "a.jsonl", max_new_tokens=4, batch_size=1)
    model = weakref.ref(loaded.model)
    del loaded
    assert model() is None


def test_what_is_sampled_together_follows_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(build_tiny(tmp_path / "m", "qwen3_vl", hidden=32, layers=2), device="cpu").model
    text = model.config.get_text_config()
    # by hand: 2 (keys, values) x layers x key heads x width of a head x 4 bytes a token, for 100 + 8 x 20 tokens ...
    keys = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * 4 * (100 + 8 * 20)
    # ... a layer of the prompt, and the logits of 8 completions as float32 and twice as float64
    layer = 100 * (6 * text.hidden_size + 2 * text.num_attention_heads * text.head_dim + 3 * text.intermediate_size) * 4
    logits = 8 * text.vocab_size * 20
    for prompts in (1, 3, 50):
        monkeypatch.setattr(memory, "free_bytes", lambda _, n=prompts: int((n + 0.5) * (keys + layer + logits) / 0.4))
        assert memory.prompts_together(model, 100, 8, 20) == prompts
        assert memory.rollout_tokens(model, 100, 8, 20) == prompts * 100
    monkeypatch.setattr(memory, "free_bytes", lambda _: 0)
    assert memory.prompts_together(model, 100, 8, 20) == 1
    monkeypatch.setattr(memory, "free_bytes", lambda _: 10**15)
    assert memory.rollout_tokens(model, 100, 8, 20) == memory.ROLLOUT_TOKENS
    monkeypatch.undo()
    assert 0 < memory.free_bytes(torch.device("cpu")) < 10**15
