"""`timer1 clock`: what the tokens and positions say, for files that the test makes and for real ones."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from make_videos import SHARED_VIDEOS, container_times, write_video
from tiny_kinds import KINDS, build_kind

from timer1lib.clock import Sampling
from timer1lib.inference.clock_report import clock_report, format_clock, max_clock_error
from timer1lib.models.load import LoadedModel, load_clock
from timer1lib.schema import Sample
from timer1lib.view.figures import clock_figure

SMALL = {"min_frame_pixels": 1, "total_pixels": 56 * 56, "factor": 56}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: build_kind(root / kind, kind, hidden=32, layers=1) for kind in KINDS}


@pytest.fixture(scope="module")
def clocks(folders: dict[str, Path]) -> dict[str, LoadedModel]:
    return {family: load_clock(folder) for family, folder in folders.items()}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("videos")
    uneven = [int(x) for x in np.cumsum(np.random.default_rng(3).integers(10, 300, 60))]
    return {
        "even": write_video(root / "even.mp4", [i * 40 for i in range(251)]),
        "ntsc": write_video(root / "ntsc.mp4", [i * 1001 for i in range(200)], Fraction(1, 30000), b_frames=2),
        "uneven": write_video(root / "uneven.mkv", uneven),
        "late": write_video(root / "late.mkv", [5000 + i * 40 for i in range(100)]),
        "short": write_video(root / "short.mp4", [0]),
        "three": write_video(root / "three.mp4", [0, 400, 800]),
    }


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("kind", ["even", "ntsc", "uneven", "late", "short", "three"])
def test_the_error_stays_under_half_a_frame_step(
    clocks: dict[str, LoadedModel], videos: dict[str, Path], family: str, kind: str
) -> None:
    report = clock_report(videos[kind], loaded=clocks[family])
    truth = container_times(videos[kind])
    spacing = float(np.diff(truth).max()) if len(truth) > 1 else 0.0
    assert report["warnings"] == []
    rounding = 0.0 if family == "qwen2_5_vl" else 0.05
    assert report["max_error_s"] <= report["step_s"] / 2 + spacing / 2 + rounding + 1e-6
    for row in report["frames"]:
        assert np.abs(truth - row["true_s"]).min() < 1e-5
        assert row["error_s"] == pytest.approx(abs(row["told_s"] - row["true_s"]), abs=1e-5)


def test_what_qwen3_vl_reads_is_the_mean_of_each_pair(clocks: dict[str, LoadedModel], videos: dict[str, Path]) -> None:
    rows = clock_report(videos["even"], loaded=clocks["qwen3_vl"])["frames"]
    told = [row["told_s"] for row in rows]
    # 10 s at 25 fps, 2 frames a second: 0.25 is written as 0.2 (half to even), 1.26 as 1.3: frames at 0.52 and 1.48.
    true = [row["true_s"] for row in rows]
    assert told[0::2] == [float(f"{(a + b) / 2:.1f}") for a, b in zip(true[0::2], true[1::2] + [true[-1]], strict=True)]
    assert told[0:-1:2] == told[1::2]
    assert len(told) == 21  # the last frame, at 10.0 s, is there and alone in its patch
    assert (true[-1], told[-1]) == (10.0, 10.0)


def test_what_qwen2_5_vl_is_told_are_its_positions(clocks: dict[str, LoadedModel], videos: dict[str, Path]) -> None:
    report = clock_report(videos["even"], loaded=clocks["qwen2_5_vl"])
    first = report["frames"][0]["position"]
    # 2 tokens a second, 2 frames a second, 2 frames a patch: two positions from patch to patch.
    assert [row["position"] - first for row in report["frames"]] == [2 * (i // 2) for i in range(21)]
    assert report["text_position"] == report["frames"][-1]["position"] + 1
    assert [row["told_s"] for row in report["frames"]] == [i // 2 + 0.25 for i in range(20)] + [10.0]


@pytest.mark.parametrize("family", KINDS)
def test_a_fast_clock_is_found(clocks: dict[str, LoadedModel], videos: dict[str, Path], family: str) -> None:
    report = clock_report(videos["even"], loaded=clocks[family], sampling=Sampling(fps=2.0, time_scale=1.1, **SMALL))
    assert report["max_error_s"] == pytest.approx(1.0, abs=0.31)  # 10% of 10 s
    assert any("frame 20" in text for text in report["warnings"])
    assert any("time_scale" in text for text in report["warnings"])
    assert report["frames"][2]["told_s"] > report["frames"][2]["true_s"]


@pytest.mark.parametrize("family", KINDS)
def test_a_wrong_text_position_is_found(folders: dict[str, Path], videos: dict[str, Path], family: str) -> None:
    report = clock_report(videos["even"], folders[family], clock_rule="wrong_text")
    assert any("text after the video" in text for text in report["warnings"])
    # Qwen2.5-VL's ten seconds are 20 positions, which this prompt's text runs past; Qwen3-VL's timestamps are more.
    assert family == "qwen2_5_vl" or any("jump" in text for text in report["warnings"])
    assert "WRONG" in report["rule"]


def test_coarse_positions_are_named_as_the_cause(clocks: dict[str, LoadedModel], videos: dict[str, Path]) -> None:
    # 32 frames in 10 s: 0.65 s a patch, but a position is half a second.
    report = clock_report(videos["even"], loaded=clocks["qwen2_5_vl"], sampling=Sampling(rule="frames", frames=32, **SMALL))
    assert "whole multiples of 0.5 s" in report["warnings"][0]
    assert report["max_error_s"] < 0.5 + report["step_s"]


@pytest.mark.parametrize("family", KINDS)
def test_the_manifest_number_equals_the_tokens(
    folders: dict[str, Path], clocks: dict[str, LoadedModel], videos: dict[str, Path], family: str
) -> None:
    for sampling in (
        Sampling(fps=2.0, **SMALL),
        Sampling(rule="frames", frames=13, **SMALL),
        Sampling(time_scale=1.1, **SMALL),
    ):
        for path in videos.values():
            sample = Sample(id="x", video=path.name, query="q", video_start=None)
            quick = max_clock_error([sample], path.parent, sampling, str(folders[family]))
            read = clock_report(path, loaded=clocks[family], sampling=sampling)
            assert quick["max_error_s"] == pytest.approx(read["max_error_s"], abs=1e-5)
            assert quick["over_limit"] == int(any(text.startswith("frame ") for text in read["warnings"]))


def test_clips_and_broken_files_in_the_manifest_number(folders: dict[str, Path], videos: dict[str, Path]) -> None:
    (videos["even"].parent / "broken.mp4").write_bytes(b"no")
    samples = [
        Sample(id="clip", video="even.mp4", query="q", video_start=2.0, video_end=7.0),
        Sample(id="broken", video="broken.mp4", query="q"),
        Sample(id="outside", video="../x.mp4", query="q"),
    ]
    result = max_clock_error(samples, videos["even"].parent, Sampling(fps=2.0, **SMALL), str(folders["qwen2_5_vl"]))
    assert result["id"] == "clip"
    assert result["max_error_s"] == pytest.approx(0.27, abs=0.03)
    assert set(result["failed"]) == {"broken", "outside"}
    assert result["samples"] == 3


def test_clip_report_counts_from_the_clip(clocks: dict[str, LoadedModel], videos: dict[str, Path]) -> None:
    report = clock_report(videos["even"], loaded=clocks["qwen3_vl"], clip=(4.0, 8.0))
    assert report["duration_s"] == pytest.approx(4.0)
    assert report["frames"][0]["true_s"] == 0.0
    assert report["frames"][-1]["true_s"] < 4.0
    assert report["warnings"] == []


def test_table_and_plot(clocks: dict[str, LoadedModel], videos: dict[str, Path]) -> None:
    report = clock_report(videos["three"], loaded=clocks["qwen3_vl"])
    text = format_clock(report)
    assert "no warnings" in text
    assert len([line for line in text.splitlines() if line.strip()[:1].isdigit()]) == len(report["frames"])
    figure = clock_figure(report)
    assert list(figure.data[1].x) == [row["true_s"] for row in report["frames"]]


@pytest.mark.skipif(not SHARED_VIDEOS.is_dir(), reason="../shared/data/videos is not there")
@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("path", sorted(SHARED_VIDEOS.glob("*")) if SHARED_VIDEOS.is_dir() else [], ids=lambda p: p.name)
def test_real_files_have_no_warning(clocks: dict[str, LoadedModel], family: str, path: Path) -> None:
    report = clock_report(path, loaded=clocks[family])
    assert report["warnings"] == []
    spacing = float(np.median(np.diff(container_times(path))))
    assert report["max_error_s"] <= report["step_s"] / 2 + spacing / 2 + 0.05 + 2e-3
