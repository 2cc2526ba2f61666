"""The shipped base: it grounds, and it does so by looking at the video."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from timer1lib.files import project_root, resolve
from timer1lib.inference.generate import predict
from timer1lib.models.load import load_model
from timer1lib.params.sections import SharedParams
from timer1lib.schema import Sample
from timer1lib.spans import iou
from timer1lib.world.base.tiny import parameter_count
from timer1lib.world.splits import build_splits

BASE = SharedParams().model


def test_it_is_an_ordinary_small_folder_with_its_record() -> None:
    folder = resolve(BASE)
    assert sum(f.stat().st_size for f in folder.iterdir()) <= 10e6
    assert 1e6 <= parameter_count(folder) <= 5e6
    assert not list(folder.glob("*.py"))
    card = json.loads((folder / "training.json").read_text())
    assert card["parameters"] == parameter_count(folder)
    curve = [json.loads(line)["loss"] for line in (folder / "curve.jsonl").read_text().splitlines()]
    assert curve[-1] < 0.5 * curve[5]
    assert (project_root() / "assets").is_dir()


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Sample], dict[str, list[float]]]:
    """IoU of the base's answers on 30 fresh videos: as they are, on another's video, on shuffled frames."""
    folder = tmp_path_factory.mktemp("base")
    samples = build_splits(folder / "world", train_videos=0, test_videos=30, ood_videos=0, questions=0, seed=77, workers=2)[
        "test_id"
    ]
    shared = SharedParams(cache_dir=str(folder / "cache"), workers=0)
    loaded = load_model(BASE, device="cpu")
    ious = {}
    for change in (None, "swap", "shuffle"):
        answers = predict(
            loaded, samples, lambda s: Path(folder / "world" / s.video), shared, folder / f"{change}.jsonl",
            max_new_tokens=40, batch_size=64, perturb=change,  # type: ignore[arg-type]
        )  # fmt: skip
        ious[str(change)] = [iou(a.span, s.window) for a, s in zip(answers, samples, strict=True)]
    return samples, ious


def test_it_grounds_well_above_the_whole_video(asked: tuple[list[Sample], dict[str, list[float]]]) -> None:
    samples, ious = asked
    whole = np.mean([iou((0.0, s.duration or 0.0), s.window) for s in samples])
    assert np.mean(ious["None"]) > whole + 0.15


def test_what_it_learnt_is_in_the_frames(asked: tuple[list[Sample], dict[str, list[float]]]) -> None:
    _, ious = asked
    assert np.mean(ious["swap"]) < np.mean(ious["None"]) - 0.15
    assert np.mean(ious["shuffle"]) < np.mean(ious["None"]) - 0.15
