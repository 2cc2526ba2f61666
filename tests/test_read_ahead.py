"""Decoding ahead follows the order in which training asks."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import test_stage_training
import torch
from make_videos import write_video
from test_stage_training import GRPO, SFT, new_run

from timer1lib.clock import Sampling
from timer1lib.models.load import load_model
from timer1lib.models.prompts import PromptEncoder
from timer1lib.stages import grpo, open_stage, sft
from timer1lib.training import sft as trained_sft
from timer1lib.training.feeding import SampleEncoder, order_of_groups, order_of_rows
from timer1lib.video.store import FrameStore

SAMPLING = Sampling(rule="frames", frames=4, min_frame_pixels=1, total_pixels=10**9, factor=2)

trained_on, length_reward = test_stage_training.material, test_stage_training.length_reward  # fixtures


def test_hits_in_shuffled_order(tmp_path: Path) -> None:
    """300 videos, steps of 8 in shuffled order, two decoding processes: after the first step nearly all were decoded ahead."""
    videos = [write_video(tmp_path / f"{i}.mp4", range(0, 400, 40), size=(16, 64)) for i in range(300)]
    ids = [str(i) for i in range(300)]
    random.Random(5).shuffle(ids)
    order = order_of_groups(ids, 8, 37)
    with FrameStore(tmp_path / "cache", workers=2) as store, ThreadPoolExecutor(2) as threads:
        store.prefetch([(videos[int(i)], SAMPLING, (None, None)) for i in order], ahead=16)
        for step in range(37):
            batch = order[8 * step : 8 * step + 8]
            if step == 1:
                store.hits = store.misses = 0
                time.sleep(1.0)  # the workers' own start
            list(threads.map(lambda i: store.get(videos[int(i)], SAMPLING), batch))
            time.sleep(0.12)  # the step itself
        assert store.hits + store.misses == 288
        assert store.hits >= 0.95 * 288


def test_the_order_of_groups_by_hand() -> None:
    ids = list("abcdefg")
    assert order_of_groups(ids, 2, 4) == list("abcdefab")  # g has no partner, then the next pass
    assert order_of_groups(ids, 2, 4, done=2) == list("efab")
    assert order_of_groups(ids, 4, 2) == list("abcdabcd")
    assert order_of_groups(ids, 4, 2, share=(0, 2)) == list("abab")
    assert order_of_groups(ids, 4, 2, share=(1, 2)) == list("cdcd")


def test_the_shares_of_processes_make_up_the_whole() -> None:
    ids = [str(i) for i in range(20)]
    whole = order_of_rows(ids, 6, seed=5, steps=4)
    assert sorted(whole, key=int) == ids  # steps of 6, 6, 6 and 2 rows
    shares = [order_of_rows(ids, 6, seed=5, steps=4, share=(rank, 2)) for rank in range(2)]
    assert shares[0] == [*whole[0:3], *whole[6:9], *whole[12:15], whole[18]]
    assert shares[1] == [*whole[3:6], *whole[9:12], *whole[15:18], whole[19]]
    assert order_of_rows(ids, 6, seed=5, steps=6, done=2)[:8] == whole[12:20]
    assert order_of_rows(ids, 6, seed=5, steps=6, done=4) != whole[:12]  # the next epoch's own order


@pytest.mark.parametrize("name", ["sft", "grpo"])
def test_it_is_the_order_that_the_trainer_asks_in(
    name: str,
    trained_on: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[list[str]] = []
    planned: list[list[str]] = []
    real, ahead = SampleEncoder.encode, SampleEncoder.prefetch

    def prefetch(self: Any, samples: Any, *rest: int) -> None:
        plan = list(samples)
        planned.append([sample.id for sample in plan])
        asked.append([])
        ahead(self, plan, *rest)

    monkeypatch.setattr(SampleEncoder, "prefetch", prefetch)
    monkeypatch.setattr(
        SampleEncoder, "encode", lambda self, loaded, s, *r: (asked[-1].append(s.id), real(self, loaded, s, *r))[1]
    )
    options = new_run(tmp_path, trained_on)
    if name == "sft":
        log = sft.train(open_stage("sft", options | SFT | {"steps": 5, "save_every": 50}))
    else:
        changes = {"epochs": 2, "steps_per_epoch": 4, "prompts_per_step": 2, "groups_per_forward": 1, "save_every": 50}
        log = grpo.train(open_stage("grpo", options | GRPO | changes))
    assert [len(plan) for plan in planned] == ([20] if name == "sft" else [8, 8])
    for plan, own in zip(planned, asked, strict=True):
        assert own[: len(plan)] == plan
        assert len(own) <= len(plan) + 2  # accelerate fetches a batch that is not needed any more
        assert len(set(plan)) > 5
    assert all(row["time/encode"] >= 0 for row in log)
    assert sum(row["time/encode"] for row in log) > 0


def test_the_log_says_how_long_a_step_waited(
    trained_on: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    real = SampleEncoder.encode
    monkeypatch.setattr(SampleEncoder, "encode", lambda self, *rest: (time.sleep(0.2), real(self, *rest))[1])
    monkeypatch.setattr(trained_sft.feeding, "decoding_threads", lambda shared: 0)
    log = sft.train(open_stage("sft", new_run(tmp_path, trained_on) | SFT | {"steps": 2}))
    assert sum(row["time/encode"] for row in log) >= 8 * 0.2
    assert "frames: " in capsys.readouterr().out


def test_a_video_that_comes_again_is_not_read_again(trained_on: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_stage("sft", new_run(tmp_path, trained_on) | SFT)
    rows = opened.run.read_samples("train")
    many = Counter(row.video for row in rows)
    own = [row for row in rows if row.video == many.most_common(1)[0][0]]
    assert len(own) >= 3
    loaded, read = load_model(opened.shared.model), FrameStore.get
    asked: list[str] = []
    monkeypatch.setattr(FrameStore, "get", lambda self, *what: (asked.append(str(what[0])), read(self, *what))[1])
    with SampleEncoder(opened.run, opened.shared) as encoder:
        encoder.prefetch(own * 40, 2)  # what is passed over makes room for the next
        again = [encoder.encode(loaded, sample, text) for text in ("12 to 14", None) for sample in own]
        assert encoder.encode(loaded, own[0])["video_key"] == again[-1]["video_key"]
    assert len(asked) == 2  # the second is the proof that texts may be put behind
    monkeypatch.setattr(PromptEncoder, "holds", lambda self, *_: False)
    for sample, text, row in zip(own * 2, ["12 to 14"] * len(own) + [None] * len(own), again, strict=True):
        with SampleEncoder(opened.run, opened.shared) as fresh:
            whole = fresh.encode(loaded, sample, text)
        assert whole.keys() == row.keys()
        assert all(torch.equal(whole[key], row[key]) for key in whole if key != "video_key")


def test_frames_that_are_passed_over_make_room(tmp_path: Path) -> None:
    videos = [write_video(tmp_path / f"{i}.mp4", range(0, 400, 40), size=(16, 64)) for i in range(6)]
    with FrameStore(tmp_path / "cache", workers=1) as store:
        store.prefetch([(video, SAMPLING, (None, None)) for video in videos], ahead=2)
        for video in videos[:5]:
            store.pass_over(video, SAMPLING)
        time.sleep(2.0)
        store.get(videos[5], SAMPLING)
        assert (store.hits, store.misses) == (1, 0)
