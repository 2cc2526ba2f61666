"""One adapter a family: nobody else knows names, a third family is one class and one entry, unknown ones are refused."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from grpo_runs import some_frames
from tiny_kinds import KINDS, build_kind

from timer1lib.errors import Timer1Error
from timer1lib.inference.clock_report import clock_report
from timer1lib.models.config import FAMILIES, architecture_of, family_of_model, pixel_factor, temporal_rate
from timer1lib.models.features import VideoFeatures, accept_features, tower_features, tower_hash
from timer1lib.models.inputs import banned_token_ids, collate, encode_prompt
from timer1lib.models.load import LoadedModel, load_model
from timer1lib.models.qwen3_vl import Qwen3VL
from timer1lib.world.base.tiny import build_tiny

ROOT = Path(__file__).resolve().parent.parent
SMALL: dict[str, Any] = {"hidden": 32, "layers": 2, "vision_hidden": 32, "vision_depth": 2}
INTERNAL = re.compile(
    r"(qwen|deepstack|fullatt|interp_)\w*|model_type|window_(size|index)|\w*_window_seqlens|\w*merger(?!s$)\w*", re.I
)
MAKES_MODELS = ("models/", "world/base/", "cli.py")  # the last for `timer1 pretrain --family`


def names_in(source: str) -> set[str]:
    """Identifiers and whole string constants of a module; docstrings and comments are prose."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            found.add(node.value)
    return found


def test_the_search_finds_what_it_is_to_find() -> None:
    source = (
        '"""qwen3_vl"""\nif config.model_type == "qwen3_vl" or hasattr(tower, "window_size"):\n    tower.deepstack_merger_list'
    )
    found = {name for name in names_in(source) if INTERNAL.fullmatch(name)}
    assert found == {"model_type", "qwen3_vl", "window_size", "deepstack_merger_list"}


def test_nobody_else_asks_for_a_familys_names() -> None:
    found = {}
    for path in sorted((ROOT / "timer1lib").rglob("*.py")):
        place = path.relative_to(ROOT / "timer1lib").as_posix()
        if not place.startswith(MAKES_MODELS):
            asked = sorted(name for name in names_in(path.read_text()) if INTERNAL.fullmatch(name))
            if asked:
                found[place] = asked
    assert found == {}


class Third(Qwen3VL):
    """A made-up family: Qwen3-VL's classes under other names."""

    name = "third_vl"
    title = "Third-VL"
    tower_type = "third_vl_vision"
    hub_mark = "third"
    factor = 36


@pytest.fixture
def third(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the made-up family, whose adapter is one class and one entry."""
    from transformers import AutoConfig, AutoModelForImageTextToText, Qwen3VLConfig, Qwen3VLForConditionalGeneration

    class ThirdConfig(Qwen3VLConfig):
        model_type = "third_vl"

    class ThirdForConditionalGeneration(Qwen3VLForConditionalGeneration):
        config_class = ThirdConfig

    folder = build_tiny(tmp_path / "third", "qwen3_vl", **SMALL)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"model_type": "third_vl", "architectures": ["ThirdForConditionalGeneration"]})
    )
    AutoConfig.register("third_vl", ThirdConfig, exist_ok=True)
    AutoModelForImageTextToText.register(ThirdConfig, ThirdForConditionalGeneration, exist_ok=True)
    monkeypatch.setitem(FAMILIES, "third_vl", Third())
    return folder


def test_a_third_family_is_one_class_and_one_entry(third: Path, tmp_path: Path) -> None:
    loaded = load_model(third)
    assert loaded.family.title == "Third-VL"
    twin = load_model(build_tiny(tmp_path / "twin", "qwen3_vl", **SMALL))
    frames = some_frames(0, 6)
    batch, same = (encode_prompt(each, frames, "when: a cat?", "<answer>1.0 to 2.0</answer>") for each in (loaded, twin))
    assert batch["input_ids"].equal(same["input_ids"])
    with torch.no_grad():
        assert torch.equal(loaded.model(**batch).logits, twin.model(**same).logits)
    from timer1lib.training.common import freeze_vision_tower, lora_config

    freeze_vision_tower(loaded.model)
    trained = {name.split(".")[2] for name, p in loaded.model.named_parameters() if p.requires_grad and ".visual." in name}
    assert trained == {"merger", "deepstack_merger_list"}
    freeze_vision_tower(loaded.model, last_only=True)
    trained = {name.split(".")[2] for name, p in loaded.model.named_parameters() if p.requires_grad and ".visual." in name}
    assert trained == {"merger"}
    assert lora_config(4, loaded.family).r == 4
    assert tower_hash(accept_features(loaded.model)) == tower_hash(twin.model)
    report = clock_report_of(loaded, tmp_path)
    assert (report["family"], report["warnings"]) == ("third_vl", [])


def clock_report_of(loaded: LoadedModel, folder: Path) -> dict[str, Any]:
    from timer1lib.world.render import write_video
    from timer1lib.world.scene import sample_scene

    write_video(sample_scene(3, 0.1), folder / "clip.mp4")
    return clock_report(folder / "clip.mp4", loaded=loaded)


def test_what_is_read_without_weights_asks_the_third_family_too(third: Path) -> None:
    assert architecture_of(str(third)).deepstack == 1
    assert temporal_rate({"model_type": "third_vl"}, "m") is None
    assert pixel_factor("somebody/third-vl-9b") == 36
    with pytest.raises(Timer1Error, match="Third-VL has no temporal positions"):
        temporal_rate({}, "somebody/third-vl-9b", "positions")


def test_an_unknown_family_is_refused_in_one_line(third: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(FAMILIES, "third_vl")
    line = r"^model .* is of type 'third_vl'; this project runs qwen2_5_vl and qwen3_vl$"
    for ask in (load_model, architecture_of, lambda name: temporal_rate(json.loads((third / "config.json").read_text()), name)):
        with pytest.raises(Timer1Error, match=line):
            ask(str(third))


@pytest.fixture(scope="module", params=KINDS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(build_kind(tmp_path_factory.mktemp("m") / request.param, request.param, **SMALL))


def test_answers_from_features_are_those_from_pixels_to_the_bit(loaded: LoadedModel) -> None:
    videos = {"one": some_frames(1, 8), "two": some_frames(2, 6)}
    keys = ["one", "two", "one"]
    rows = [
        encode_prompt(loaded, videos[key], f"when: a {word}?") for key, word in zip(keys, ("cat", "dog", "ball"), strict=True)
    ]
    features = VideoFeatures(loaded)
    options = {"max_new_tokens": 6, "do_sample": False, "suppress_tokens": banned_token_ids(loaded)}
    with torch.inference_mode():
        for row, key in zip(rows, keys, strict=True):
            given = features.replace_pixels(row, [row], [key])
            assert given["pixel_values_videos"].ndim == 4
            assert torch.equal(loaded.model(**given).logits, loaded.model(**row).logits)
        batch = collate(loaded, rows)
        given = features.replace_pixels(batch, rows, keys)
        assert torch.equal(loaded.model.generate(**given, **options), loaded.model.generate(**batch, **options))
        twice = loaded.model.generate(**given, **options | {"do_sample": True, "num_return_sequences": 2})
    assert twice.shape[0] == 6
    assert features.computed == 2


def test_a_batch_of_features_gives_the_logits_of_the_librarys_own_way(loaded: LoadedModel) -> None:
    """transformers 5.23 takes each video's features as `mm_encoder_outputs`: the same numbers, to the bit."""
    if "mm_encoder_outputs" not in inspect.signature(loaded.model.forward).parameters:
        pytest.skip("this transformers has no such argument")
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    rows = [encode_prompt(loaded, some_frames(seed, 8), "when: a cat?") for seed in (1, 2, 3)]
    batch = collate(loaded, rows)
    with torch.inference_mode():
        outputs = [loaded.model.get_video_features(r["pixel_values_videos"], r["video_grid_thw"], return_dict=True) for r in rows]
        joined: Any = BaseModelOutputWithPooling(pooler_output=tuple(piece for out in outputs for piece in out.pooler_output))
        if "deepstack_features" in outputs[0]:
            levels = zip(*(out.deepstack_features for out in outputs), strict=True)
            joined.deepstack_features = [tuple(piece for video in level for piece in video) for level in levels]
        own = {key: value for key, value in batch.items() if key != "pixel_values_videos"}
        expected = loaded.model(**own, mm_encoder_outputs={"video": joined}).logits
        given = VideoFeatures(loaded).replace_pixels(batch, rows, [1, 2, 3])
        assert torch.equal(loaded.model(**given).logits, expected)


def test_the_familys_object_reads_its_own_tower(loaded: LoadedModel) -> None:
    family = family_of_model(loaded.model)
    assert family is loaded.family
    assert family_of_model(family.tower(loaded.model)) is family
    row = encode_prompt(loaded, some_frames(1, 8), "when: a cat?")
    width = int(loaded.model.config.vision_config.hidden_size)
    features = tower_features(loaded.model, row["pixel_values_videos"], row["video_grid_thw"])
    assert features.shape[2] == width * len(family.mergers(family.tower(loaded.model)))
    assert np.isfinite(features.numpy()).all()
