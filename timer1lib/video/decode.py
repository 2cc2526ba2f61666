"""Decoding: decord or PyAV, one of them for a file by rule, with the same frames, times and colours.

Colours: the file's own matrix (BT.601 where it names none, BT.709, BT.2020) and range, 8 bit a channel. Wider gamuts and HDR
are not mapped: a PQ or HLG file keeps its code values and looks flat.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timer1lib.clock.frames import Frames, Sampling, choose_frames
from timer1lib.errors import Timer1Error
from timer1lib.video.images import frame_times, read_image
from timer1lib.video.probe import Timeline, open_container, timeline

log = logging.getLogger(__name__)

Clip = tuple[float | None, float | None]
"""Start and end of a clip in seconds from the start of the file; None is the file's own start or end."""

CHUNK = 16
"""Frames that are held at full size at a time."""

TIMESTAMP_TOLERANCE_S = 2e-3
"""How far decord's timestamps may lie from the container's before PyAV takes over."""

EXACT_IN_DECORD = ("yuv420p", "yuvj420p")
"""With even sides, what decord turns into the same RGB as PyAV, bit for bit; of others it gets edges or colours wrong."""


def read_frames(
    path: str | Path, sampling: Sampling, clip: Clip = (None, None), temporal_patch: int = 2, decoder: str = "auto"
) -> Frames:
    """Decode the frames that `sampling` chooses from a video or clip.

    Args:
        clip: frames with start <= t < end; times and duration then count from the clip's start.
        temporal_patch: frames that the model merges into one; a shorter video has its last frame repeated.
        decoder: `auto` (as `choose_decoder`), `decord` or `pyav`.

    Raises:
        Timer1Error: names the file: missing, empty, cut off, no video, or a clip outside it.
    """
    line = timeline(path)
    positions, times, duration = clip_frames(line, clip)
    choice = choose_frames(times, sampling, temporal_patch)
    unique, inverse = np.unique(choice.indices, return_inverse=True)
    size = frame_size(line.height, line.width, len(choice.indices), sampling, temporal_patch)
    pixels, used, reason = _decode(line, positions[unique], size, decoder)
    return Frames(pixels[inverse], times[choice.indices], duration, choice.step_s, used, reason, sampling.time_scale)


def clip_frames(line: Timeline, clip: Clip) -> tuple[NDArray[np.int64], NDArray[np.float64], float]:
    """Frames of a clip: their positions in the file's timeline, their seconds from the clip's start, its duration.

    A clip between two frames has the frame that is on screen at its start.
    """
    times = line.times_s
    start, end = clip[0] or 0.0, line.duration_s if clip[1] is None else min(clip[1], line.duration_s)
    if clip == (None, None):
        return np.arange(len(times)), times, line.duration_s
    if not 0 <= start < end:
        lasts = f"which lasts {line.duration_s:.2f} s"
        raise Timer1Error(f"{line.path}: the clip {clip[0]} to {clip[1]} s is empty or outside the video, {lasts}")
    inside = np.flatnonzero((times >= start - 1e-6) & (times < end - 1e-6))
    if not len(inside):
        inside = np.array([max(0, int(np.searchsorted(times, start, side="right")) - 1)])
    return inside, np.maximum(times[inside] - start, 0.0), end - start


def frame_size(height: int, width: int, count: int, sampling: Sampling, temporal_patch: int = 2) -> tuple[int, int]:
    """Height and width in pixels of each of `count` frames: multiples of `sampling.factor`, within the budget.

    The budget per frame is that of Qwen's own pipeline, min(max_frame_pixels, total_pixels x temporal_patch / count),
    and never under 1.05 x min_frame_pixels. The aspect ratio is kept as far as the multiple allows.
    """
    factor = sampling.factor
    share = sampling.total_pixels * temporal_patch / count
    smallest = sampling.min_frame_pixels
    largest = max(min(sampling.max_frame_pixels, share), 1.05 * smallest, factor * factor)
    new_height, new_width = max(factor, round(height / factor) * factor), max(factor, round(width / factor) * factor)
    if new_height * new_width > largest:
        shrink = math.sqrt(height * width / largest)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif new_height * new_width < smallest:
        grow = math.sqrt(smallest / (height * width))
        new_height, new_width = math.ceil(height * grow / factor) * factor, math.ceil(width * grow / factor) * factor
    return new_height, new_width


def resize(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Bicubic with antialiasing, uint8 [N, H, W, 3] to [N, height, width, 3]; the same on every path."""
    if pixels.shape[1:3] == (height, width):
        return np.ascontiguousarray(pixels)
    from PIL import Image

    out = np.empty((len(pixels), height, width, 3), dtype=np.uint8)
    for target, frame in zip(out, pixels, strict=True):
        target[...] = np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize((width, height), Image.Resampling.BICUBIC))
    return out


def _decode(
    line: Timeline, positions: NDArray[np.int64], size: tuple[int, int], decoder: str
) -> tuple[NDArray[np.uint8], str, str]:
    """Pixels, the decoder that gave them, and why it was not decord."""
    if line.pixel_format == "images":
        return _with_images(line, positions, size), "images", ""
    if decoder == "pyav":
        return _with_pyav(line, positions, size), "pyav", "asked for"
    try:
        return _with_decord(line, _decord_reader(line, decoder == "decord"), positions, size), "decord", ""
    except _DecordFailed as error:
        if decoder == "decord":
            raise Timer1Error(f"{line.path}: decord cannot read it: {error}") from error
        log.info("%s: decoded with PyAV, because %s", line.path, error)
        return _with_pyav(line, positions, size), "pyav", str(error)


def choose_decoder(path: str | Path) -> str:
    """`decord` where its colours are exact and it numbers the frames as the container does, else `pyav`; errors as `timeline`.

    `images` for a folder of them.
    """
    line = timeline(path)
    if line.pixel_format == "images":
        return "images"
    try:
        _decord_reader(line)
    except _DecordFailed:
        return "pyav"
    return "decord"


class _DecordFailed(Exception):
    """Why decord cannot be used for a file."""


def _decord_reader(line: Timeline, any_colours: bool = False) -> Any:
    """decord on a file, after a check that it numbers the frames as the container does."""
    if not any_colours and (line.pixel_format not in EXACT_IN_DECORD or line.width % 2 or line.height % 2):
        raise _DecordFailed(f"decord's colours of {line.pixel_format} at {line.width}x{line.height} are not exact")
    try:
        import decord
    except ImportError as error:
        raise _DecordFailed(f"decord is not installed ({error})") from error
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(line.path, ctx=decord.cpu(0), num_threads=1)
        stamps = np.asarray(reader.get_frame_timestamp(range(len(reader))), dtype=np.float64)[:, 0]
    except Exception as error:  # decord raises its own classes and RuntimeError
        raise _DecordFailed("decord cannot open it: " + _first_line(error)) from error
    if len(stamps) != len(line.pts):
        raise _DecordFailed(f"decord counts {len(stamps)} frames and the container {len(line.pts)}")
    if np.abs((stamps - stamps[0]) - line.times_s).max() > TIMESTAMP_TOLERANCE_S:
        raise _DecordFailed("decord's timestamps differ from the container's")
    return reader


def damage(path: str | Path) -> str:
    """Why a file's frames cannot be believed, empty where they can: all are decoded and compared with the file's packets.

    Found are packets and frames that FFmpeg calls corrupt, what it reports as an error, gaps in H.264's count of frames, and
    frames that are missing, added or out of order. Changed bits that still make a valid stream are not: of single ones MPEG-4
    and AV1 notice nearly all, H.264 and VP8 less than half, HEVC and VP9 hardly any (docs/reliability.md). Errors as `timeline`.
    """
    import av
    import av.logging

    line = timeline(path)
    if line.pixel_format == "images":
        return _damaged_images(line)
    stamps: list[int] = []
    level = av.logging.get_level()
    av.logging.set_level(av.logging.DEBUG)
    try:
        with open_container(path) as container, av.logging.Capture() as said:
            stream = container.streams.video[0]
            stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}  # VP8 minds it with threads alone
            speakers = (stream.codec_context.name, container.format.name)
            for packet in container.demux(stream):
                begun, corrupt = len(stamps), packet.is_corrupt
                for frame in packet.decode():
                    stamp = frame.pts if frame.pts is not None else frame.dts
                    corrupt = corrupt or frame.is_corrupt
                    if stamp is None or (stamps and stamp <= stamps[-1]):
                        return f"the frame after {_second(line, stamps):.2f} s is out of order"
                    stamps.append(stamp)
                errors = [text.strip() for rank, name, text in said if rank <= av.logging.ERROR and name in speakers]
                if begun and any(text.startswith("Frame num gap") for _, _, text in said):
                    errors.append("frames are missing between those that are there")
                if errors or corrupt:
                    return f"after {_second(line, stamps):.2f} s: {errors[0] if errors else 'a corrupt frame'}"
                said.clear()
    except av.FFmpegError as error:
        return f"after {_second(line, stamps):.2f} s: {error.strerror}"
    finally:
        av.logging.set_level(level)
    lost = np.setdiff1d(line.pts, stamps)
    if len(lost):
        return f"{len(lost)} of {len(line.pts)} frames cannot be decoded"
    return "" if len(stamps) == len(line.pts) else f"{len(stamps)} frames come out of {len(line.pts)}"


def _damaged_images(line: Timeline) -> str:
    for file, second in zip(frame_times(line.path)[0], line.times_s, strict=True):
        try:
            height, width = read_image(file).shape[:2]
        except Timer1Error as error:
            return f"after {second:.2f} s: {error}"
        if (height, width) != (line.height, line.width):
            return f"after {second:.2f} s: {file.name} is {width}x{height}, the first image {line.width}x{line.height}"
    return ""


def _with_images(line: Timeline, positions: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Images of a folder by position, uint8 [N, H, W, 3]."""
    files = frame_times(line.path)[0]
    return np.concatenate([resize(read_image(files[int(i)])[None], *size) for i in positions])


def _second(line: Timeline, stamps: list[int]) -> float:
    return float((stamps[-1] - int(line.pts[0])) * line.time_base) if stamps else 0.0


def _with_decord(line: Timeline, reader: Any, positions: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Frames by position, uint8 [N, H, W, 3]."""
    out = np.empty((len(positions), *size, 3), dtype=np.uint8)
    for first in range(0, len(positions), CHUNK):
        part = positions[first : first + CHUNK]
        try:
            chunk = reader.get_batch([int(i) for i in part]).asnumpy()
        except Exception as error:
            raise _DecordFailed("decord stopped: " + _first_line(error)) from error
        if chunk.shape[1:3] != (line.height, line.width):
            raise _DecordFailed(f"decord gives {chunk.shape[2]}x{chunk.shape[1]} frames of a {line.width}x{line.height} video")
        out[first : first + CHUNK] = resize(chunk, *size)
    return out


def _with_pyav(line: Timeline, positions: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Frames by position, uint8 [N, H, W, 3]: from one keyframe to the next that is needed, never the whole file."""
    import av

    wanted = line.pts[positions]
    out = np.empty((len(positions), *size, 3), dtype=np.uint8)
    try:
        with open_container(line.path) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1
            frames: Any = None
            at: int | None = None
            for row, target in enumerate(wanted.tolist()):
                start = _keyframe_before(line, target)
                if at is None or start > at:
                    container.seek(start, stream=stream, backward=True, any_frame=False)
                    frames = container.decode(stream)
                frame = _find(frames, target)
                if frame is None:
                    container.seek(int(line.pts[0]), stream=stream, backward=True, any_frame=False)
                    frames = container.decode(stream)
                    frame = _find(frames, target)
                if frame is None:
                    second = line.times_s[positions[row]]
                    raise Timer1Error(f"{line.path}: the frame at {second:.2f} s cannot be decoded (cut off or damaged)")
                at = target
                upright = np.rot90(frame.to_ndarray(format="rgb24"), round(line.rotation / 90) % 4)
                out[row] = resize(upright[None], *size)[0]
    except av.FFmpegError as error:
        raise Timer1Error(f"{line.path}: cannot be decoded: {error.strerror}") from error
    return out


def _keyframe_before(line: Timeline, pts: int) -> int:
    at = int(np.searchsorted(line.keyframes, pts, side="right")) - 1
    return int(line.keyframes[at]) if at >= 0 else int(line.pts[0])


def _find(frames: Any, target: int) -> Any:
    """The frame with this timestamp, None where decoding has gone past it."""
    for frame in frames:
        stamp = frame.pts if frame.pts is not None else frame.dts
        if stamp is not None and stamp >= target:
            return frame if stamp == target else None
    return None


def _first_line(error: Exception) -> str:
    """The last sentence of decord's message, without its source lines and addresses."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split("ERROR ", 1)[-1].split("Stack trace", 1)[0].split("] ", 1)[-1].strip()[:160]
