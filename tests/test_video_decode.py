"""The frame that stands for second t is the frame of second t: pictures that carry their own number, both decoders."""

from __future__ import annotations

import ast
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from make_videos import SHARED_VIDEOS, container_times, number_in, rotate_mp4, shift_edit_list, write_video
from PIL import Image

from timer1lib.clock import Sampling
from timer1lib.errors import Timer1Error
from timer1lib.video import decode
from timer1lib.video.decode import damage as damage_of
from timer1lib.video.decode import read_frames
from timer1lib.video.probe import timeline
from timer1lib.view.playable import Playable, playable, strip

NATIVE = {"min_frame_pixels": 1, "total_pixels": 10**9, "factor": 2}
UNEVEN = [int(x) for x in np.cumsum(np.random.default_rng(0).integers(10, 400, 60))]


def made(folder: Path, kind: str) -> Path:
    even = [i * 40 for i in range(50)]
    if kind == "constant rate":
        return write_video(folder / "cfr.mp4", even)
    if kind == "B-frames":
        return write_video(folder / "b.mp4", even, b_frames=3)
    if kind == "29.97 fps":
        return write_video(folder / "ntsc.mp4", [i * 1001 for i in range(90)], Fraction(1, 30000), b_frames=2, gop=30)
    if kind == "variable rate mp4":
        return write_video(folder / "vfr.mp4", [t - UNEVEN[0] for t in UNEVEN], b_frames=2)
    if kind == "variable rate mkv":
        return write_video(folder / "vfr.mkv", UNEVEN)
    if kind == "starts at 5 s, mkv":
        return write_video(folder / "start.mkv", [5000 + t for t in even])
    if kind == "starts at 5 s, mp4":
        return write_video(folder / "start.mp4", [5000 + t for t in even], b_frames=2)
    if kind == "avi without timestamps":
        return write_video(folder / "x.avi", list(range(50)), Fraction(1, 25), codec="mpeg4")
    degrees = int(kind.split()[1])
    return rotate_mp4(write_video(folder / "rotated.mp4", even, stored_turn=degrees // 90), degrees)


KINDS = [
    "constant rate", "B-frames", "29.97 fps", "variable rate mp4", "variable rate mkv", "starts at 5 s, mkv",
    "starts at 5 s, mp4", "avi without timestamps", "rotated 90", "rotated 180", "rotated 270",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_each_frame_shows_the_second_it_stands_for(tmp_path: Path, kind: str) -> None:
    path = made(tmp_path, kind)
    truth = container_times(path)
    for sampling in (Sampling(rule="fps", fps=3.0, **NATIVE), Sampling(rule="frames", frames=11, **NATIVE)):
        for decoder in ("decord", "pyav"):
            frames = read_frames(path, sampling, decoder=decoder)
            shown = [number_in(pixels) for pixels in frames.pixels]
            np.testing.assert_allclose(frames.times_s, truth[shown], atol=1e-6, err_msg=f"{kind} {decoder}")
            assert (
                np.abs(frames.times_s - np.arange(len(frames)) * frames.step_s).max()
                <= np.diff(truth).max() / 2 + frames.step_s / 2
            )
    assert frames.pixels.shape[1:3] == (64, 256)


@pytest.mark.parametrize("kind", ["B-frames", "variable rate mkv", "starts at 5 s, mkv"])
def test_clip_times_count_from_the_clip(tmp_path: Path, kind: str) -> None:
    path = made(tmp_path, kind)
    truth = container_times(path)
    for decoder in ("decord", "pyav"):
        frames = read_frames(path, Sampling(rule="frames", frames=6, **NATIVE), clip=(0.7, 1.6), decoder=decoder)
        shown = truth[[number_in(pixels) for pixels in frames.pixels]]
        np.testing.assert_allclose(frames.times_s, shown - 0.7, atol=1e-6)
        assert ((shown >= 0.7) & (shown < 1.6)).all()
        assert frames.duration_s == pytest.approx(0.9)


def test_frames_before_an_edit_list_do_not_count(tmp_path: Path) -> None:
    path = shift_edit_list(write_video(tmp_path / "cut.mp4", [i * 40 for i in range(50)], b_frames=2), int(0.4 * 16000))
    frames = read_frames(path, Sampling(rule="frames", frames=8, **NATIVE))
    shown = [number_in(pixels) for pixels in frames.pixels]
    assert shown[0] == 10  # 0.4 s at 25 fps are cut away
    assert shown[-1] == 49
    np.testing.assert_allclose(frames.times_s, (np.array(shown) - 10) * 0.04, atol=1e-6)
    assert frames.decoder == "pyav"
    assert "50 frames and the container 40" in frames.reason


def test_three_hours_without_decoding_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "long.mkv", [i * 10_000 for i in range(1080)], gop=20)
    decoded = 0
    real = decode._find

    def counting(frames: Any, target: int) -> Any:
        def each() -> Any:
            nonlocal decoded
            for frame in frames:
                decoded += 1
                yield frame

        return real(each(), target)

    monkeypatch.setattr(decode, "_find", counting)
    sampling = Sampling(rule="frames", frames=8, **NATIVE)
    frames = read_frames(path, sampling, decoder="pyav")
    assert [number_in(p) for p in frames.pixels] == [round(t / 10) for t in frames.times_s]
    assert frames.times_s[-1] == 10790.0
    assert decoded <= 8 * 21
    assert (read_frames(path, sampling).pixels == frames.pixels).all()


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_short_files_fill_a_temporal_patch(tmp_path: Path, count: int) -> None:
    frames = read_frames(
        write_video(tmp_path / "short.mp4", [i * 40 for i in range(count)]), Sampling(rule="fps", fps=2.0, **NATIVE)
    )
    assert len(frames) == 2
    assert [number_in(p) for p in frames.pixels] == [0, count - 1]
    assert frames.duration_s == pytest.approx(count * 0.04)


def broken(folder: Path, kind: str) -> Path:
    whole = write_video(folder / "whole.mkv", [i * 200 for i in range(50)])
    if kind == "missing":
        return folder / "missing.mp4"
    path = folder / "broken.mp4"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not a video " * 50)
    elif kind == "cut off mp4":
        write_video(path, [i * 40 for i in range(50)])
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "cut off mkv":
        path = folder / "cut.mkv"
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    elif kind == "playlist":
        path = folder / "list.m3u8"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{whole}\n#EXT-X-ENDLIST\n")
    elif kind == "folder":
        path = folder
    elif kind == "audio only":
        path = folder / "sound.wav"
        import wave

        with wave.open(str(path), "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(8000)
            sound.writeframes(bytes(16000))
    elif kind == "no frames":
        import av

        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            container.start_encoding()
    return path


@pytest.mark.parametrize(
    "kind", ["missing", "empty", "text", "cut off mp4", "cut off mkv", "playlist", "folder", "audio only", "no frames"]
)
def test_broken_files_are_errors_that_name_the_file(tmp_path: Path, kind: str) -> None:
    path = broken(tmp_path, kind)
    with pytest.raises(Timer1Error) as caught:
        read_frames(path, Sampling(rule="frames", frames=4))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("clip", [(3.0, 1.0), (90.0, None), (-1.0, 1.0), (1.0, 1.0)])
def test_impossible_clips_are_errors(tmp_path: Path, clip: tuple[float, float | None]) -> None:
    path = write_video(tmp_path / "v.mp4", [i * 40 for i in range(50)])
    with pytest.raises(Timer1Error, match="clip"):
        read_frames(path, Sampling(), clip=clip)


@pytest.mark.skipif(not SHARED_VIDEOS.is_dir(), reason="../shared/data/videos is not there")
@pytest.mark.parametrize("path", sorted(SHARED_VIDEOS.glob("*")) if SHARED_VIDEOS.is_dir() else [], ids=lambda p: p.name)
def test_real_files_have_pyav_timestamps_in_both_decoders(path: Path) -> None:
    truth = container_times(path)
    sampling = Sampling(rule="frames", frames=9, total_pixels=64 * 28 * 28, min_frame_pixels=1)
    frames, other = read_frames(path, sampling), read_frames(path, sampling, decoder="pyav")
    np.testing.assert_allclose(frames.times_s, [truth[np.abs(truth - t).argmin()] for t in frames.times_s], atol=1e-6)
    np.testing.assert_allclose(frames.times_s, other.times_s)
    assert np.array_equal(frames.pixels, other.pixels)
    assert frames.decoder == ("pyav" if path.name.startswith(("av1", "h265_10bits")) else "decord")
    info = timeline(path)
    assert len(info.pts) == len(truth)
    assert info.duration_s > truth[-1]


@pytest.mark.skipif(not SHARED_VIDEOS.is_dir(), reason="../shared/data/videos is not there")
def test_timelines_of_special_files() -> None:
    rotated = timeline(SHARED_VIDEOS / "nasa_13013_rotated.mp4")
    assert (rotated.width, rotated.height, rotated.rotation) == (270, 480, 90)
    late = timeline(SHARED_VIDEOS / "test_non_zero_start.mp4")
    assert late.pts[0] * late.time_base == pytest.approx(127995 / 15360)


COLOURS = [(255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40), (40, 90, 180), (128, 128, 128)]
MATRICES = {"bt601": (0.299, 0.114, 6), "bt709": (0.2126, 0.0722, 1), "bt2020": (0.2627, 0.0593, 9)}
"""Kr and Kb of ITU-R BT.601, BT.709 and BT.2020, and the number of each in H.273."""


def colour_bars(path: Path, matrix: str, bits: int, full: bool, size: tuple[int, int], transfer: int = 1) -> Path:
    """Eight bars of known colours, written as the standards' own numbers."""
    kr, kb, number = MATRICES[matrix]
    rgb = np.array(COLOURS) / 255
    luma = rgb @ [kr, 1 - kr - kb, kb]
    chroma = [(rgb[:, 2] - luma) / (2 - 2 * kb), (rgb[:, 0] - luma) / (2 - 2 * kr)]
    scale, top = 1 << (bits - 8), (1 << bits) - 1
    coded = (
        [luma * top, *(c * top + 128 * scale for c in chroma)]
        if full
        else [(16 + 219 * luma) * scale, *((128 + 224 * c) * scale for c in chroma)]
    )
    height, width = size
    bar = np.arange(width) * len(COLOURS) // width
    planes = [np.clip(np.rint(value[bar]), 0, top).astype("u1" if bits == 8 else "<u2") for value in coded]
    pixel_format = {8: "yuv420p", 10: "yuv420p10le"}[bits]
    codec = "ffv1" if height % 2 or width % 2 else "libx264"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={"crf": "1"} if codec == "libx264" else {})
        stream.height, stream.width, stream.pix_fmt = height, width, pixel_format
        context = stream.codec_context
        context.colorspace, context.color_range, context.color_trc = number, 2 if full else 1, transfer
        for i in range(4):
            frame = av.VideoFrame(width, height, pixel_format)
            for plane, row in zip(frame.planes, (planes[0], planes[1][::2], planes[2][::2]), strict=True):
                lines = np.zeros((plane.height, plane.line_size // row.itemsize), row.dtype)
                lines[:, : len(row)] = row
                plane.update(lines.tobytes())
            frame.pts, frame.time_base, frame.colorspace, frame.color_range = i, Fraction(1, 10), number, 2 if full else 1
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


@pytest.mark.parametrize("size", [(64, 256), (63, 255)], ids=["even", "odd"])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("matrix", MATRICES)
def test_colours_are_the_ones_that_were_written(
    tmp_path: Path, matrix: str, bits: int, full: bool, size: tuple[int, int]
) -> None:
    path = colour_bars(tmp_path / "bars.mkv", matrix, bits, full, size)
    whole = Sampling(rule="frames", frames=2, min_frame_pixels=1, total_pixels=10**9, factor=1)
    frames = read_frames(path, whole)
    assert frames.pixels.shape[1:3] == size
    centres = [(2 * i + 1) * size[1] // (2 * len(COLOURS)) for i in range(len(COLOURS))]
    assert np.abs(frames.pixels[0, size[0] // 2, centres].astype(int) - COLOURS).max() <= 4
    plain = bits == 8 and size == (64, 256)
    assert frames.decoder == decode.choose_decoder(path) == ("decord" if plain else "pyav")
    assert np.array_equal(frames.pixels, read_frames(path, whole, decoder="pyav").pixels)


def test_hdr_keeps_its_code_values(tmp_path: Path) -> None:
    """No tone mapping: a PQ file has the colours that the same code values have without PQ."""
    sampling = Sampling(rule="frames", frames=2, **NATIVE)
    pq = read_frames(colour_bars(tmp_path / "pq.mkv", "bt2020", 10, False, (64, 256), transfer=16), sampling)
    plain = read_frames(colour_bars(tmp_path / "sdr.mkv", "bt2020", 10, False, (64, 256)), sampling)
    assert np.array_equal(pq.pixels, plain.pixels)


LISTS = {
    "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n",
    "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{}\n#EXT-X-ENDLIST\n",
    "concat.mp4": "ffconcat version 1.0\nfile '{}'\n",
    "call.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={}\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5000 RTP/AVP 96\n",
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_files_reaches_no_other_file(tmp_path: Path, name: str) -> None:
    outside = write_video(tmp_path / "outside.mp4", [i * 40 for i in range(50)])
    inside = tmp_path / "videos"
    inside.mkdir()
    (inside / name).write_text(LISTS[name].format(outside))
    for read in (
        timeline,
        damage_of,
        lambda path: read_frames(path, Sampling()),
        lambda path: playable(path, tmp_path / "cache"),
    ):
        with pytest.raises(Timer1Error, match=name.replace(".", r"\.")):
            read(inside / name)
    content = (inside / name).read_bytes()
    with pytest.raises((Timer1Error, av.FFmpegError)):
        strip(Playable(content, "video/mp4", [0.0], 2.0, 64, 64), 2.0)


def test_a_pattern_of_names_is_no_video(tmp_path: Path) -> None:
    for name in ("1.png", "2.png", "%d.png"):
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    with pytest.raises(Timer1Error):
        timeline(tmp_path / "%d.png")


def test_every_video_is_opened_in_one_place() -> None:
    """`av.open` elsewhere writes: its second argument is the mode."""
    library = Path(decode.__file__).resolve().parents[1]
    for path in library.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "av.open"):
                continue
            mode = [ast.unparse(argument) for argument in call.args[1:2]]
            assert mode == ["'w'"] or path.name == "probe.py", f"{path}:{call.lineno}"
