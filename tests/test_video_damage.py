"""Videos damaged behind their first frame: none is taken with wrong frames, and everything goes on without them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from make_videos import SHARED_VIDEOS, write_video

from timer1lib.data.audit import audit_files
from timer1lib.errors import Timer1Error
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Sample
from timer1lib.video import decode, decoders
from timer1lib.video.decode import damage
from timer1lib.video.decoders import WorkerPool
from timer1lib.video.store import FrameStore

CODECS = {
    "a.mp4": "libx264",
    "b.mkv": "libx264",
    "c.avi": "mpeg4",
    "d.webm": "libvpx-vp9",
    "e.mp4": "libx265",
    "f.mpg": "mpeg2video",
}


def draw(path: Path, codec: str = "libx264", frames: int = 60) -> Path:
    """A box that moves over noise, so that every frame holds many bits."""
    rng = np.random.default_rng(0)
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        stream.codec_context.gop_size = 12
        for i in range(frames):
            pixels = rng.integers(100, 140, (96, 128, 3)).astype(np.uint8)
            pixels[20:60, (2 * i) % 90 : (2 * i) % 90 + 30] = (255, 40, 4 * i)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def pictures(path: Path) -> dict[int, str]:
    with av.open(str(path)) as container:
        shown = container.decode(container.streams.video[0])
        return {frame.pts: hashlib.sha256(frame.to_ndarray(format="rgb24").tobytes()).hexdigest() for frame in shown}


def middle(path: Path) -> tuple[int, int]:
    """Where the bytes of the frames after the first quarter begin, and where those of the last few do."""
    with av.open(str(path)) as container:
        at = sorted(packet.pos for packet in container.demux(video=0) if packet.size and packet.pos)
    return at[len(at) // 4], at[-3]


def flipped(raw: bytearray, start: int, end: int, rng: random.Random) -> bytearray:
    for _ in range(300):
        raw[rng.randrange(start, end)] = rng.randrange(256)
    return raw


def zeroed(raw: bytearray, start: int, end: int, rng: random.Random) -> bytearray:
    at = rng.randrange(start, end - 4000)
    raw[at : at + 4000] = bytes(4000)
    return raw


def cut_off(raw: bytearray, start: int, end: int, rng: random.Random) -> bytearray:
    return raw[: rng.randrange(start, end)]


def cut_out(raw: bytearray, start: int, end: int, rng: random.Random) -> bytearray:
    at = rng.randrange(start, end - 1000)
    del raw[at : at + rng.randrange(1, 1000)]
    return raw


Harm = Callable[[bytearray, int, int, random.Random], bytearray]


def remux_without(source: Path, target: Path, lost: set[int]) -> Path:
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            if packet.dts is not None and number not in lost:
                packet.stream = stream
                new.mux(packet)
    return target


def taken(path: Path) -> bool:
    try:
        return damage(path) == ""
    except Timer1Error:
        return False


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("whole") / "v.mp4")


@pytest.mark.parametrize("name", ["a.mp4", "b.mkv"])
@pytest.mark.parametrize("harm", [flipped, zeroed, cut_off, cut_out])
def test_no_damaged_file_is_taken_with_wrong_frames(tmp_path: Path, name: str, harm: Harm) -> None:
    source = draw(tmp_path / name)
    truth, (start, end) = pictures(source), middle(source)
    for seed in range(6):
        path = tmp_path / f"{seed}{source.suffix}"
        path.write_bytes(harm(bytearray(source.read_bytes()), start, end, random.Random(seed)))
        if taken(path):
            assert pictures(path) == truth, seed


@pytest.mark.parametrize("name", ["a.mp4", "b.mkv"])
def test_lost_packets_are_found(tmp_path: Path, name: str) -> None:
    source = draw(tmp_path / name)
    truth = pictures(source)
    for first in (5, 17, 30):
        path = remux_without(source, tmp_path / f"{first}{source.suffix}", {first, first + 1, first + 2})
        if taken(path):
            assert pictures(path).items() <= truth.items()


@pytest.mark.parametrize("name", CODECS)
def test_whole_files_are_taken(tmp_path: Path, name: str) -> None:
    assert damage(draw(tmp_path / name, CODECS[name])) == ""
    assert damage(write_video(tmp_path / "b.mp4", [40 * i for i in range(50)], b_frames=3)) == ""
    assert damage(write_video(tmp_path / "uneven.mkv", [0, 10, 400, 410, 2000, 2010])) == ""


@pytest.mark.skipif(not SHARED_VIDEOS.is_dir(), reason="../shared/data/videos is not there")
def test_real_files_are_taken() -> None:
    assert [path.name for path in sorted(SHARED_VIDEOS.glob("*")) if damage(path)] == []


def harmed(source: Path, target: Path) -> Path:
    raw = bytearray(source.read_bytes())
    target.write_bytes(zeroed(raw, *middle(source), random.Random(0)))
    return target


def test_a_verdict_is_reached_once_for_each_content(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = harmed(whole, tmp_path / "bad.mp4")
    files = [whole, bad, tmp_path / "none.mp4"]
    with FrameStore(tmp_path / "cache", workers=1) as frames:
        first = frames.damaged(files)
    assert first[whole] == ""
    assert first[bad]
    assert "no such video" in first[files[2]]
    monkeypatch.setattr(WorkerPool, "run", lambda *a: pytest.fail("decoded twice"))
    moved = (tmp_path / "moved.mp4").resolve()
    moved.write_bytes(bad.read_bytes())
    again = FrameStore(tmp_path / "cache").damaged([whole, moved])
    assert (again[whole], again[moved]) == ("", first[bad])


def rows_about(folder: Path, whole: Path) -> Path:
    (folder / "good.mp4").write_bytes(whole.read_bytes())
    harmed(whole, folder / "bad.mp4")
    annotations = folder / "rows.jsonl"
    row = {"query": "a box moves", "duration": 2.4, "windows": [[0.2, 1.4]]}
    text = [json.dumps({**row, "id": name, "video": f"{name}.mp4"}) for name in ("good", "bad")]
    annotations.write_text("\n".join(text) + "\n")
    return annotations


def test_the_audit_lists_and_drops_rows_about_damaged_videos(tmp_path: Path, whole: Path) -> None:
    annotations = rows_about(tmp_path, whole)
    shallow = audit_files([annotations], videos=tmp_path)
    assert (shallow.findings, shallow.rows["kept"]) == ({}, 2)
    frames = FrameStore(tmp_path / "cache")
    report = audit_files([annotations], videos=tmp_path, deep=frames)
    assert report.findings == {"damaged": 1}
    assert report.dropped_by == {"damaged": 1}
    assert "bad.mp4" in report.details[0].message
    assert [sample.id for sample in report.samples[str(annotations)]] == ["good"]
    kept = audit_files([annotations], videos=tmp_path, deep=frames, treatments={"damaged": "keep"})
    assert kept.rows["kept"] == 2


def test_a_run_reads_nothing_from_a_damaged_video(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.set_video_root(tmp_path, {"bad.mp4": "a corrupt frame"})
    asked = [Sample(id=name, video=f"{name}.mp4", query="q", duration=1.0, windows=[(0.0, 1.0)]) for name in ("good", "bad")]
    assert run.video(asked[0]) == (tmp_path / "good.mp4").resolve()
    with pytest.raises(Timer1Error, match=r"damaged video.*corrupt"):
        run.video(asked[1])


def test_a_decoder_that_crashes_on_a_file_is_a_verdict(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "_ask", lambda worker, message: (worker.kill(), "")[1])
    assert "died" in FrameStore(tmp_path).damaged([whole])[whole]


def test_levels_of_the_log_are_given_back(whole: Path) -> None:
    before = av.logging.get_level()
    decode.damage(whole)
    assert av.logging.get_level() == before
