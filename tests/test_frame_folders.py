"""A folder of images is a video: clocked, decoded, cached, checked, shown and audited like the file it was taken from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_videos import number_in, picture
from PIL import Image

from timer1lib.clock import Sampling
from timer1lib.data.audit import audit_files
from timer1lib.data.video_checks import VideoFolder
from timer1lib.errors import Timer1Error
from timer1lib.inference.clock_report import max_clock_error
from timer1lib.schema import Sample
from timer1lib.video.decode import choose_decoder, damage, read_frames
from timer1lib.video.probe import timeline
from timer1lib.video.store import FrameStore
from timer1lib.view.playable import playable, strip

UNEVEN = [2.0, 2.4, 3.5, 3.6, 6.0, 7.0, 9.5, 10.0]
SAMPLING = Sampling(rule="frames", frames=4, min_frame_pixels=1, total_pixels=10**9, factor=2)


def folder_of(path: Path, names: list[str], **files: Any) -> Path:
    path.mkdir(parents=True)
    for number, name in enumerate(names):
        Image.fromarray(picture(number)).save(path / name)
    for name, value in files.items():
        text = value if isinstance(value, str) else json.dumps(value)
        (path / name.replace("_", ".")).write_text(text)
    return path


def plain(count: int = 8) -> list[str]:
    return [f"f{i}.png" for i in range(count)]


def kinds(root: Path) -> dict[str, Path]:
    """The same frames at the same times, said in every way."""
    names = plain()
    rows = "".join(f"{name},{time}\n" for name, time in zip(names, UNEVEN, strict=True))
    return {
        "list": folder_of(root / "list", names, times_json=UNEVEN),
        "by name": folder_of(root / "name", names, times_json={"times": dict(zip(names, UNEVEN, strict=True))}),
        "csv": folder_of(root / "csv", names, times_csv="file,seconds\n" + rows),
        "text": folder_of(root / "text", names, timestamps_txt="\n".join(map(str, UNEVEN))),
        "names": folder_of(root / "names", [f"frame_{time:09.2f}.png" for time in UNEVEN]),
    }


def test_times_are_read_from_files_and_names(tmp_path: Path) -> None:
    for what, folder in kinds(tmp_path).items():
        line = timeline(folder)
        np.testing.assert_allclose(line.times_s, np.array(UNEVEN) - 2.0, atol=1e-9, err_msg=what)
        assert line.duration_s == pytest.approx(8.0 + np.median(np.diff(UNEVEN)))  # the last frame as long as the median one
        assert (line.width, line.height, choose_decoder(folder)) == (256, 64, "images")
    fps = folder_of(tmp_path / "fps", [f"{i}.png" for i in (10, 9, 8)], times_json={"fps": 2.0})
    assert timeline(fps).times_s.tolist() == [0.0, 0.5, 1.0]
    assert timeline(fps).duration_s == 1.5
    frames = read_frames(fps, Sampling(rule="frames", frames=3, min_frame_pixels=1, total_pixels=10**9, factor=2))
    assert [number_in(f) for f in frames.pixels] == [2, 1, 0]  # 8, 9, 10: by number, not by letter
    stated = folder_of(tmp_path / "stated", plain(3), times_json={"times": [0, 1, 5], "duration": 9})
    assert timeline(stated).duration_s == 9.0


def test_frames_clips_and_the_store(tmp_path: Path) -> None:
    folder = kinds(tmp_path)["list"]
    every = read_frames(folder, Sampling(rule="frames", frames=8, min_frame_pixels=1, total_pixels=10**9, factor=2))
    # an even grid over 0 to 8 s, each point with the frame nearest to it
    nearest = [int(np.abs(np.array(UNEVEN) - 2 - at).argmin()) for at in np.linspace(0, 8, 8)]
    assert [number_in(f) for f in every.pixels] == nearest
    np.testing.assert_allclose(every.times_s, np.array(UNEVEN)[nearest] - 2)
    clip = read_frames(folder, SAMPLING, (1.0, 5.0))
    assert {number_in(f) for f in clip.pixels} <= {2, 3, 4}
    assert clip.duration_s == 4.0
    with FrameStore(tmp_path / "cache", workers=1) as store:
        store.prefetch([(folder, SAMPLING, (None, None))])
        first = store.get(folder, SAMPLING)
        assert np.array_equal(first.pixels, read_frames(folder, SAMPLING).pixels)
        before = store.key(folder, SAMPLING)
        Image.fromarray(picture(99)).save(folder / "f0.png")
        assert store.key(folder, SAMPLING) != before
        assert number_in(store.get(folder, SAMPLING).pixels[0]) == 99


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "when is f0.png"),
        ({"times_json": [0, 1]}, "2 times for 3 images"),
        ({"times_json": [0, 1, 1]}, "no two the same"),
        ({"times_json": [-1, 0, 1]}, "0 or more"),
        ({"times_json": {"f0.png": 0, "f1.png": 1}}, "f2.png has no time"),
        ({"times_json": {"f0.png": 0, "f1.png": 1, "f2.png": 2, "../x.png": 3}}, "not there"),
        ({"times_json": {"fps": 0}}, "no frame rate"),
        ({"times_json": '{"times": [0, 1, NaN]}'}, "0 or more"),
        ({"times_json": {"times": [0, 1, 5], "duration": 3}}, "over before the last frame"),
        ({"times_csv": "name,when\nf0.png,1\n"}, "no frame times"),
        ({"timestamps_txt": "0\none\n2\n"}, "no frame times"),
        ({"times_json": "[1,"}, "not JSON"),
    ],
)
def test_wrong_times_are_one_line_that_names_the_folder(tmp_path: Path, files: dict[str, Any], said: str) -> None:
    folder = folder_of(tmp_path / "v", plain(3), **files)
    with pytest.raises(Timer1Error, match="v") as error:
        timeline(folder)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_damage_is_found(tmp_path: Path) -> None:
    folder = kinds(tmp_path)["list"]
    assert damage(folder) == ""
    whole = (folder / "f3.png").read_bytes()
    (folder / "f3.png").write_bytes(whole[: len(whole) // 2])
    assert "f3.png" in damage(folder)
    Image.fromarray(picture(3, 32, 128)).resize((128, 32)).save(folder / "f3.png")
    assert "f3.png is 128x32, the first image 256x64" in damage(folder)
    (folder / "f3.png").unlink()
    (folder / "f3.png").symlink_to("/etc/passwd")
    with pytest.raises(Timer1Error, match="8 times for 7 images"):
        timeline(folder)


def test_a_browser_is_shown_a_film_of_it(tmp_path: Path) -> None:
    folder = kinds(tmp_path)["list"]
    made = playable(folder, tmp_path / "cache")
    assert made.frames == pytest.approx([t - 2 for t in UNEVEN], abs=1e-3)
    assert made.mime == "video/mp4"
    assert playable(folder, tmp_path / "cache") == made
    assert strip(made, 9.0).count > 1
    assert playable(folder, tmp_path / "cache", (1.4, 5.0)).frames == pytest.approx([0.0, 0.1, 0.2, 2.6], abs=1e-3)


def test_the_audit_and_the_clock_take_it_for_a_video(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for name, folder in kinds(videos / "set").items():
        folder.rename(videos / "set" / name.replace(" ", ""))
    rows = [
        {"id": "1", "video": "set/list", "query": "the bars change", "duration": 8.9, "windows": [[1, 4]], "split": "train"},
        {"id": "2", "video": "csv", "query": "bars stand still", "duration": 20.0, "windows": [[1, 4]], "split": "train"},
        {"id": "3", "video": "nowhere", "query": "a bar falls", "duration": 8.9, "windows": [[1, 4]], "split": "train"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = audit_files([tmp_path / "rows.jsonl"], videos=videos, deep=FrameStore(tmp_path / "cache"))
    assert {(f.id, f.code) for f in report.details} == {("2", "duration_mismatch"), ("3", "missing_video")}
    assert [s.video for s in report.samples[str(tmp_path / "rows.jsonl")]] == ["set/list", "set/csv"]
    assert VideoFolder(videos).find("set") is None  # a folder of folders is no video
    samples = [Sample("1", "set/list", "q", 8.9)]
    clock = max_clock_error(samples, videos, Sampling("frames", frames=8, factor=28), "assets/tiny-qwen3-vl")
    assert clock["failed"] == {}
    assert clock["decoders"] == {"images": 1}
    assert clock["over_limit"] == 0
