"""Decoding is ours: a folder's generation_config.json changes no answer, no rollout and no likelihood."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from grpo_runs import tiny_folder, trainer
from make_videos import write_video
from tiny_kinds import build_kind

from timer1lib.errors import Timer1Error
from timer1lib.files import read_json
from timer1lib.inference.generate import predict
from timer1lib.inference.ground import ground
from timer1lib.inference.likelihood import choose
from timer1lib.models.load import load_model
from timer1lib.params.sections import SharedParams
from timer1lib.schema import Sample

FOREIGN = {
    "repetition_penalty": 1.7, "temperature": 0.1, "top_k": 1, "top_p": 0.01, "do_sample": True, "no_repeat_ngram_size": 1,
    "min_new_tokens": 3, "max_length": 40, "eos_token_id": [100, 101], "num_beams": 2, "length_penalty": 3.0, "max_time": 1e-6,
}  # fmt: skip


def with_foreign_config(folder: Path) -> Path:
    copy = folder.with_name(folder.name + "_foreign")
    shutil.copytree(folder, copy)
    plain = json.loads((folder / "generation_config.json").read_text())
    (copy / "generation_config.json").write_text(json.dumps(plain | FOREIGN))
    return copy


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("decoding")
    folder = build_kind(root / "plain", "qwen3_vl", seed=3)
    video = write_video(root / "v.mp4", [i * 200 for i in range(20)])
    samples = [Sample(f"s{i}", "v.mp4", query, 4.0) for i, query in enumerate(("a red circle", "the wall turns blue"))]
    return {"root": root, "plain": folder, "foreign": with_foreign_config(folder), "video": video, "samples": samples}


def loud(folder: Path) -> Any:
    """The model with larger weights: a random one hardly looks at what it is shown."""
    loaded = load_model(folder, device="cpu")
    with torch.no_grad():
        for name, weight in loaded.model.named_parameters():
            if weight.ndim > 1 and "embed" not in name:
                weight.mul_(4)
    return loaded


def asked(material: dict[str, Any], folder: str, out: Path, **options: Any) -> tuple[list[str], dict[str, Any]]:
    shared = SharedParams(frames=4, cache_dir=str(material["root"] / "cache"), workers=0)
    loaded = loud(material[folder])
    answers = predict(
        loaded, material["samples"], lambda s: material["video"], shared, out,
        max_new_tokens=12, batch_size=2, **options,
    )  # fmt: skip
    return [str(a.completion) for a in answers], read_json(out.with_suffix(".meta.json"))["settings"]


def test_answers_do_not_depend_on_the_folders_generation_config(material: dict[str, Any], tmp_path: Path) -> None:
    plain, settings = asked(material, "plain", tmp_path / "a.jsonl")
    foreign, theirs = asked(material, "foreign", tmp_path / "b.jsonl")
    assert plain == foreign
    assert settings["weights"] == theirs["weights"]
    assert settings["decoding"] == theirs["decoding"]
    told = settings["decoding"]
    assert (told["do_sample"], told["num_beams"], told["repetition_penalty"], told["no_repeat_ngram_size"]) == (False, 1, 1.0, 0)
    assert told["eos_token_id"] == [2]
    assert told["max_new_tokens"] == 12
    sampled = {"temperature": 1.0, "num_samples": 2}
    assert (
        asked(material, "plain", tmp_path / "c.jsonl", **sampled)[0]
        == asked(material, "foreign", tmp_path / "d.jsonl", **sampled)[0]
    )
    # the control: left to itself, the library follows the folder
    from transformers import GenerationConfig

    loaded = loud(material["foreign"])
    assert loaded.model.generation_config.repetition_penalty is None
    prompt = torch.tensor([[5, 6, 7, 8, 9]])
    ours = loaded.model.generate(prompt, max_new_tokens=12, do_sample=False)
    loaded.model.generation_config = GenerationConfig.from_pretrained(material["foreign"])
    assert not torch.equal(ours, loaded.model.generate(prompt, max_new_tokens=12, do_sample=False, num_beams=1, max_time=None))


def test_a_penalty_that_is_named_counts_and_is_told(material: dict[str, Any], tmp_path: Path) -> None:
    plain, _ = asked(material, "plain", tmp_path / "a.jsonl")
    punished, settings = asked(material, "plain", tmp_path / "b.jsonl", repetition_penalty=1.7)
    assert punished != plain
    assert settings["decoding"]["repetition_penalty"] == 1.7
    with pytest.raises(Timer1Error, match="repetition_penalty"):
        asked(material, "plain", tmp_path / "c.jsonl", repetition_penalty=0.0)


def test_ground_and_likelihood_do_not_depend_on_it_either(material: dict[str, Any], tmp_path: Path) -> None:
    shared = SharedParams(frames=4, cache_dir=str(tmp_path / "cache"), workers=0)
    questions = [Sample("q", "v.mp4", "what moves?", 4.0, options=["a cat", "a dog", "a bus"], answer=0)]
    seen = []
    for folder in ("plain", "foreign"):
        loaded = loud(material[folder])
        span = ground(material["video"], "a red circle", loaded=loaded, shared=shared, max_new_tokens=12)
        choice = choose(loaded, questions, lambda s: material["video"], shared, tmp_path / f"{folder}.jsonl", batch_size=1)
        seen.append((span["completion"], choice[0].completion))
    assert seen[0] == seen[1]
    assert seen[0][0]


@pytest.mark.parametrize("rollouts", ["shared_prefix", "repeated"])
def test_rollouts_do_not_depend_on_it(rollouts: str, tmp_path: Path) -> None:
    plain = tiny_folder(tmp_path / "tiny")
    seen: list[Any] = []
    for folder in (plain, with_foreign_config(plain)):
        rows: list[Any] = []
        made, _ = trainer(folder, tmp_path, max_steps=1, rollouts=rollouts, on_rollouts=lambda _, r, rows=rows: rows.extend(r))
        made.train()
        assert made.eos_token_ids == [2]
        seen.append(rows)
    assert seen[0] == seen[1]
    assert any(len(set(row["completions"])) > 1 for row in seen[0])
