"""05_evaluate's stage on a small run of real videos and a tiny model: killed with -9, sharded, and with a broken video."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json
from timer1lib.inference.ledger import Ledger
from timer1lib.runfolder import RunFolder
from timer1lib.stages import evaluate, open_stage, work

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as 01 leaves it, with a base model and one checkpoint."""
    from timer1lib.world.base.tiny import build_tiny
    from timer1lib.world.splits import build_splits

    folder = tmp_path_factory.mktemp("prepared")
    splits = build_splits(
        folder / "videos", train_videos=1, test_videos=4, ood_videos=0, questions=0, queries_a_video=4, workers=0
    )
    asked = [
        replace(s, id=f"q-{s.id}", options=["a red circle", "a blue square"], answer=i % 2)
        for i, s in enumerate(splits["test_id"][:4])
    ]
    splits |= {"qa_short": asked}
    run = RunFolder(folder / "run")
    for name, samples in splits.items():
        run.write_samples(name, samples)
    kinds = {name: {"kind": "questions" if name.startswith("qa") else "grounding", "n": len(s)} for name, s in splits.items()}
    atomic_write_json(run.data("splits.json"), kinds)
    run.set_video_root(folder / "videos")
    build_tiny(folder / "base", "qwen3_vl", seed=0, hidden=64, layers=2)
    build_tiny(run.checkpoint("sft"), "qwen3_vl", seed=1, hidden=64, layers=2)
    return folder


def parameters(prepared: Path, run: Path, **more: Any) -> dict[str, Any]:
    return {
        "run_dir": str(run), "model": str(prepared / "base"), "cache_dir": str(prepared / "cache"), "workers": 0, "frames": 8,
        "max_new_tokens": 6, "batch_size": 4, "resamples": 100, "perturb_samples": 6, **more,
    }  # fmt: skip


def copied(prepared: Path, folder: Path) -> Path:
    shutil.copytree(prepared / "run", folder)
    return folder


@pytest.fixture(scope="module")
def whole(prepared: Path) -> tuple[Path, dict[str, Any]]:
    """An undisturbed evaluation."""
    run = copied(prepared, prepared / "whole")
    stage = open_stage("evaluate", parameters(prepared, run))
    assert evaluate.answer(stage)
    metrics = evaluate.measure(stage)
    stage.finish()
    return run, metrics


def test_an_undisturbed_run(whole: tuple[Path, dict[str, Any]]) -> None:
    run, metrics = whole
    assert json.loads((run / "metrics.json").read_text()) == metrics
    assert list(metrics["splits"]) == ["test_id", "qa_short"]
    assert list(metrics["splits"]["test_id"]) == ["base", "sft"]
    row = metrics["splits"]["test_id"]["base"]
    assert row["n"] == row["answered"] == len(RunFolder(run).read_samples("test_id"))
    assert set(metrics["paired"]["test_id"]) == {"base → sft"}
    assert metrics["splits"]["qa_short"]["sft"]["n"] == 4
    assert "prior_following_swap" in metrics["signatures"]["test_id"]["sft"]
    assert metrics["failed"] == []
    stage_rows = {
        (r["checkpoint"], r["split"], r["asked"])
        for r in evaluate.overview(open_stage("evaluate", {"run_dir": str(run), "perturb_samples": 6, "overwrite": True}))
    }
    assert ("sft", "test_id", "shuffle") in stage_rows


KILLED = """
import os, signal, sys, json
from timer1lib.inference import generate
from timer1lib.stages import evaluate, open_stage, work
asked = 0
original = generate._Asker.ask
def ask(self, batch, seed):
    global asked
    if asked == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    asked += 1
    return original(self, batch, seed)
generate._Asker.ask = ask
work.carry_out = lambda job, folder, nodes, watch=None: work.perform(job)  # in this process, which is the one that dies
evaluate.answer(open_stage("evaluate", json.loads(sys.argv[1])))
"""


def test_killed_and_run_again_ends_in_the_same_numbers(prepared: Path, whole: tuple[Path, dict[str, Any]]) -> None:
    run = copied(prepared, prepared / "killed")
    given = parameters(prepared, run, cache_dir=str(prepared / "own"))  # where nobody has asked the base yet
    done = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(given)], cwd=ROOT, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    part = run / ".work" / "evaluate" / "predictions" / "base.test_id.part.jsonl"
    assert len(part.read_text().splitlines()) == 8, "two batches of four were kept"
    stage = open_stage("evaluate", given)
    assert evaluate.answer(stage)
    evaluate.measure(stage)
    stage.finish()
    assert (run / "metrics.json").read_bytes() == (whole[0] / "metrics.json").read_bytes()
    assert not list((run / "predictions").glob("**/*.part.jsonl"))


def test_another_seed_does_not_ask_the_base_again(
    prepared: Path, whole: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    original = Ledger.add

    def add(self: Ledger, answers: Any) -> None:
        asked.append(self.path.name)
        original(self, answers)

    monkeypatch.setattr(Ledger, "add", add)
    monkeypatch.setattr(work, "carry_out", lambda job, folder, nodes, watch=None: work.perform(job))
    run = copied(prepared, prepared / "seed")
    stage = open_stage("evaluate", parameters(prepared, run, seed=7))
    evaluate.answer(stage)
    assert set(asked) == {"sft.test_id.jsonl", "sft.qa_short.jsonl"}
    files = list((whole[0] / "predictions").glob("**/base.*.jsonl"))
    assert len(files) == 4, "plain, swapped, shuffled, and questions"
    for path in files:
        same = stage.run.at("predictions") / path.relative_to(whole[0] / "predictions")
        assert same.read_bytes() == path.read_bytes()
        assert same.with_suffix(".meta.json").is_file()


def test_shards_of_two_machines_join(prepared: Path, whole: tuple[Path, dict[str, Any]]) -> None:
    run = copied(prepared, prepared / "sharded")
    for k in (1, 2):
        stage = open_stage("evaluate", parameters(prepared, run, shard=f"{k}/2"))
        assert not evaluate.answer(stage)
        if k == 1:
            stage.finish()  # as Run All does; the second machine was stopped before its last cell
    with pytest.raises(Timer1Error, match="with evaluate"):
        evaluate.measure(stage)
    stage = open_stage("evaluate", parameters(prepared, run))
    assert evaluate.answer(stage)
    evaluate.measure(stage)
    stage.finish()
    ours, theirs = json.loads((run / "metrics.json").read_text()), whole[1]
    assert ours["splits"] == theirs["splits"]
    assert ours["paired"] == theirs["paired"]


def test_a_broken_video_is_listed_and_counts_as_wrong(prepared: Path) -> None:
    run = RunFolder(copied(prepared, prepared / "broken"))
    samples = run.read_samples("test_id")
    (prepared / "videos" / "broken.mp4").write_bytes(b"\0" * 100)
    for sample in samples[:2]:
        sample.video = "broken.mp4"
    run.write_samples("test_id", samples)
    stage = open_stage("evaluate", parameters(prepared, run.root, checkpoints="base", splits="test_id", perturb=""))
    evaluate.answer(stage)
    metrics = evaluate.measure(stage)
    assert {row["id"] for row in metrics["failed"]} == {s.id for s in samples[:2]}
    assert "broken.mp4" in metrics["failed"][0]["error"]
    assert metrics["splits"]["test_id"]["base"]["missing"] == 2
    assert metrics["splits"]["test_id"]["base"]["n"] == len(samples)


def test_parameters_that_fit_nothing_are_named(prepared: Path) -> None:
    run = prepared / "run"
    for given, message in (
        ({"checkpoints": "best"}, "checkpoints.*best"),
        ({"splits": "val"}, "no split 'val'"),
        ({"perturb": "mirror"}, "'mirror'"),
        ({"checkpoints": "grpo"}, "none of the checkpoints grpo"),
        ({"shard": "3/2"}, "k/n"),
    ):
        with pytest.raises(Timer1Error, match=message):
            evaluate.answer(open_stage("evaluate", parameters(prepared, run, **given)))
