"""The rule inside a real model: prefill, decoding, scoring, left padding, LoRA, and what the library does without it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from timer1lib.clock.frames import Frames
from timer1lib.clock.rule import probe_example
from timer1lib.errors import Timer1Error
from timer1lib.models.inputs import banned_token_ids, collate, encode_prompt
from timer1lib.models.load import LoadedModel, load_model
from timer1lib.world.base.tiny import build_tiny

IS_5_23 = transformers.__version__.startswith("5.23.")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: build_tiny(root / family, family=family, hidden=64, layers=2) for family in ("qwen3_vl", "qwen2_5_vl")}


@pytest.fixture(params=["qwen3_vl", "qwen2_5_vl"])
def loaded(request: pytest.FixtureRequest, folders: dict[str, Path]) -> LoadedModel:
    return load_model(folders[request.param], dtype="float64")


def some_frames(count: int, seed: int = 0, step: float = 1.7) -> Frames:
    pixels = np.random.default_rng(seed).integers(0, 255, (count, 56, 56, 3), dtype=np.uint8)
    return Frames(pixels, np.arange(count) * step, count * step, step, "test")


def prompt(loaded: LoadedModel, count: int, text: str, seed: int = 0) -> dict[str, torch.Tensor]:
    batch = encode_prompt(loaded, some_frames(count, seed), text)
    return {**batch, "pixel_values_videos": batch["pixel_values_videos"].double()}


class Positions:
    """Position ids that reach the text model, call by call."""

    def __init__(self, model: Any) -> None:
        self.seen: list[torch.Tensor] = []
        self._hook = model.model.language_model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: Any, args: Any, kwargs: Any) -> None:
        self.seen.append(kwargs["position_ids"].clone()[-3:])

    def __enter__(self) -> Positions:
        return self

    def __exit__(self, *error: object) -> None:
        self._hook.remove()


def test_the_installed_rule_of_this_version(folders: dict[str, Path]) -> None:
    loaded = load_model(folders["qwen2_5_vl"], clock_rule="installed")
    ids, deltas = loaded.model.model.get_rope_index(**probe_example_of(loaded))
    if IS_5_23:
        assert ids[0, 0, -5:].tolist() == [2, 3, 4, 5, 6]
        assert int(deltas) == 101 - 17
        assert not loaded.rule.agrees
        assert load_model(folders["qwen2_5_vl"]).rule.name == "published"
        assert load_model(folders["qwen3_vl"]).rule.name == "installed"
    else:
        assert loaded.rule.agrees == (ids[0, 0, -5:].tolist() == [101, 102, 103, 104, 105])


def probe_example_of(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    from timer1lib.clock.positions import PositionConfig

    return probe_example(PositionConfig(loaded.geometry.merge, loaded.geometry.tokens_per_second))


def test_the_published_rule_is_used_where_it_is_asked_for(folders: dict[str, Path]) -> None:
    loaded = load_model(folders["qwen2_5_vl"], clock_rule="published")
    ids, deltas = loaded.model.model.get_rope_index(**probe_example_of(loaded))
    assert ids[0, 0].tolist() == [0] * 4 + [50] * 4 + [100] * 4 + [101, 102, 103, 104, 105]
    assert int(deltas) == 89
    assert "published" in loaded.rule.text


def test_decoding_goes_on_where_the_prompt_ended_in_a_left_padded_batch(loaded: LoadedModel) -> None:
    rows = [prompt(loaded, 6, "when: a cat?"), prompt(loaded, 3, "when: a small red ball moves?", seed=1)]
    batch = collate(loaded, rows, side="left")
    with torch.inference_mode(), Positions(loaded.model) as positions:
        out = loaded.model.generate(
            **batch, max_new_tokens=4, min_new_tokens=4, do_sample=False, suppress_tokens=banned_token_ids(loaded),
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
    alone, _ = zip(*(loaded.model.model.get_rope_index(**without_pixels(row)) for row in rows), strict=True)
    prefill = positions.seen[0]
    for i, row in enumerate(rows):
        length = row["input_ids"].shape[1]
        assert torch.equal(prefill[:, i, -length:], alone[i][:, 0])
        end = int(alone[i].max())
        assert [step[:, i, 0].tolist() for step in positions.seen[1:]] == [[end + k] * 3 for k in range(1, 4)]
    scored = score(loaded, batch, out.sequences[:, batch["input_ids"].shape[1] :])
    torch.testing.assert_close(torch.stack(out.logits, dim=1), scored.float(), rtol=1e-5, atol=1e-6)


def without_pixels(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in batch.items() if key != "pixel_values_videos"}


def score(loaded: LoadedModel, batch: dict[str, torch.Tensor], answer: torch.Tensor) -> torch.Tensor:
    """Logits for each answer token in one forward over prompt and answer."""
    ones = torch.ones_like(answer)
    joined = {
        **batch,
        "input_ids": torch.cat([batch["input_ids"], answer], 1),
        "attention_mask": torch.cat([batch["attention_mask"], ones], 1),
        "mm_token_type_ids": torch.cat([batch["mm_token_type_ids"], 0 * ones], 1),
    }
    with torch.inference_mode():
        logits: torch.Tensor = loaded.model(**joined).logits[:, -answer.shape[1] - 1 : -1]
    return logits


@pytest.mark.skipif(not IS_5_23, reason="the fault is that of transformers 5.23")
def test_the_installed_rule_lets_generated_tokens_jump(folders: dict[str, Path]) -> None:
    loaded = load_model(folders["qwen2_5_vl"], dtype="float64", clock_rule="installed")
    batch = prompt(loaded, 8, "when: a cat?")
    ids, deltas = loaded.model.model.get_rope_index(**without_pixels(batch))
    assert int(ids[0, 0, -1]) + 1 != batch["input_ids"].shape[1] + int(deltas)


def test_padding_and_company_change_nothing(loaded: LoadedModel) -> None:
    rows = [prompt(loaded, 5, "when: a cat?"), prompt(loaded, 2, "when: a red ball moves up?", seed=1)]
    with torch.inference_mode():
        alone = [loaded.model(**row).logits[0, -1] for row in rows]
        for side, at in (("left", [-1, -1]), ("right", [row["input_ids"].shape[1] - 1 for row in rows])):
            together = loaded.model(**collate(loaded, rows, side=side)).logits
            for i in range(2):
                torch.testing.assert_close(together[i, at[i]], alone[i], rtol=1e-8, atol=1e-8)


def test_lora_wrappers_and_copies_keep_the_rule(folders: dict[str, Path]) -> None:
    from peft import LoraConfig, get_peft_model

    loaded = load_model(folders["qwen2_5_vl"], dtype="float64", clock_rule="published")
    batch = prompt(loaded, 8, "when: a cat?")
    expected, _ = loaded.model.model.get_rope_index(**without_pixels(batch))
    duplicate = copy.deepcopy(loaded.model)
    assert duplicate.model.get_rope_index.__self__ is duplicate.model
    wrapped = get_peft_model(loaded.model, LoraConfig(target_modules=["q_proj", "v_proj"], r=2))
    for model, core in ((wrapped, wrapped.get_base_model()), (duplicate, duplicate)):
        with torch.inference_mode(), Positions(core) as positions:
            model(**batch)
            model.generate(**batch, max_new_tokens=2, min_new_tokens=2, do_sample=False)
        assert torch.equal(positions.seen[0], expected)
        assert torch.equal(positions.seen[1], expected)
        assert positions.seen[2].flatten().tolist() == [int(expected.max()) + 1] * 3
    assert loaded.family.install_rule(wrapped, "installed").name == "installed"


def test_missing_token_types_are_worked_out_instead_of_falling_back(loaded: LoadedModel) -> None:
    batch = prompt(loaded, 6, "when: a cat?")
    bare = {key: value for key, value in batch.items() if key != "mm_token_type_ids"}
    with torch.inference_mode(), Positions(loaded.model) as positions:
        loaded.model(**batch)
        loaded.model(**bare)
        loaded.model.generate(**bare, max_new_tokens=2, min_new_tokens=2, do_sample=False)
    assert torch.equal(positions.seen[0], positions.seen[1])
    assert torch.equal(positions.seen[0], positions.seen[2])
    assert int(positions.seen[3].max()) == int(positions.seen[0].max()) + 1


def test_a_video_without_its_time_step_is_an_error(folders: dict[str, Path]) -> None:
    for rule in ("published", "installed"):
        loaded = load_model(folders["qwen2_5_vl"], dtype="float64", clock_rule=rule)
        batch = prompt(loaded, 6, "when: a cat?")
        del batch["second_per_grid_ts"]
        with pytest.raises(Timer1Error, match="second_per_grid_ts"):
            loaded.model(**batch)


def test_the_rule_changes_what_the_model_says(folders: dict[str, Path]) -> None:
    answers = []
    for rule in ("published", "wrong_text"):
        loaded = load_model(folders["qwen2_5_vl"], dtype="float64", clock_rule=rule)
        with torch.inference_mode():
            answers.append(loaded.model(**prompt(loaded, 8, "when: a cat?")).logits[0, -1])
    assert (answers[0] - answers[1]).abs().max() > 1e-6
