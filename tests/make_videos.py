"""Small video files whose pictures say which frame they are: 16 white or black bars are the frame's number in binary."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 16
HEIGHT, WIDTH = 64, 16 * BITS
SHARED_VIDEOS = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "videos"


def picture(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """uint8 [H, W, 3]: bar b is white where bit b of `number` is set."""
    bars = np.array([(number >> b) & 1 for b in range(BITS)], dtype=np.uint8) * 255
    return np.repeat(np.broadcast_to(np.repeat(bars, width // BITS), (height, width))[..., None], 3, axis=2)


def number_in(pixels: np.ndarray) -> int:
    """The number that a frame [H, W, 3] shows, at any size."""
    height, width = pixels.shape[:2]
    row = pixels[height // 3 : 2 * height // 3].mean(axis=(0, 2))
    return sum(1 << b for b in range(BITS) if row[int((b + 0.5) * width / BITS)] > 127)


def write_video(
    path: Path,
    pts: Sequence[int],
    time_base: Fraction = Fraction(1, 1000),
    *,
    codec: str = "libx264",
    gop: int = 12,
    b_frames: int = 0,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    last_duration: int | None = None,
    stored_turn: int = 0,
) -> Path:
    """One frame for each timestamp (in `time_base`), numbered from 0.

    `size` is height, width of the upright picture; it is stored after `stored_turn` quarter turns counterclockwise.
    """
    options = (
        {"bf": str(b_frames), "preset": "ultrafast" if not b_frames else "fast", "sc_threshold": "0"}
        if codec == "libx264"
        else {}
    )
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(25), options=options)
        stream.height, stream.width = size if stored_turn % 2 == 0 else size[::-1]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = time_base
        stream.time_base = time_base
        for number, stamp in enumerate(pts):
            pixels = np.ascontiguousarray(np.rot90(picture(number, *size), stored_turn))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = stamp, time_base
            frame.duration = (pts[number + 1] - stamp) if number + 1 < len(pts) else (last_duration or 0)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def rotate_mp4(path: Path, degrees: int) -> Path:
    """Write a display matrix into an mp4's track header: players turn the picture clockwise by `degrees`."""
    raw = bytearray(path.read_bytes())
    at = raw.index(b"tkhd") + 4 + 40
    one = 0x10000
    matrix = {90: (0, one, 0, -one, 0, 0), 180: (-one, 0, 0, 0, -one, 0), 270: (0, -one, 0, one, 0, 0)}[degrees]
    raw[at : at + 36] = struct.pack(">9i", *matrix, 0, 0, 0x40000000)
    path.write_bytes(raw)
    return path


def shift_edit_list(path: Path, ticks: int) -> Path:
    """Let an mp4's edit list start `ticks` later, as a cut without re-encoding does; earlier frames are not shown."""
    raw = bytearray(path.read_bytes())
    at = raw.index(b"elst") + 4
    assert raw[at] == 0, "version 0 edit list expected"
    duration, media_time = struct.unpack(">Ii", raw[at + 8 : at + 16])
    raw[at + 8 : at + 16] = struct.pack(">Ii", duration, media_time + ticks)
    path.write_bytes(raw)
    return path


def container_times(path: Path) -> np.ndarray:
    """Seconds of every shown frame from the first, by decoding the whole file with PyAV: the independent truth."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stamps = [frame.pts for frame in container.decode(stream)]
        return (np.array(stamps) - stamps[0]) * float(stream.time_base)
