"""Reading letters, accuracy by hand, and grounded answers by the data sets' own definitions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timer1lib.clock.frames import Frames
from timer1lib.errors import Timer1Error
from timer1lib.evaluation.questions import accuracy, by_letter, compare, grounded, iop
from timer1lib.evaluation.scored import pair, score_pairs
from timer1lib.forms.reading import parse_letter
from timer1lib.params.sections import SharedParams
from timer1lib.schema import Prediction, Sample

CUPS = ["a cup", "a cup of tea", "a red ball", "none"]


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("B", 1),
        ("(C)", 2),
        (" A. a cup", 0),
        ("B: it is tea", 1),
        ("D)", 3),
        ("<think>maybe A</think> B", 1),
        ("<think>A or B</think><answer>C</answer>", 2),
        (r"<think>x</think> <time>[1.0, 2.0]</time> \boxed{D}", 3),
        (r"A \boxed{B. a cup of tea}", 1),
        ("The answer is C.", 2),
        ("I choose option B because of the tea", 1),
        ("it shows a red ball", 2),
        ("it shows a cup of tea", 1),
        ("a cup or a red ball", None),
        ("E", None),
        (r"\boxed{Z}", None),
        ("A lot of things happen", None),
        ("I do not know", None),
        ("", None),
    ],
)
def test_letters(text: str, index: int | None) -> None:
    assert parse_letter(text, CUPS) == index


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    index = parse_letter(text, CUPS)
    assert index is None or 0 <= index < 4


def test_endless_text_is_read_in_time() -> None:
    for text in ("A" * 100_000, "(" * 100_000, "<answer>" * 20_000, "answer is " * 10_000, " " * 100_000):
        parse_letter(text, CUPS)


def question(name: str, answer: int | None, options: int = 4, video: str = "v", kind: str = "", **more: object) -> Sample:
    return Sample(name, video, "q?", 10, options=list("wxyz")[:options], answer=answer, type=kind, **more)  # type: ignore[arg-type]


def test_accuracy_by_hand() -> None:
    samples = [
        question("a", 0, video="1", kind="count"),
        question("b", 1, 2, video="2", kind="pose"),
        question("c", 2, video="3", kind="count"),
        question("d", None, video="4"),
        question("e", 0, video="5", kind="pose"),
        question("f", 0, video="6", kind="pose"),
    ]
    rows = pair(
        samples,
        [
            Prediction("a", completion="A"),
            Prediction("b", answer=1),
            Prediction("c", completion="hm"),
            Prediction("f", error="x"),
        ],
    )
    result = accuracy(samples, rows, resamples=200)
    assert (result["n"], result["unknown"], result["answered"], result["unparsable"], result["missing"]) == (5, 1, 3, 1, 2)
    assert result["accuracy"] == 40
    assert result["chance"] == pytest.approx(100 * (4 * 0.25 + 0.5) / 5)
    assert result["always"] == 60, "A is right three times of five"
    assert result["by_type"]["count"]["accuracy"] == 50
    assert result["interval"]["accuracy"][0] <= 40 <= result["interval"]["accuracy"][1]
    assert by_letter(samples, rows) == {"A": 1, "B": 1, "none": 4}


def test_grounded_answers() -> None:
    windows = [(0.0, 4.0), (6.0, 10.0)]
    samples = [question(name, 0, video=name, windows=windows) for name in "abcd"]
    rows = pair(
        samples,
        [
            Prediction("a", 6, 9, answer=0),  # IoU 0.75, IoP 1, right
            Prediction("b", 1, 2, answer=0),  # IoU 0.25, IoP 1, right
            Prediction("c", 0, 4, answer=1),  # IoU 1, wrong option
            Prediction("d", 3, 7, answer=0),  # IoU 1/7, IoP 1/4 with either window
        ],
    )
    result = grounded(samples, rows, resamples=100)
    assert result["accuracy"] == 75
    assert result["Acc@IoU>=0.5"] == 25
    assert result["Acc@IoP>=0.5"] == 50
    assert result["mIoU"] == pytest.approx(100 * (0.75 + 0.25 + 1 + 1 / 7) / 4)
    assert result["mIoP"] == pytest.approx(100 * (1 + 1 + 1 + 0.25) / 4)
    assert result["IoP@0.3"] == 75
    assert iop(score_pairs(samples[:1], [Prediction("a", 5, 2)]).span, samples[:1])[0] == 0


def test_two_checkpoints_on_the_same_questions() -> None:
    samples = [question(str(i), i % 4, video=str(i)) for i in range(40)]
    first = [Prediction(s.id, answer=0) for s in samples]
    second = [Prediction(s.id, answer=s.answer if i < 30 else 0) for i, s in enumerate(samples)]
    result = compare(samples, first, second)
    right = sum(p.answer == s.answer for p, s in zip(second, samples, strict=True))
    assert result["difference"] == pytest.approx(100 * (right - 10) / 40)
    assert result["low"] > 0
    assert result["p"] < 0.01


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from timer1lib.models.load import load_model
    from timer1lib.world.base.tiny import build_tiny

    return load_model(build_tiny(tmp_path_factory.mktemp("tiny"), "qwen3_vl", seed=5))


class Pictures:
    """A store whose videos are noise of a seed taken from the name; one is broken."""

    def prefetch(self, *_: object) -> None:
        pass

    def get(self, path: Path, *_: object) -> Frames:
        if "broken" in path.name:
            raise Timer1Error(f"{path}: cannot be decoded")
        rng = np.random.default_rng(int(path.stem))
        return Frames(rng.integers(0, 255, (8, 56, 56, 3), dtype=np.uint8), np.arange(8.0), 8.0, 1.0, "none")


def test_choosing_by_likelihood_equals_the_plain_forward(model: Any, tmp_path: Path) -> None:
    import torch

    from timer1lib.inference.likelihood import choose, letter_tokens
    from timer1lib.models.inputs import encode_prompt, sample_prompt

    shared = SharedParams(frames=8, workers=0)
    samples = [
        Sample(f"{v}-{i}", f"{v}.mp4", text, 8.0, options=["a red circle", "a blue square", "nothing"][: 2 + i % 2], answer=0)
        for v in (1, 2, 3)
        for i, text in enumerate(("which object is there", "what comes first", "what is seen longest in the video"))
    ]
    broken = Sample("x", "broken.mp4", "what", 8.0, options=["a", "b"], answer=0)
    out = tmp_path / "choices.jsonl"
    rows = choose(model, [*samples, broken], lambda s: Path(s.video), shared, out, batch_size=4, store=Pictures())  # type: ignore[arg-type]
    assert rows[-1].error
    assert rows[-1].answer is None
    for sample, row in zip(samples, rows, strict=False):
        inputs = encode_prompt(model, Pictures().get(Path(sample.video)), sample_prompt(sample, shared))
        with torch.inference_mode():
            probabilities = model.model(**inputs).logits[0, -1].softmax(-1)
        each = [
            sum(float(probabilities[t]) for t in letter_tokens(model.tokenizer, letter))
            for letter in "ABC"[: len(sample.options or ())]
        ]
        assert row.answer == each.index(max(each))
        said = [float(part.split()[-1]) for part in row.completion.split("(")[1].rstrip(")").split(",")]
        assert said == pytest.approx([math.log(value) for value in each], abs=2e-3)
    again = choose(model, [*samples, broken], lambda s: Path("gone"), shared, out, batch_size=4, store=Pictures())  # type: ignore[arg-type]
    assert again == rows, "a finished file is not asked again"


def test_generated_letters_are_read(model: Any, tmp_path: Path) -> None:
    from timer1lib.inference.generate import predict

    samples = [Sample("a", "1.mp4", "which", 8.0, options=["x", "y"], answer=0, windows=[(0, 1)])]
    shared = SharedParams(frames=8, workers=0)
    options: dict[str, Any] = {"max_new_tokens": 4, "batch_size": 1, "store": Pictures()}
    plain = predict(model, samples, lambda s: Path(s.video), shared, tmp_path / "p.jsonl", **options)
    assert plain[0].parser == "plain"
    assert plain[0].answer == parse_letter(plain[0].completion, ["x", "y"])
    both = predict(model, samples, lambda s: Path(s.video), shared, tmp_path / "p.jsonl", grounded=True, **options)
    assert both[0].parser == "tvg_r1", "other wording, other form: asked anew"
