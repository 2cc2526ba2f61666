"""The tiny model folder: real classes, a lossless tokenizer, times in two tokens."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timer1lib.errors import Timer1Error
from timer1lib.world.base.tiny import build_tiny, build_tokenizer, parameter_count
from timer1lib.world.lexicon import vocabulary

TOKENIZER = build_tokenizer()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_comes_back(text: str) -> None:
    if any(token in text for token in TOKENIZER.all_special_tokens):
        return
    text = text.encode("utf-8", "ignore").decode()
    assert TOKENIZER.decode(TOKENIZER(text)["input_ids"]) == text


@given(st.integers(0, 1999))
def test_a_time_is_two_tokens_wherever_it_stands(tenths: int) -> None:
    time = f"{tenths / 10:.1f}"
    for before in ("<", "<answer>", " to "):
        whole = TOKENIZER.tokenize(f"{before}{time}")
        assert len(whole) == len(TOKENIZER.tokenize(before.rstrip())) + 2


def test_every_word_of_the_world_is_one_token() -> None:
    for word in vocabulary():
        assert len(TOKENIZER.tokenize(word)) == 1
        assert len(TOKENIZER.tokenize(f" {word}")) == 1


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_auto_classes_load_it_and_it_is_small(family: str, tmp_path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = build_tiny(tmp_path / family, family, seed=1)  # type: ignore[arg-type]
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    assert type(model).__name__.startswith("Qwen3VL" if family == "qwen3_vl" else "Qwen2_5_VL")
    assert type(processor).__name__.startswith("Qwen3VL" if family == "qwen3_vl" else "Qwen2_5_VL")
    count = sum(p.numel() for p in model.parameters())
    assert count == parameter_count(folder)
    assert 1e6 <= count <= 5e6
    assert sum(f.stat().st_size for f in folder.iterdir()) < 10e6


def test_seeds_make_different_weights_and_the_same_seed_the_same(tmp_path) -> None:
    a, b, c = (build_tiny(tmp_path / name, seed=seed) / "model.safetensors" for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert a.read_bytes() == b.read_bytes() != c.read_bytes()


def test_a_width_that_is_no_multiple_of_a_head_is_refused(tmp_path) -> None:
    with pytest.raises(Timer1Error, match="multiple of 32"):
        build_tiny(tmp_path, hidden=100)
