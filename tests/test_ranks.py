"""The number of processes does not change a run: 02 to 05 with one rank and with two, killed, resumed and sharded."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, atomic_write_jsonl, read_json, read_jsonl
from timer1lib.params.load import validated
from timer1lib.params.sections import Params
from timer1lib.runfolder import RunFolder
from timer1lib.runs.keys import check_files
from timer1lib.stages import difficulty, evaluate, grpo, open_stage, release, sft
from timer1lib.workers.launch import RankFailed
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
    return [
        {k: v for k, v in row.items() if not k.startswith(("time/", "cache/")) and k != "step_time"}
        for row in read_jsonl(run.log(name))
    ]


@pytest.fixture(scope="module")
def sft_runs(world: Path) -> dict[int, RunFolder]:
    return {n: sft_run(world, world / f"sft{n}", n) for n in (1, 2)}


@pytest.fixture(scope="module")
def grpo_runs(world: Path) -> dict[int, RunFolder]:
    return {n: grpo_run(world, world / f"grpo{n}", n) for n in (1, 2)}


def test_sft_with_two_ranks_is_sft_with_one(sft_runs: dict[int, RunFolder]) -> None:
    one, two = sft_runs[1], sft_runs[2]
    base, learned = load_file("assets/tiny-qwen3-vl/model.safetensors"), load_file(one.checkpoint("sft") / "model.safetensors")
    assert max((learned[name] - base[name]).abs().max().item() for name in base) > 1e-4
    for a, b in zip(logged(one, "sft"), logged(two, "sft"), strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    assert furthest(one, two, "sft") < 1e-5


def test_grpo_with_two_ranks_is_grpo_with_one(grpo_runs: dict[int, RunFolder]) -> None:
    one, two = grpo_runs[1], grpo_runs[2]
    rows = list(read_jsonl(one.log("rollouts")))
    assert rows == list(read_jsonl(two.log("rollouts")))
    assert len(rows) == 20 * 4
    assert len({reward for row in rows for reward in row["rewards"]}) > 5
    for a, b in zip(logged(one, "grpo"), logged(two, "grpo"), strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    assert 0 < furthest(one, two, "grpo") < 1e-5


def kill(folder: Path, what: str) -> threading.Thread:
    """Kill rank 1, or the server of ranks, as soon as a checkpoint stands below a folder."""

    def wait() -> None:
        while not any(folder.glob(".work/**/checkpoint-10/trainer_state.json")):
            time.sleep(0.01)
        servers = [p for p in psutil.Process().children() if p.status() != "zombie" and "timer1lib.workers.server" in p.cmdline()]
        server = next(p for p in servers if p.children())
        (server if what == "server" else server.children()[-1]).kill()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(("before", "killed", "after"), [(2, "rank", 2), (2, "server", 1), (1, "rank", 2)])
def test_a_killed_sft_goes_on_with_any_number_of_ranks(
    before: int, killed: str, after: int, world: Path, tmp_path: Path, sft_runs: dict[int, RunFolder]
) -> None:
    options = new_run(world, tmp_path, before) | SFT
    thread = kill(tmp_path, killed)
    with pytest.raises(RankFailed, match="was killed by signal 9"):
        sft.train(open_stage("sft", options))
    thread.join()
    release(tmp_path)
    stage = open_stage("sft", options | {"processes": after})
    sft.train(stage)
    stage.finish()
    assert furthest(RunFolder(tmp_path), sft_runs[after], "sft") < (1e-9 if before == after else 1e-5)
    assert [row["step"] for row in logged(RunFolder(tmp_path), "sft")] == list(range(1, 21))


@pytest.mark.parametrize(("before", "after", "parallel"), [(2, 1, "ddp"), (1, 2, "fsdp2")])
def test_a_killed_grpo_goes_on_with_any_number_of_ranks(
    before: int, after: int, parallel: str, world: Path, tmp_path: Path, grpo_runs: dict[int, RunFolder]
) -> None:
    options = new_run(world, tmp_path, before) | GRPO
    thread = kill(tmp_path, "rank")
    with pytest.raises(RankFailed, match="was killed by signal 9"):
        grpo.train(open_stage("grpo", options))
    thread.join()
    release(tmp_path)
    stage = open_stage("grpo", options | {"processes": after, "parallel": parallel})
    grpo.train(stage)
    stage.finish()
    assert list(read_jsonl(RunFolder(tmp_path).log("rollouts"))) == list(read_jsonl(grpo_runs[1].log("rollouts")))
    assert furthest(RunFolder(tmp_path), grpo_runs[1], "grpo") < 1e-5


def test_answers_are_the_same_bytes_with_two_ranks(world: Path, tmp_path: Path) -> None:
    found = []
    for processes in (1, 2):
        options = new_run(world, tmp_path / str(processes), processes, batch_size=8, max_new_tokens=24)
        options |= {"cache_dir": str(tmp_path / f"cache{processes}")}
        stage = open_stage("difficulty", options)
        difficulty.measure(stage, difficulty.pool(stage))
        stage.finish()
        stage = open_stage("evaluate", options | {"splits": "train", "checkpoints": "base", "resamples": 100})
        evaluate.answer(stage)
        metrics = evaluate.measure(stage)
        stage.finish()
        run = RunFolder(tmp_path / str(processes))
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in read_jsonl(run.predictions("base", "train"))]
        found.append((run.data("difficulty").read_bytes(), rows, metrics))
        assert not list((run.root / "predictions").glob("*part*"))
    assert found[0] == found[1]
    assert len(found[0][1]) > 16  # several batches for each rank


def test_a_number_that_does_not_fit_is_one_line(world: Path, tmp_path: Path) -> None:
    stage = open_stage("grpo", new_run(world, tmp_path, 3) | GRPO)
    with pytest.raises(Timer1Error, match=r"3 processes must divide grpo.prompts_per_step 4"):
        grpo.train(stage)
    with pytest.raises(Timer1Error, match=r"3 processes must divide sft.batch_size 16"):
        check_files(validated(Params, {"shared": {"processes": 3}}, "p.yaml"))
    with pytest.raises(Timer1Error, match=r"'zero' is none of ddp, fsdp2, and no accelerate config file"):
        validated(Params, {"shared": {"parallel": "zero"}}, "p.yaml")
    with pytest.raises(Timer1Error, match=r"shared.parallel 'zero.yaml': no such accelerate config file"):
        check_files(validated(Params, {"shared": {"parallel": "zero.yaml"}}, "p.yaml"))


def test_sharded_weights_train_as_whole_ones_and_are_saved_as_an_ordinary_folder(world: Path, tmp_path: Path) -> None:
    few = {"steps": 4, "save_every": 3}
    whole, sharded = (sft_run(world, tmp_path / kind, 2, parallel=kind, **few) for kind in ("ddp", "fsdp2"))
    assert furthest(whole, sharded, "sft") < 1e-5
    few = {"steps_per_epoch": 4, "save_every": 3}
    whole, sharded = (grpo_run(world, tmp_path / f"{kind}-grpo", 2, parallel=kind, **few) for kind in ("ddp", "fsdp2"))
    assert list(read_jsonl(whole.log("rollouts"))) == list(read_jsonl(sharded.log("rollouts")))
    assert furthest(whole, sharded, "grpo") < 1e-5


def test_adapters_train_alike_on_two_ranks_whole_or_sharded(world: Path, tmp_path: Path) -> None:
    few = {"steps": 3, "lora_rank": 4, "learning_rate": 1e-3}
    one = sft_run(world, tmp_path / "one", 1, **few)
    for kind in ("ddp", "fsdp2"):
        assert furthest(one, sft_run(world, tmp_path / kind, 2, parallel=kind, **few), "sft") < 1e-5
    few = {"steps_per_epoch": 3, "lora_rank": 4, "learning_rate": 1e-3}
    one = grpo_run(world, tmp_path / "grpo", 1, **few)
    for kind in ("ddp", "fsdp2"):
        two = grpo_run(world, tmp_path / f"grpo-{kind}", 2, parallel=kind, **few)
        assert list(read_jsonl(one.log("rollouts"))) == list(read_jsonl(two.log("rollouts")))
        assert furthest(one, two, "grpo") < 1e-5


def test_what_grpo_has_besides_is_the_same_on_two_ranks(world: Path, tmp_path: Path) -> None:
    more = {
        "steps_per_epoch": 4, "beta": 0.02, "dynamic_sampling": 2, "entropy_coefficient": 1e-2, "groups_per_forward": 2, "updates_per_rollout": 2,
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
    assert any(row.get("groups_failed") for row in logged(one, "grpo"))
    assert any(row.get("groups_resampled") for row in logged(one, "grpo"))
    for a, b in zip(logged(one, "grpo"), logged(two, "grpo"), strict=True):
        other = {key: value for key, value in a.items() if key.startswith(("entropy", "kl", "clip_ratio/"))}
        assert a == pytest.approx(b | other, abs=1e-3)  # these are means over forwards, which hold other groups on two ranks
    for epoch in (1, 2):
        assert list(read_jsonl(one.data(f"filter_epoch{epoch}"))) == list(read_jsonl(two.data(f"filter_epoch{epoch}")))
    assert furthest(one, two, "grpo") < 1e-5


def test_a_persons_own_accelerate_config_starts_the_ranks(world: Path, tmp_path: Path) -> None:
    config = tmp_path / "accelerate.yaml"
    config.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nuse_cpu: true\nnum_processes: 1\nnum_machines: 1\n"
    )
    few = {"steps": 2, "save_every": 2}
    assert len(logged(sft_run(world, tmp_path / "one", 1, parallel=str(config), **few), "sft")) == 2
    options = new_run(world, tmp_path / "two", 2, parallel=str(config)) | SFT | few
    with pytest.raises(Timer1Error, match=r"accelerate.yaml: 1 of 2 ranks were started"):  # as it does on a CPU
        sft.train(open_stage("sft", options))
