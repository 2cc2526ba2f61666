"""Our recipes against the rules of the released code, worked out here from their description, on every row of the published files.

The rules are facts of xiaomi-research/time-r1, zjuruizhechen/TVG-R1 and TencentARC/TimeLens (docs/recipes.md names the files).
The annotation files say how long a video is, not how large or how fast: sizes and rates are a spread of made-up ones, by row.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from timer1lib import forms  # noqa: E402
from timer1lib.clock import choose_frames  # noqa: E402
from timer1lib.clock.told import seconds_per_grid  # noqa: E402
from timer1lib.data.readers import read_annotations  # noqa: E402
from timer1lib.models.config import sampling_for  # noqa: E402
from timer1lib.params.load import load_params  # noqa: E402
from timer1lib.rewards import REWARDS, RewardInput  # noqa: E402
from timer1lib.schema import Sample, Window  # noqa: E402
from timer1lib.video.decode import frame_size  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
ANNOTATIONS = ROOT.parent / "shared" / "data" / "annotations"

pytestmark = pytest.mark.skipif(
    not ANNOTATIONS.is_dir(), reason="the published annotation files (../shared/data) are not on this machine"
)

RATES = (15.0, 23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94)
SIZES = ((240, 320), (360, 640), (480, 270), (480, 640), (720, 1280), (1080, 1920), (1280, 720), (96, 128))
"""Height and width of made-up videos."""

NUMBER = r"(\d+(?:\.\d*)?)"


@pytest.fixture(scope="module", params=["timerft_train_2k5.json", "tvgbench.json"])
def rows(request: pytest.FixtureRequest) -> list[tuple[Sample, dict[str, Any]]]:
    samples = read_annotations(ANNOTATIONS / request.param).samples
    raw = json.loads((ANNOTATIONS / request.param).read_text())
    assert len(samples) == len(raw) == (2500 if "timerft" in request.param else 800)
    return list(zip(samples, raw, strict=True))


# What is asked


def test_the_query_is_asked_as_released(rows: list[tuple[Sample, dict[str, Any]]]) -> None:
    trained, tested = (forms.load(str(ROOT / "params" / "forms" / name)) for name in ("time_r1.yaml", "time_r1_eval.yaml"))
    changed = 0
    for sample, raw in rows:
        published = raw.get("sentence", raw.get("question"))
        said = published.strip().lower()
        said = said[:-1] if said.endswith(".") else said
        prompt = trained.ask(sample.query, sample.duration)
        assert (prompt.text, prompt.system, prompt.text_first) == (trained.asked.replace("{query}", said), None, True)
        prompt = tested.ask(sample.query, sample.duration)
        assert (prompt.text, prompt.text_first) == (tested.asked.replace("{query}", published.strip()), False)
        changed += said != published
    assert "{duration}" not in trained.asked
    assert "<timestep>" in trained.asked
    assert changed == {2500: 1673, 800: 687}[len(rows)]


# What is answered


def answers(sample: Sample, raw: dict[str, Any], number: int) -> list[str]:
    """Completions of every kind: right, near, far, reversed, twice, in other notations, out of form."""
    start, end = sample.window
    length = sample.duration or 10.0
    shift = (number % 7 - 3) / 10 * length
    near = max(0.0, start + shift), max(0.0, end + shift / 2)
    said = raw.get("pred") or near
    thought = "<think>It begins at 1.00 to 2.00, then it ends.</think>"
    spans = [(start, end), near, (end, start), said, (0.0, length), (0.0, 40 * length)]
    texts = [f"{thought}<answer>{a:.2f} to {b:.2f}</answer>" for a, b in spans]
    one, two = (f"{a:.2f} to {b:.2f}" for a, b in (near, (start, end)))
    other = [
        f"{thought}\n<answer>{one}</answer>", f"  {thought} <answer> {one} AND 9 </answer>\n", f"<answer>{one}</answer>", one,
        f"{thought}<answer>{one}</answer><answer>{two}</answer>", f"{thought}{thought}<answer>{one}, or {two}</answer>",
        f"{thought} so <answer>{one}</answer>", f"{thought}<answer>{one}", f"{thought}<answer>{int(near[0])} and {int(end)}</answer> !",
        f"{thought}<answer>00:{int(start) % 60:02d} to 00:{int(end) % 60:02d}</answer>", f"{thought}<answer>no</answer>", "",
        f"{thought}<answer><think>{one}</think></answer>", f"<think></think><answer>{start:.1f}s to {end:.1f}s</answer>",
    ]  # fmt: skip
    return texts + [other[(number + k) % len(other)] for k in range(5)]


def overlap(a: Window, b: Window) -> float:
    """Shared time over the time from the first start to the last end; segments that do not meet share none."""
    hull = max(a[1], b[1]) - min(a[0], b[0])
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0])) / hull if hull > 0 else 0.0


def trainer_reads(text: str) -> Window | None:
    blocks = re.findall("(?s)<answer>(.*?)</answer>", text)
    pairs = re.findall(f"(?i){NUMBER} (?:to|and) {NUMBER}", blocks[-1]) if blocks else []
    return (float(pairs[-1][0]), float(pairs[-1][1])) if pairs else None


def test_rewards_form_and_reading_are_time_r1s(rows: list[tuple[Sample, dict[str, Any]]]) -> None:
    form = forms.load(str(ROOT / "params" / "forms" / "time_r1.yaml"))
    tested = forms.load(str(ROOT / "params" / "forms" / "time_r1_eval.yaml"))
    compared = beyond = 0
    for number, (sample, raw) in enumerate(rows):
        window, duration = sample.window, float(sample.duration or 0)
        for text in answers(sample, raw, number):
            compared += 1
            span = trainer_reads(text)
            anywhere = re.findall(f"{NUMBER} (?:to|and) {NUMBER}", text)
            assert form.span(text) == span
            assert tested.span(text) == ((float(anywhere[-1][0]), float(anywhere[-1][1])) if anywhere else None)
            framed = re.fullmatch(r"(?s)<think>.*?</think>\s*<answer>.*?</answer>", text.strip()) is not None
            given = RewardInput(text, tuple(sample.windows), duration, form)
            assert REWARDS["format"](given) == float(framed)
            iou = overlap(span, window) if span else 0.0
            assert REWARDS["iou"](given) == pytest.approx(iou, abs=1e-12)
            factors = [1 - abs(a - b) / duration for a, b in zip(span, window, strict=True)] if span else [0.0]
            if min(factors) < 0:  # an answer beyond the video: the product turns negative there, ours stays 0
                beyond += iou > 0
                assert REWARDS["tiou"](given) == 0
                assert iou * math.prod(factors) <= 0 or min(factors) == max(factors)
            else:
                assert REWARDS["tiou"](given) == pytest.approx(iou * math.prod(factors), abs=1e-12)
    assert compared == 11 * len(rows)
    assert beyond >= len(rows) - 20  # the answer to 40 times the video's length, but where a window is empty


def test_rewards_and_reading_are_tvg_r1s_and_timelens(rows: list[tuple[Sample, dict[str, Any]]]) -> None:
    tvg, lens = (forms.load(str(ROOT / "params" / "forms" / name)) for name in ("tvg_r1.yaml", "timelens.yaml"))
    for number, (sample, _) in enumerate(rows):
        window, shift = sample.window, (number % 5 - 2) * 1.5
        first, second = (round(max(0.0, window[0] + shift), 2), round(window[1] + shift / 3 + 0.3, 2)), (1.25, 2.5)
        first = first if first[1] > 0 else second
        block = "<time>[{}, {}]</time>".format
        for text in (
            f"<think>a</think> {block(*first)}", f"<think>a</think>{block(*first)} no: {block(*second)} end", f"so <think>a</think> {block(*first)}",
            f"{block(*first)}", "<think>a</think> <time>soon</time>", f"<think>a</think> <time> [ {first[0]} , {first[1]} ] </time>",
        ):  # fmt: skip
            found = re.search("(?s)<time>(.*?)</time>", text)
            try:
                span = tuple(json.loads(found[1])) if found else None
            except ValueError:
                span = None
            framed = re.fullmatch("(?s)<think>.*</think>.*<time>.*</time>.*", text) is not None
            given = RewardInput(text, (window,), float(sample.duration or 0), tvg)
            expected = 0.9 * (overlap(span, window) if span else 0.0) + 0.1 * framed
            assert REWARDS["tvg_r1"](given) == pytest.approx(max(0.0, expected), abs=1e-12)
        one, two = (f"{a:.1f} - {b:.1f} seconds" for a, b in (first, second))
        for text in (
            f"The event happens in {one}.",
            f"It is in {one}, then {two}",
            f"from {first[0]:.1f} to {first[1]:.1f}",
            "no idea",
        ):
            pairs = re.findall(rf"{NUMBER}\s*(?:-|to)\s*{NUMBER}", text)
            span = (float(pairs[0][0]), float(pairs[0][1])) if pairs else None
            reward = overlap(span, window) if span and span[0] < span[1] else 0.0
            given = RewardInput(text, (window,), float(sample.duration or 0), lens)
            assert lens.span(text) == span
            assert REWARDS["iou"](given) == pytest.approx(reward, abs=1e-12)


# What is seen


def released_count(total: int, rate: float, fps: float, most: int) -> int:
    """Frames: duration x fps, at least 4, at most `most` and all there are; an even number."""
    wanted = max(total / rate * fps, 4)
    return int(min(wanted, min(most, total) // 2 * 2, total)) // 2 * 2


def released_size(height: int, width: int, count: int, factor: int, low: int, total: int) -> tuple[int, int]:
    """Whole patches nearest to the size, shrunk into or enlarged over what a frame may have; the minimum wins over the total."""
    most = max(min(768 * factor**2, total / count * 2), int(low * 1.05))
    tall, wide = (max(factor, round(side / factor) * factor) for side in (height, width))
    if tall * wide > most:
        scale = math.sqrt(height * width / most)
        return math.floor(height / scale / factor) * factor, math.floor(width / scale / factor) * factor
    if tall * wide < low:
        scale = math.sqrt(low / (height * width))
        return math.ceil(height * scale / factor) * factor, math.ceil(width * scale / factor) * factor
    return tall, wide


@pytest.mark.parametrize(
    ("recipe", "factor", "low", "total", "most"),
    [("time_r1_7b", 28, 16, 3584, 768), ("timelens_8b", 32, 64, 14336, 448), ("tvg_r1_7b", 28, 4, 2048, 64)],
)
def test_frames_sizes_and_tokens_are_the_released_pipelines(
    rows: list[tuple[Sample, dict[str, Any]]], recipe: str, factor: int, low: int, total: int, most: int
) -> None:
    shared = load_params(ROOT / "params" / f"{recipe}.yaml").shared
    sampling = sampling_for(shared)
    assert sampling.factor == factor
    low, total = low * factor**2, total * factor**2
    tokens: list[int] = []
    for number, (sample, _) in enumerate(rows):
        rate, (height, width) = RATES[number % len(RATES)], SIZES[number // 3 % len(SIZES)]
        available = max(1, round(float(sample.duration or 1) * rate))
        choice = choose_frames(np.arange(available) / rate, sampling)
        # TVG-R1 asks for a number of frames, not for a rate.
        count = min(most, available) // 2 * 2 if recipe == "tvg_r1_7b" else released_count(available, rate, 2.0, most)
        indices = torch.linspace(0, available - 1, count).round().long().tolist()
        assert choice.indices.tolist() == indices, (sample.id, rate)
        assert seconds_per_grid(choice.step_s, 2) == pytest.approx(2 / (count / available * rate), rel=1e-6)
        size = frame_size(height, width, count, sampling)
        # TVG-R1's own copy allows 128 tokens a frame, which 64 frames of its budget never reach.
        assert size == released_size(height, width, count, factor, low, total) or (recipe == "tvg_r1_7b" and count < 64)
        tokens.append(count // 2 * size[0] * size[1] // factor**2)
    if recipe == "time_r1_7b" and len(rows) == 2500:
        longer = sum(released_count(round(float(s.duration or 1) * 30), 30.0, 2.0, 768) > 448 for s, _ in rows)
        assert longer == 401  # beyond 448 frames the minimum of 16 tokens a frame pair wins
        assert max(tokens) == 768 // 2 * 20  # small frames are enlarged to 4 x 5 patches
    if recipe == "tvg_r1_7b":
        assert max(tokens) <= 2048


def test_times_that_are_told_run_behind_as_released() -> None:
    # 10 s at 30 frames a second: 20 frames of 300, numbers 0 to 299 spread evenly, told half a second apart.
    shared = load_params(ROOT / "params" / "time_r1_7b.yaml").shared
    times = np.arange(300) / 30.0
    choice = choose_frames(times, sampling_for(shared))
    assert len(choice.indices) == 20
    assert choice.step_s == pytest.approx(0.5)
    behind = times[choice.indices] - np.arange(20) * 0.5
    assert behind[0] == 0
    assert behind[-1] == pytest.approx(299 / 30 - 9.5)
    assert (np.diff(behind) > -1e-9).all()


@pytest.mark.parametrize(("available", "expected"), [(1, [0, 0]), (2, [0, 1]), (3, [0, 2]), (5, [0, 1, 3, 4]), (7, [0, 2, 4, 6])])
def test_short_files_give_whole_patches(available: int, expected: Sequence[int]) -> None:
    shared = load_params(ROOT / "params" / "time_r1_7b.yaml").shared
    assert choose_frames(np.arange(available) / 25.0, sampling_for(shared)).indices.tolist() == list(expected)
