"""02_sft and 04_grpo on real mp4 files with a random tiny model: what they leave, and that a kill changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from timer1lib import rewards
from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_jsonl, read_jsonl
from timer1lib.forms import FORMS
from timer1lib.rewards import parse_rewards
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Sample
from timer1lib.stages import grpo, open_stage, sft
from timer1lib.training import grpo as trained_grpo
from timer1lib.training import sft as trained_sft
from timer1lib.training.feeding import SampleEncoder
from timer1lib.training.grpo import RewardFunction
from timer1lib.world.base import lessons as answers
from timer1lib.world.base.tiny import build_tiny
from timer1lib.world.splits import build_splits

SHARED = {"frames": 8, "total_pixels": 4 * 56 * 56, "workers": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("material")
    samples = build_splits(folder / "world", train_videos=3, test_videos=0, ood_videos=0, questions=0, workers=0)["train"]
    models = {f: str(build_tiny(folder / f, f, hidden=32, layers=1)) for f in ("qwen3_vl", "qwen2_5_vl")}  # type: ignore[arg-type]
    return {"world": folder / "world", "samples": samples, "cache": str(folder / "cache"), **models}


def new_run(folder: Path, material: dict[str, object]) -> dict[str, object]:
    run = RunFolder(folder)
    samples = material["samples"]
    assert isinstance(samples, list)
    run.set_video_root(Path(str(material["world"])))
    run.write_samples("train", samples)
    run.write_samples("selected", samples[:6])
    rows = [{**s.to_json(), "completion": answers.chain_of_thought(s.window)} for s in samples]
    atomic_write_jsonl(run.data("cold_start"), rows)
    return {"run_dir": str(folder), "model": material["qwen3_vl"], "cache_dir": material["cache"], **SHARED}


def weights(run: RunFolder, name: str) -> dict[str, torch.Tensor]:
    return load_file(run.checkpoint(name) / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=1e-6) for k in a)


def trained(stage: Any) -> list[dict[str, Any]]:
    """As Run All does: train, then publish."""
    log: list[dict[str, Any]] = {"sft": sft, "grpo": grpo}[stage.name].train(stage)  # type: ignore[attr-defined]
    stage.finish()
    return log


SFT = {"steps": 4, "batch_size": 4, "micro_batch_size": 2, "save_every": 2, "samples": 8}
GRPO = {
    "epochs": 2, "steps_per_epoch": 2, "prompts_per_step": 2, "num_generations": 4, "max_completion_length": 12,
    "save_every": 1, "log_rollouts_every": 1, "schedule": "multi_epoch", "learning_rate": 1e-3, "warmup_steps": 0,
    "rewards": "format:1.0, length:1.0",
}  # fmt: skip


@pytest.fixture(autouse=True)
def length_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model never answers, so a reward that always varies stands in for tIoU."""
    monkeypatch.setitem(rewards.REWARDS, "length", lambda x: len(x.completion) / 50)


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_sft_killed_and_run_again_ends_in_the_same_weights(family: str, material, tmp_path, monkeypatch) -> None:
    base = new_run(tmp_path / "whole", material) | {"model": material[family]} | SFT
    log = trained(open_stage("sft", base))
    assert [row["step"] for row in log] == [1, 2, 3, 4]
    assert log[-1]["loss"] < log[0]["loss"]
    whole = RunFolder(tmp_path / "whole")
    assert not same(weights(whole, "sft"), load_file(Path(str(material[family])) / "model.safetensors"))

    cut = new_run(tmp_path / "cut", material) | {"model": material[family]} | SFT
    real, calls = SampleEncoder.encode, []

    def dies(self, *args):
        calls.append(1)
        if len(calls) == 14:  # in the fourth step
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(SampleEncoder, "encode", dies)
    with pytest.raises(KeyboardInterrupt):
        trained(open_stage("sft", cut))
    monkeypatch.setattr(SampleEncoder, "encode", real)
    again = trained(open_stage("sft", cut))
    assert same(weights(whole, "sft"), weights(RunFolder(tmp_path / "cut"), "sft"))
    assert [row["loss"] for row in again] == pytest.approx([row["loss"] for row in log], abs=1e-5)
    assert not list((tmp_path / "cut" / ".work").iterdir())


def test_sft_with_adapters_changes_the_text_model_alone(material, tmp_path) -> None:
    trained(open_stage("sft", new_run(tmp_path, material) | SFT | {"lora_rank": 4, "learning_rate": 1e-2}))
    before, after = load_file(Path(str(material["qwen3_vl"])) / "model.safetensors"), weights(RunFolder(tmp_path), "sft")
    assert before.keys() == after.keys()  # merged: an ordinary folder again
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed
    assert all("language_model" in k and "_proj" in k for k in changed)


def test_sft_goes_on_without_videos_that_broke(material, tmp_path, caplog) -> None:
    import shutil

    options = new_run(tmp_path, material)
    world = tmp_path / "world"
    shutil.copytree(str(material["world"]), world)
    run = RunFolder(tmp_path)
    run.set_video_root(world)
    rows = list(read_jsonl(run.data("cold_start")))
    broken = rows[0]["video"]
    (world / broken).write_bytes(b"no video any more")
    log = sft.train(open_stage("sft", {**options, **SFT, "samples": 0, "micro_batch_size": 1}))
    assert len(log) == SFT["steps"]
    about = [record.message for record in caplog.records if "left out so far" in record.message]
    assert about
    assert all(broken in message for message in about)
    for row in rows:
        (world / row["video"]).write_bytes(b"no video any more")
    with pytest.raises(Timer1Error, match="cannot be read as a video"):
        sft.train(open_stage("sft", {**new_run(tmp_path / "b", material), **options, "run_dir": str(tmp_path), **SFT}))


def test_sft_switched_off_leaves_no_checkpoint(material, tmp_path) -> None:
    assert trained(open_stage("sft", new_run(tmp_path, material) | SFT | {"enabled": False})) == []
    assert not RunFolder(tmp_path).checkpoint("sft").exists()


def test_sft_without_samples_says_what_to_do(material, tmp_path) -> None:
    base = new_run(tmp_path, material)
    atomic_write_jsonl(RunFolder(tmp_path).data("cold_start"), [])
    with pytest.raises(Timer1Error, match=r"cold_start\.jsonl is empty"):
        trained(open_stage("sft", base | SFT))


def test_grpo_killed_and_run_again_ends_in_the_same_weights(material, tmp_path, monkeypatch) -> None:
    log = trained(open_stage("grpo", new_run(tmp_path / "whole", material) | GRPO))
    whole = RunFolder(tmp_path / "whole")
    assert [(row["step"], row["epoch"]) for row in log] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    rollouts = list(read_jsonl(whole.log("rollouts")))
    assert [row["step"] for row in rollouts] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert all(len(row["completions"]) == len(row["rewards"]) == len(row["spans"]) == 4 for row in rollouts)
    assert (whole.data("filter_epoch1")).is_file()

    cut = new_run(tmp_path / "cut", material) | GRPO
    calls: list[int] = []

    def dies(x):
        calls.append(1)
        if len(calls) == 27:  # in the fourth step
            raise KeyboardInterrupt
        return len(x.completion) / 50

    monkeypatch.setitem(rewards.REWARDS, "length", dies)
    with pytest.raises(KeyboardInterrupt):
        trained(open_stage("grpo", cut))
    monkeypatch.setitem(rewards.REWARDS, "length", lambda x: len(x.completion) / 50)
    again = trained(open_stage("grpo", cut))
    assert same(weights(whole, "grpo"), weights(RunFolder(tmp_path / "cut"), "grpo"))
    assert [row["reward"] for row in again] == pytest.approx([row["reward"] for row in log], abs=1e-5)
    assert list(read_jsonl(RunFolder(tmp_path / "cut").log("rollouts"))) == rollouts


class Killed(BaseException):
    """Stands for SIGKILL."""


def killed(*_: object, **__: object) -> None:
    raise Killed


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def losses(path: Path) -> list[object]:
    """Every number of a log but times."""
    return [{key: value for key, value in row.items() if "time" not in key} for row in read_jsonl(path)]


def test_sft_killed_after_its_last_checkpoint_trains_no_further_step(material, tmp_path, monkeypatch) -> None:
    # 3 steps of 2 an epoch: the second epoch is not whole, so that a trainer that goes on finds one more batch
    base = SFT | {"steps": 3}
    trained(open_stage("sft", new_run(tmp_path / "whole", material) | base))
    run = new_run(tmp_path / "cut", material) | base
    with monkeypatch.context() as patch:
        patch.setattr(trained_sft.common, "save_model", killed)
        with pytest.raises(Killed):
            trained(open_stage("sft", run))
    assert (tmp_path / "cut" / ".work" / "sft" / "work" / "sft" / "checkpoint-3").is_dir()
    assert not RunFolder(tmp_path / "cut").checkpoint("sft").exists()
    trained(open_stage("sft", run))
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    assert losses(cut.log("sft")) == losses(whole.log("sft"))
    assert len(losses(cut.log("sft"))) == 3
    assert all_bytes(cut.checkpoint("sft")) == all_bytes(whole.checkpoint("sft"))


@pytest.mark.parametrize("policy", ["restart", "carry"])
@pytest.mark.parametrize("epoch", [1, 2])
def test_grpo_killed_after_an_epochs_last_checkpoint_trains_no_further_step(
    material, tmp_path, monkeypatch, policy: str, epoch: int
) -> None:
    base = GRPO | {"phase_policy": policy}
    trained(open_stage("grpo", new_run(tmp_path / "whole", material) | base))
    run = new_run(tmp_path / "cut", material) | base
    real, calls = trained_grpo.common.save_model, []

    def dies_once(*arguments: object) -> None:
        calls.append(1)
        if len(calls) == epoch:
            raise Killed
        real(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(trained_grpo.common, "save_model", dies_once)
        with pytest.raises(Killed):
            trained(open_stage("grpo", run))
    work = tmp_path / "cut" / ".work" / "grpo" / "work" / "grpo"
    assert (work / f"epoch{epoch}.work" / "checkpoint-2").is_dir()
    assert not (work / f"epoch{epoch}").exists()
    trained(open_stage("grpo", run))
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    assert losses(cut.log("grpo")) == losses(whole.log("grpo"))
    assert len(losses(cut.log("grpo"))) == 4
    assert list(read_jsonl(cut.log("rollouts"))) == list(read_jsonl(whole.log("rollouts")))
    assert all_bytes(cut.checkpoint("grpo")) == all_bytes(whole.checkpoint("grpo"))


def test_a_carried_epoch_without_its_optimizer_is_trained_again(material, tmp_path, monkeypatch) -> None:
    base = GRPO | {"phase_policy": "carry"}
    trained(open_stage("grpo", new_run(tmp_path / "whole", material) | base))
    run = new_run(tmp_path / "cut", material) | base
    real = trained_grpo.common.load_trained
    with monkeypatch.context() as patch:
        patch.setattr(
            trained_grpo.common, "load_trained", lambda m, *rest: killed() if str(m).endswith("epoch1") else real(m, *rest)
        )
        with pytest.raises(Killed):
            trained(open_stage("grpo", run))
    optimizer = tmp_path / "cut" / ".work" / "grpo" / "work" / "grpo" / "epoch1" / "optimizer.pt"
    optimizer.unlink()  # as a kill left it while the folder appeared before its optimizer
    trained(open_stage("grpo", run))
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    assert losses(cut.log("grpo")) == losses(whole.log("grpo"))
    assert all_bytes(cut.checkpoint("grpo")) == all_bytes(whole.checkpoint("grpo"))
    assert "optimizer.pt" not in all_bytes(cut.checkpoint("grpo"))


@pytest.mark.parametrize(
    "name", ["trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors", "settings"]
)
def test_a_torn_file_of_a_killed_training_heals_itself(material, tmp_path, monkeypatch, name: str) -> None:
    base = SFT | {"steps": 3, "save_every": 1}
    trained(open_stage("sft", new_run(tmp_path / "whole", material) | base))
    run = new_run(tmp_path / "cut", material) | base
    with monkeypatch.context() as patch:
        patch.setattr(trained_sft.common, "save_model", killed)
        with pytest.raises(Killed):
            trained(open_stage("sft", run))
    work = tmp_path / "cut" / ".work" / "sft" / "work" / "sft"
    torn = work / "settings.json" if name == "settings" else work / "checkpoint-3" / name
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    trained(open_stage("sft", run))
    assert same(weights(RunFolder(tmp_path / "whole"), "sft"), weights(RunFolder(tmp_path / "cut"), "sft"))


def test_grpo_restart_and_carry_differ_and_both_run(material, tmp_path) -> None:
    made = {}
    for policy in ("restart", "carry"):
        run = new_run(tmp_path / policy, material) | GRPO | {"phase_policy": policy, "beta": 0.05}
        log = trained(open_stage("grpo", run))
        made[policy] = weights(RunFolder(tmp_path / policy), "grpo")
        assert log[-1]["kl"] >= 0
    assert not same(made["restart"], made["carry"])


def test_a_broken_video_drops_its_group_and_the_run_goes_on(material, tmp_path) -> None:
    base = new_run(tmp_path, material) | GRPO
    run = RunFolder(tmp_path)
    samples = run.read_samples("selected")
    samples[0].video = "train/not-there.mp4"
    run.write_samples("selected", samples)
    log = trained(open_stage("grpo", base | {"epochs": 1, "steps_per_epoch": 3}))
    assert len(log) == 3
    assert sum(row["groups_failed"] for row in log) >= 1


@pytest.mark.parametrize("text", ["tiuo:1", "tiou:x", "", "tiou:nan", "tiou:1, tiou:2"])
def test_rewards_that_are_none_are_named(text: str) -> None:
    with pytest.raises(Timer1Error, match="reward"):
        parse_rewards(text)


def test_grounded_questions_are_rewarded_in_the_form_they_are_asked_in_whatever_the_runs_form() -> None:
    question = Sample("q", "v.mp4", "which comes first", 20.0, [(2.0, 8.0)], options=["a", "b"], answer=1)
    reward = RewardFunction("grounded_qa", rewards.grounded_qa_reward, {"q": question}, FORMS["timer1"])
    right = "<think>seen from 2.0 to 8.0</think> <time>[2.0, 8.0]</time> \\boxed{B}"
    wrong_letter = right.replace("B", "A")
    assert reward([right, wrong_letter, "B"], ["q"] * 3) == pytest.approx([1.0, 0.3, 0.0])


LENGTH = "def length(x):\n    return len(x.completion) / 50\n"


def test_a_reward_of_a_file_trains_like_the_same_one_of_the_library(material, tmp_path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(LENGTH.replace("def length", "def mine"))
    log = trained(open_stage("grpo", new_run(tmp_path / "a", material) | GRPO))
    own = trained(open_stage("grpo", new_run(tmp_path / "b", material) | GRPO | {"rewards": f"format:1.0, {file}:mine:1.0"}))
    assert [row["rewards/mine/mean"] for row in own] == [row["rewards/length/mean"] for row in log]
    assert all_bytes(RunFolder(tmp_path / "a").checkpoint("grpo")) == all_bytes(RunFolder(tmp_path / "b").checkpoint("grpo"))


def test_a_reward_and_a_rule_of_a_cell_are_in_the_stages_key(material, tmp_path) -> None:
    """The functions of this file stand for a cell's: written down, trained, shown again, and refused where they differ."""
    base = new_run(tmp_path, material) | GRPO | {"schedule": "sample_filtering"}
    given = {"rewards": {"format": 1.0, "long": (longer, 0.5)}, "keep": every_second}
    log = grpo.train(stage := open_stage("grpo", base), **given)
    stage.finish()
    assert all(row["reward"] == pytest.approx(row["rewards/format/mean"] + row["rewards/long/mean"] / 2, abs=1e-5) for row in log)
    flow = grpo.epoch_flow(stage)[1]
    assert {row["reason"] for row in flow} == {"kept", "by your rule"}
    assert [row["kept"] for row in flow] == [
        int(row["id"].rpartition("-")[2] if "-" in row["id"] else 0) % 2 == 0 for row in flow
    ]
    assert "def longer" in (tmp_path / "ideas" / "long.py").read_text()
    # Run All again: it is finished with these ideas, which are known when the cell that has them is run
    again = open_stage("grpo", base)
    assert grpo.train(again, **given) == log
    assert again.finished
    # ... and refused with others, and without any
    for other in ({}, {**given, "keep": None}, {**given, "rewards": {"format": 1.0, "long": (longer, 0.6)}}):
        with pytest.raises(Timer1Error, match=r"04_grpo is finished .* inputs .*overwrite = True"):
            grpo.train(open_stage("grpo", base), **other)
    assert all_bytes(RunFolder(tmp_path).checkpoint("grpo"))
    default = open_stage("grpo", base | {"overwrite": True})
    assert len(trained(default)) > 0
    assert "rewards/long/mean" not in RunFolder(tmp_path).log("grpo").read_text()


def longer(x: Any) -> float:
    return len(x.completion) / 50


def every_second(s: Any) -> bool:
    return int(s.id.rpartition("-")[2] if "-" in s.id else 0) % 2 == 0


def test_a_training_under_a_cells_reward_goes_on_after_a_kill(material, tmp_path, monkeypatch) -> None:
    base, given = new_run(tmp_path / "cut", material) | GRPO, {"rewards": {"long": longer}}
    whole = open_stage("grpo", new_run(tmp_path / "whole", material) | GRPO)
    log = grpo.train(whole, **given)
    whole.finish()
    with monkeypatch.context() as patch:
        patch.setattr(trained_grpo.common, "save_model", killed)
        with pytest.raises(Killed):
            grpo.train(open_stage("grpo", base), **given)
    work = tmp_path / "cut" / ".work" / "grpo" / "work" / "grpo" / "epoch1.work"
    assert (work / "checkpoint-2").is_dir()
    before = (work / "checkpoint-2" / "model.safetensors").stat().st_mtime_ns
    stage = open_stage("grpo", base)
    assert (work / "checkpoint-2" / "model.safetensors").stat().st_mtime_ns == before, "opening it threw the work away"
    assert losses(stage.run.log("grpo")) or True
    assert [row["loss"] for row in grpo.train(stage, **given)] == [row["loss"] for row in log]


def test_a_reward_that_fails_in_training_names_the_completion_and_keeps_the_steps(material, tmp_path) -> None:
    file = tmp_path / "fails.py"
    counted = "SEEN = []\n\n\ndef fails(x):\n    SEEN.append(x.query)\n    return 1 / (19 - len(SEEN))\n"
    file.write_text(counted)  # two calls when it is tried, twice; then 8 completions a step
    base = new_run(tmp_path / "r", material) | GRPO | {"rewards": f"{file}:fails:1.0", "save_every": 100}
    with pytest.raises(
        Timer1Error, match=r"sample '.*': reward .*fails, line 6: ZeroDivisionError.*stopped after 1 steps"
    ) as caught:
        trained(open_stage("grpo", base))
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "r" / ".work" / "grpo" / "work" / "grpo" / "epoch1.work").glob("checkpoint-1/model.safetensors"))
