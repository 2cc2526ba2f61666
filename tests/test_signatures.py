"""Each signature on answers with exactly that fault planted: it must be found, and no other."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from timer1lib.evaluation.scored import join
from timer1lib.evaluation.signatures import find_signatures
from timer1lib.evaluation.signatures.exploitation import reward_without_iou
from timer1lib.evaluation.signatures.misplaced import unlike
from timer1lib.evaluation.signatures.signature import Signature
from timer1lib.schema import Prediction, Sample, Window

WORDS = ("red", "blue", "green", "circle", "square", "star")


def world(seed: int, videos: int = 150) -> list[Sample]:
    """Videos of 20-60 s with four events that lie apart, each with a query."""
    rng = random.Random(seed)
    samples = []
    for v in range(videos):
        duration = rng.uniform(20, 60)
        for i in range(4):
            length = rng.uniform(0.08, 0.2) * duration
            start = duration * i / 4 + rng.uniform(0, duration / 4 - length)
            # One query in eight is about a colour that no training query has; a healthy model answers it all the same.
            query = (
                f"a yellow {rng.choice(WORDS)}"
                if seed != 1 and rng.random() < 0.125
                else f"a {rng.choice(WORDS)} {rng.choice(WORDS)}"
            )
            samples.append(Sample(f"{v}-{i}", f"{v}.mp4", query, duration, [(start, start + length)], type="simple"))
    return samples


TRAIN, TEST = world(1), world(2)


def answer(sample: Sample, span: Window) -> Prediction:
    start, end = max(0.0, span[0]), min(sample.duration or 0.0, span[1])
    text = f"<think>seen there</think><answer>{start:.2f} to {end:.2f}</answer>"
    return Prediction(sample.id, start, end, text)


def healthy(samples: list[Sample], seed: int = 3, noise: float = 0.03) -> list[Prediction]:
    """A good model with errors: edges off by a few percent of the video, one answer in six somewhere else."""
    rng = random.Random(seed)
    rows = []
    for sample in samples:
        duration = sample.duration or 0.0
        start, end = sample.window
        if rng.random() < 1 / 6:
            place = rng.uniform(0, duration - (end - start))
            start, end = place, place + end - start
        rows.append(answer(sample, (start + rng.gauss(0, noise * duration), end + rng.gauss(0, noise * duration))))
    return rows


def table(rows: list[Prediction]) -> dict[str, Prediction]:
    return {row.id: row for row in rows}


def look(rows: list[Prediction], samples: list[Sample] | None = None, **more: Any) -> dict[str, Signature]:
    asked = samples or TEST
    more.setdefault("swapped", table(healthy(shuffled_truth(asked), 5)))
    more.setdefault("shuffled", table(healthy(shuffled_truth(asked, 8), 6)))
    more.setdefault("rollouts", rollouts(lambda t: (0.3 + 0.3 * t, 0.3 + 0.3 * t)))
    return {s.name: s for s in find_signatures(join(asked, rows), train=TRAIN, **more)}


def shuffled_truth(samples: list[Sample], seed: int = 7) -> list[Sample]:
    """What a model that looks would be asked for on another video: windows unrelated to the query's own."""
    rng = random.Random(seed)
    spans = [(s.window[0] / (s.duration or 1), s.window[1] / (s.duration or 1)) for s in samples]
    rng.shuffle(spans)
    return [
        Sample(s.id, s.video, s.query, s.duration, [(a * (s.duration or 1), b * (s.duration or 1))])
        for s, (a, b) in zip(samples, spans, strict=True)
    ]


def rollouts(curve: Callable[[float], tuple[float, float]], steps: int = 30, groups: int = 4) -> list[dict[str, Any]]:
    """Groups of 8 rollouts whose mean reward and IoU follow `curve(t)`, t from 0 to 1."""
    rng = random.Random(8)
    rows = []
    for step in range(steps):
        reward, overlap = curve(step / (steps - 1))
        for g in range(groups):
            spans = [[0.0, 10 * min(1.0, max(0.01, overlap + rng.gauss(0, 0.05)))] for _ in range(8)]
            rewards = [reward + rng.gauss(0, 0.05) for _ in range(8)]
            rows.append({"step": step, "id": f"{g + groups * step}", "gt": [0.0, 10.0], "rewards": rewards, "spans": spans})
    return rows


def drifted(late: float) -> list[Prediction]:
    return [answer(s, ((p.start or 0) + late, (p.end or 0) + late)) for s, p in zip(TEST, healthy(TEST), strict=True)]


def scaled(factor: float) -> list[Prediction]:
    rows = []
    for sample, row in zip(TEST, healthy(TEST), strict=True):
        middle, half = ((row.start or 0) + (row.end or 0)) / 2, factor * ((row.end or 0) - (row.start or 0)) / 2
        rows.append(answer(sample, (middle - half, middle + half)))
    return rows


def of_other_events() -> list[Prediction]:
    """Every third answer is about another event of its video, early and late ones alike."""
    rng = random.Random(9)
    rows = []
    for i, (sample, row) in enumerate(zip(TEST, healthy(TEST), strict=True)):
        mates = [s for s in TEST if s.video == sample.video and s.id != sample.id]
        rows.append(answer(sample, rng.choice(mates).window) if i % 3 == 0 else row)
    return rows


def unparsable() -> list[Prediction]:
    return [Prediction(r.id, completion="I cannot tell") if i % 8 == 0 else r for i, r in enumerate(healthy(TEST))]


def hollow() -> list[Prediction]:
    """Every sixth answer keeps the form, with an end before its start."""
    rows = []
    for i, row in enumerate(healthy(TEST)):
        text = f"<think>hm</think><answer>{row.end:.2f} to {row.start:.2f}</answer>"
        rows.append(Prediction(row.id, row.end, row.start, text) if i % 6 == 0 else row)
    return rows


def planted(name: str) -> dict[str, Signature]:
    rng = random.Random(10)
    if name == "temporal_drift":
        return look(drifted(2.5))
    if name == "scale_bias":
        return look(scaled(1.6))
    if name == "semantic_misalignment":
        return look(of_other_events())
    if name == "one_answer":
        same = [answer(s, (12.0, 17.0)) for s in TEST]
        return look(same, swapped=table(same), shuffled=table(same))
    if name == "parse_failures":
        return look(unparsable())
    if name == "form_without_content":
        return look(hollow())
    if name.startswith("prior_following"):
        blind = [answer(s, t.window) for s, t in zip(TEST, shuffled_truth(TEST, 9), strict=True)]
        again = [
            answer(s, ((p.start or 0) + rng.gauss(0, 0.2), (p.end or 0) + rng.gauss(0, 0.2)))
            for s, p in zip(TEST, blind, strict=True)
        ]
        return look(blind, **{"swapped" if name.endswith("swap") else "shuffled": table(again)})
    if name == "out_of_distribution":
        blind_rows = [answer(s, t.window) for s, t in zip(TEST, shuffled_truth(TEST, 9), strict=True)]
        return look([b if "yellow" in s.query else r for s, r, b in zip(TEST, healthy(TEST), blind_rows, strict=True)])
    assert name == "reward_without_iou"
    return look(healthy(TEST), rollouts=rollouts(lambda t: (0.3 + 0.3 * t, 0.4)))


NAMES = (
    "temporal_drift", "scale_bias", "semantic_misalignment", "prior_following_swap", "prior_following_shuffle",
    "reward_without_iou", "form_without_content", "one_answer", "parse_failures", "out_of_distribution",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_fault_is_found_and_no_other(name: str) -> None:
    found = planted(name)
    assert set(found) == set(NAMES)
    assert [s.name for s in found.values() if s.flagged] == [name]
    assert found[name].samples
    low, high = found[name].interval or [1, 0]
    assert low <= (found[name].value or 0) <= high


def test_a_healthy_model_shows_none() -> None:
    for seed in range(2):
        found = look(healthy(TEST, seed))
        assert [s.name for s in found.values() if s.flagged] == []
        assert all(s.value is not None for s in found.values())


def test_drift_and_scale_say_how_much_and_to_which_side() -> None:
    late, early = look(drifted(2.5))["temporal_drift"], look(drifted(-2.5))["temporal_drift"]
    assert late.value == pytest.approx(2.5, abs=0.5)
    assert early.value == pytest.approx(-2.5, abs=0.5)
    assert early.flagged
    assert look(scaled(1.6))["scale_bias"].value == pytest.approx(1.6, abs=0.12)
    short = look(scaled(0.6))["scale_bias"]
    assert short.flagged
    assert short.value == pytest.approx(0.6, abs=0.08)


def test_samples_are_those_with_the_fault() -> None:
    broken = {r.id for r in unparsable() if r.start is None}
    assert set(look(unparsable())["parse_failures"].samples) == broken
    wrong = {r.id for i, r in enumerate(of_other_events()) if i % 3 == 0}
    listed = look(of_other_events())["semantic_misalignment"].samples
    assert sum(name in wrong for name in listed) / len(listed) > 0.85


def test_what_cannot_be_measured_says_so() -> None:
    found = {s.name: s for s in find_signatures(join(TEST[:5], healthy(TEST[:5])))}
    assert "reward_without_iou" not in found
    for name in ("temporal_drift", "scale_bias", "prior_following_swap", "out_of_distribution"):
        assert found[name].value is None
        assert not found[name].flagged
        assert found[name].note
    assert "training samples" in found["out_of_distribution"].note
    nothing = find_signatures(join(TEST, []))
    assert all(s.value is None and not s.flagged for s in nothing)


def test_reward_and_iou_together_are_no_exploitation() -> None:
    assert not reward_without_iou(rollouts(lambda t: (0.2 + 0.2 * t, 0.2 + 0.2 * t))).flagged
    assert not reward_without_iou(rollouts(lambda t: (0.4, 0.4))).flagged
    assert reward_without_iou(rollouts(lambda t: (0.2 + 0.2 * t, 0.4 - 0.2 * t))).flagged
    assert reward_without_iou([]).value is None


def test_why_a_query_is_unlike_training() -> None:
    train = [Sample("t", "v", "a red circle", 30, [(0, 1)], type="simple")]
    odd = [
        Sample("1", "v", "A red, red circle!", 30, type="simple"),
        Sample("2", "v", "a red dog", 30, type="simple"),
        Sample("3", "v", "a circle", 30, type="complex"),
        Sample("4", "v", "a circle", 300, type="simple"),
    ]
    assert unlike(odd, train) == ["", "word: dog", "type: complex", "length: 300 s"]
