"""The number of processes does not change a run: 02 to 05 with one rank and with two, killed, resumed and sharded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from timer1lib.files import atomic_write_json, atomic_write_jsonl, read_json, read_jsonl
from timer1lib.runfolder import RunFolder
from timer1lib.stages import grpo, open_stage, sft
from timer1lib.world.base import lessons as answers
from timer1lib.world.splits import build_splits

RANKS = True
SHARED = {"model": "assets/tiny-qwen3-vl", "frames": 8, "total_pixels": 4 * 56 * 56, "workers": 0, "device": "cpu", "threads": 1}
SFT = {"steps": 20, "batch_size": 6, "micro_batch_size": 6, "samples": 0, "save_every": 10, "learning_rate": 1e-4}
GRPO = {
    "epochs": 1, "steps_per_epoch": 20, "prompts_per_step": 4, "num_generations": 4, "save_every": 10, "log_rollouts_every": 1,
    "schedule": "multi_epoch", "learning_rate": 1e-4, "warmup_steps": 0, "max_completion_length": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    samples = build_splits(folder / "world", train_videos=10, test_videos=0, ood_videos=0, questions=0, workers=0)["train"]
    run = RunFolder(folder / "run")
    run.set_video_root(folder / "world")
    run.write_samples("train", samples)
    run.write_samples("selected", samples[:14])
    atomic_write_json(run.data("splits.json"), {"train": {"kind": "grounding", "n": len(samples)}})
    atomic_write_jsonl(
        run.data("cold_start"), [{**s.to_json(), "completion": answers.chain_of_thought(s.window)} for s in samples[:16]]
    )
    return folder


def new_run(world: Path, folder: Path, processes: int, **more: Any) -> dict[str, Any]:
    """A run of its own on the module's videos."""
    shutil.copytree(world / "run" / "data", folder / "data")
    return {"run_dir": str(folder), "cache_dir": str(world / "cache"), **SHARED, "processes": processes, **more}


def sft_run(world: Path, folder: Path, processes: int, **more: Any) -> RunFolder:
    stage = open_stage("sft", new_run(world, folder, processes) | SFT | more)
    sft.train(stage)
    stage.finish()
    return RunFolder(folder)


def grpo_run(world: Path, folder: Path, processes: int, **more: Any) -> RunFolder:
    stage = open_stage("grpo", new_run(world, folder, processes) | GRPO | more)
    grpo.train(stage)
    stage.finish()
    return RunFolder(folder)


def furthest(one: RunFolder, two: RunFolder, name: str) -> float:
    """The largest difference of two runs' weights."""
    a, b = (load_file(run.checkpoint(name) / "model.safetensors") for run in (one, two))
    assert a.keys() == b.keys()
    return max((a[key] - b[key]).abs().max().item() for key in a)


def logged(run: RunFolder, name: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith("time/") and k != "step_time"} for row in read_jsonl(run.log(name))]


def test_sft_with_two_ranks_is_sft_with_one(world: Path, tmp_path: Path) -> None:
    one, two = sft_run(world, tmp_path / "one", 1), sft_run(world, tmp_path / "two", 2)
    moved = load_file("assets/tiny-qwen3-vl/model.safetensors")
    assert (
        max((v - moved[k]).abs().max().item() for k, v in load_file(one.checkpoint("sft") / "model.safetensors").items()) > 1e-4
    )
    for a, b in zip(logged(one, "sft"), logged(two, "sft"), strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    assert furthest(one, two, "sft") < 1e-5


def test_grpo_with_two_ranks_is_grpo_with_one(world: Path, tmp_path: Path) -> None:
    one, two = grpo_run(world, tmp_path / "one", 1), grpo_run(world, tmp_path / "two", 2)
    assert list(read_jsonl(one.log("rollouts"))) == list(read_jsonl(two.log("rollouts")))
    for a, b in zip(logged(one, "grpo"), logged(two, "grpo"), strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    assert furthest(one, two, "grpo") < 1e-5


def test_sharded_weights_train_as_whole_ones_and_are_saved_as_an_ordinary_folder(world: Path, tmp_path: Path) -> None:
    few = {"steps": 6, "save_every": 4}
    whole, sharded = (sft_run(world, tmp_path / kind, 2, parallel=kind, **few) for kind in ("ddp", "fsdp2"))
    assert furthest(whole, sharded, "sft") < 1e-5
    few = {"steps_per_epoch": 6, "save_every": 4}
    whole, sharded = (grpo_run(world, tmp_path / f"{kind}-grpo", 2, parallel=kind, **few) for kind in ("ddp", "fsdp2"))
    assert list(read_jsonl(whole.log("rollouts"))) == list(read_jsonl(sharded.log("rollouts")))
    assert furthest(whole, sharded, "grpo") < 1e-5


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_adapters_train_alike_on_two_ranks(world: Path, tmp_path: Path, parallel: str) -> None:
    few = {"steps": 4, "lora_rank": 4, "learning_rate": 1e-3}
    one, two = sft_run(world, tmp_path / "one", 1, **few), sft_run(world, tmp_path / "two", 2, parallel=parallel, **few)
    assert furthest(one, two, "sft") < 1e-5
    few = {"steps_per_epoch": 4, "lora_rank": 4, "learning_rate": 1e-3}
    one, two = grpo_run(world, tmp_path / "g1", 1, **few), grpo_run(world, tmp_path / "g2", 2, parallel=parallel, **few)
    assert list(read_jsonl(one.log("rollouts"))) == list(read_jsonl(two.log("rollouts")))
    assert furthest(one, two, "grpo") < 1e-5


def test_what_grpo_has_besides_is_the_same_on_two_ranks(world: Path, tmp_path: Path) -> None:
    more = {
        "steps_per_epoch": 6, "beta": 0.02, "dynamic_sampling": 2, "entropy_coefficient": 1e-2, "groups_per_forward": 2,
        "loss_type": "grpo", "epochs": 2, "phase_policy": "carry", "schedule": "sample_filtering", "filter_high": 1.0,
    }  # fmt: skip
    runs = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        options = new_run(world, folder, processes) | GRPO | more
        videos = read_json(folder / "data" / "videos.json")
        broken = [row["video"] for row in read_jsonl(folder / "data" / "selected.jsonl")][2]
        atomic_write_json(folder / "data" / "videos.json", videos | {"damaged": {broken: "torn in the middle"}})
        stage = open_stage("grpo", options)
        grpo.train(stage)
        stage.finish()
        runs.append(RunFolder(folder))
    one, two = runs
    assert list(read_jsonl(one.log("rollouts"))) == list(read_jsonl(two.log("rollouts")))
    assert any(row["groups_failed"] for row in logged(one, "grpo"))
    assert any(row["groups_resampled"] for row in logged(one, "grpo"))
    for a, b in zip(logged(one, "grpo"), logged(two, "grpo"), strict=True):
        assert a == pytest.approx(b, abs=1e-3)
    for epoch in (1, 2):
        assert list(read_jsonl(one.data(f"filter_epoch{epoch}"))) == list(read_jsonl(two.data(f"filter_epoch{epoch}")))
    assert furthest(one, two, "grpo") < 1e-5
