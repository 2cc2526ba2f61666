"""Browser copies: what a browser can play, with the times of the frames that are really in it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from view_run import BITS, BLOCK, write_video

from timer1lib.errors import Timer1Error
from timer1lib.view import playable as module
from timer1lib.view.playable import playable, strip

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "videos"


def frame_numbers(content: bytes) -> list[int]:
    import av

    numbers = []
    with av.open(io.BytesIO(content)) as container:
        for frame in container.decode(video=0):
            image = frame.to_ndarray(format="gray")
            numbers.append(sum(1 << bit for bit in range(BITS) if image[BLOCK // 2, bit * BLOCK + BLOCK // 2] > 128))
    return numbers


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, 6.0, (2.0, 4.0), (200, 60, 60))
    return path


def test_an_upright_h264_mp4_is_served_as_it_is(clip: Path, tmp_path: Path) -> None:
    made = playable(clip, tmp_path)
    assert made.content == clip.read_bytes()
    assert made.mime == "video/mp4"
    np.testing.assert_allclose(made.frames, np.arange(60) / 10, atol=1e-5)
    assert made.duration == pytest.approx(6.0, abs=1e-3)


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("b.mkv", "libvpx-vp9")])
def test_matroska_is_copied_frame_for_frame(tmp_path: Path, name: str, codec: str) -> None:
    write_video(tmp_path / name, 3.0, (1.0, 2.0), (60, 60, 200), codec=codec)
    made = playable(tmp_path / name, tmp_path / "cache")
    assert made.mime == "video/mp4"
    assert frame_numbers(made.content) == list(range(30))
    np.testing.assert_allclose(made.frames, np.arange(30) / 10, atol=2e-3)
    assert playable(tmp_path / name, tmp_path / "cache") == made  # from the cache


def test_a_damaged_copy_is_made_again(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", 3.0, (1.0, 2.0), (60, 60, 200))
    made = playable(tmp_path / "a.mkv", tmp_path / "cache")
    (entry,) = (tmp_path / "cache" / "playable").glob("*/*.entry")
    content = bytearray(entry.read_bytes())
    content[-100] ^= 1
    entry.write_bytes(bytes(content))
    again = playable(tmp_path / "a.mkv", tmp_path / "cache")
    assert frame_numbers(again.content) == list(range(30))
    assert again.frames == made.frames


def test_a_clip_starts_at_zero_and_holds_its_part_only(clip: Path, tmp_path: Path) -> None:
    made = playable(clip, tmp_path, (2.05, 4.0))
    numbers = frame_numbers(made.content)
    assert numbers[0] == 20  # the frame on screen at 2.05 s
    assert numbers[-1] == 39
    assert made.frames[0] == 0.0
    assert made.frames[1] == pytest.approx(0.05, abs=1e-3)  # frame 21 comes at 2.10 s
    assert made.duration == pytest.approx(1.95, abs=0.06)


def test_size_is_bounded(tmp_path: Path) -> None:
    """Noise is the worst that an encoder can meet."""
    import av

    noise, path = np.random.default_rng(0), tmp_path / "noise.mp4"
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 192, 108, "yuv420p"
        for _ in range(50):
            picture = noise.integers(0, 255, (108, 192, 3), np.uint8)
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        sink.mux(stream.encode())
    assert path.stat().st_size > 400_000
    made = playable(path, tmp_path / "cache", max_bytes=200_000)
    assert len(made.content) <= 220_000
    assert len(made.frames) == 50


@pytest.mark.parametrize("content", [b"", b"this is no video", None])
def test_what_is_no_video_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Timer1Error, match=r"broken\.mp4"):
        playable(path, tmp_path / "cache")


def test_thumbnails_show_their_place_in_time(clip: Path, tmp_path: Path) -> None:
    """The disc is red from 2 to 4 s: only the pictures of that part are red."""
    from PIL import Image

    made = strip(playable(clip, tmp_path), 6.0)
    assert made.count == 10  # 107 pixels each
    image = np.asarray(Image.open(io.BytesIO(made.jpeg)).convert("RGB")).astype(int)
    each = made.width // made.count
    red = [bool(((part[..., 0] - part[..., 2]) > 80).any()) for part in (image[:, i * each : (i + 1) * each] for i in range(10))]
    expected = [2.0 <= (i + 0.5) * 0.6 < 4.0 for i in range(10)]
    assert red == expected


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared/data beside the project")
@pytest.mark.parametrize("name", ["av1_video.mkv", "h265_10bits.mp4", "nasa_13013_rotated.mp4", "test_non_zero_start.mp4"])
def test_awkward_files_become_playable(name: str, tmp_path: Path) -> None:
    import av

    made = playable(SHARED / name, tmp_path)
    with av.open(io.BytesIO(made.content)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert made.frames[0] == 0.0
    assert all(a < b for a, b in zip(made.frames, made.frames[1:], strict=False))
    if "rotated" in name:
        assert (made.width, made.height) == (270, 480)


def test_a_long_video_is_copied_by_its_key_frames_and_a_part_of_it_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limits made small: 12 s at 10 fps with a key frame every second stand for an hour."""
    monkeypatch.setattr(module, "MAX_FRAMES", 30)
    monkeypatch.setattr(module, "KEYS_FROM", 90)
    monkeypatch.setattr(module, "KEYS", 10)
    write_video(tmp_path / "long.mp4", 12.0, (2.0, 4.0), (200, 60, 60))
    whole = playable(tmp_path / "long.mp4", tmp_path / "cache")
    assert frame_numbers(whole.content) == list(range(0, 120, 10))
    assert whole.coarse
    assert whole.frames == pytest.approx(np.arange(12), abs=2e-3)
    assert whole.duration == pytest.approx(12.0, abs=0.01)
    part = playable(tmp_path / "long.mp4", tmp_path / "cache", (5.0, 7.5))
    assert frame_numbers(part.content) == list(range(50, 75))
    assert not part.coarse
    assert playable(tmp_path / "long.mp4", tmp_path / "cache").coarse  # from the cache
