"""`ground`: one answer for every kind of file, and settings that fit the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from make_videos import SHARED_VIDEOS, write_video
from tiny_kinds import KINDS, build_kind

from timer1lib.errors import Timer1Error
from timer1lib.inference import ground as module
from timer1lib.inference.ground import ground, shared_for
from timer1lib.models.load import LoadedModel, load_model
from timer1lib.params.sections import SharedParams

KEYS = {"start", "end", "duration", "completion", "model"}


@pytest.fixture(scope="module", params=KINDS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(build_kind(tmp_path_factory.mktemp("m") / request.param, request.param, hidden=32, layers=1))


def tiny_settings(loaded: LoadedModel) -> SharedParams:
    return SharedParams(model=loaded.name, frames=8)


@pytest.mark.skipif(not SHARED_VIDEOS.is_dir(), reason="../shared/data/videos is not there")
@pytest.mark.parametrize("path", sorted(SHARED_VIDEOS.glob("*")) if SHARED_VIDEOS.is_dir() else [], ids=lambda p: p.name)
def test_every_real_file_gets_an_answer(loaded: LoadedModel, path: Path) -> None:
    answer = ground(path, "person sitting down in a chair.", loaded=loaded, shared=tiny_settings(loaded), max_new_tokens=4)
    assert set(answer) == KEYS
    assert answer["duration"] > 0
    json.dumps(answer, allow_nan=False)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("<answer>1.5 to 2.5</answer>", 1.5, 2.5),
        ("nothing at all", None, None),
        ("<answer>9 to 3</answer>", 9.0, 3.0),
    ],
)
def test_the_completion_is_parsed(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, start: float | None, end: float | None
) -> None:
    monkeypatch.setattr(module, "_generate", lambda *a: text)
    path = write_video(tmp_path / "v.mp4", [i * 40 for i in range(100)])
    answer = ground(path, "a cat", loaded=loaded, shared=tiny_settings(loaded))
    assert (answer["start"], answer["end"], answer["completion"]) == (start, end, text)
    assert answer["duration"] == 4.0
    assert ground(path, "a cat", loaded=loaded, shared=tiny_settings(loaded), clip=(1.0, 3.0))["duration"] == 2.0


def test_bad_requests_are_errors_before_a_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timer1lib.models.load.load_model", lambda *a, **k: pytest.fail("loaded a model"))
    with pytest.raises(Timer1Error, match="query is empty"):
        ground(tmp_path / "v.mp4", "   ")
    with pytest.raises(Timer1Error, match=r"v\.mp4"):
        ground(tmp_path / "v.mp4", "a cat", model=str(tmp_path))


def test_settings_follow_the_model(tmp_path: Path) -> None:
    assert shared_for("assets/tiny-qwen3-vl") == SharedParams()
    other = shared_for("Qwen/Qwen2.5-VL-7B-Instruct")
    assert (other.sampling, other.fps, other.total_pixels, other.form) == ("fps", 2.0, 3584 * 28 * 28, "timer1")
    run = tmp_path / "run"
    (run / "checkpoints" / "grpo").mkdir(parents=True)
    (run / "params.yaml").write_text("name: run\nshared:\n  frames: 12\n  form: tvg_r1\n")
    assert shared_for(str(run / "checkpoints" / "grpo")).frames == 12
    assert shared_for(str(run / "checkpoints" / "grpo")).form == "tvg_r1"


@pytest.mark.parametrize(("query", "why"), [(" ", "is empty"), ("caf\udce9", "not UTF-8 text")])
def test_a_query_that_is_no_text_is_refused_before_a_model_is_loaded(query: str, why: str) -> None:
    with pytest.raises(Timer1Error, match=why):
        ground("no.mp4", query)
