"""A copy of a video that every browser plays and can stop on any frame, kept in the cache.

Debian's Chromium plays h264, VP8, VP9 and AV1, other browsers less, and none plays HEVC or Matroska everywhere: a
file is served as it is only where it is h264 in mp4 or VP8/VP9 in webm, upright, from time 0, small, and with
key frames close enough for quick seeks. Everything else becomes h264, yuv420p, without B-frames.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from timer1lib.errors import Timer1Error
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Sample
from timer1lib.video.cache import DiskCache
from timer1lib.video.images import frame_times, read_image
from timer1lib.video.probe import Timeline, open_container, size_and_change, timeline

log = logging.getLogger(__name__)

VERSION = 4
MAX_SIDE = 640
MAX_FRAMES = 6000
SEEK_BUDGET = 60 * 640 * 360
"""Pixels a browser may have to decode for one seek: the longest run between key frames times the frame's size."""
KEYS_FROM, KEYS = 3 * MAX_FRAMES, 100
"""A copy of more frames than the first is made of the key frames alone, where there are at least so many: an hour in seconds."""
CLOCK = 90_000
_AS_IS = {("mp4", "h264"): "video/mp4", ("webm", "vp8"): "video/webm", ("webm", "vp9"): "video/webm"}


@dataclass(frozen=True, slots=True)
class Playable:
    """A file's content to hand to a browser.

    `frames` holds the time of each frame in seconds, rising, from the start of the sample (of its clip, where it has
    one); the media time in the file is the same number. `duration` is in seconds, `width` and `height` in pixels. `coarse`: the
    video has more frames than the copy.
    """

    content: bytes = field(repr=False)
    mime: str
    frames: list[float]
    duration: float
    width: int
    height: int
    coarse: bool = False


def playable(
    video: Path, cache: Path, clip: tuple[float | None, float | None] = (None, None), max_bytes: int = 12_000_000
) -> Playable:
    """A browser-playable version of `video`, no larger than about `max_bytes`; a Timer1Error names a file that has none.

    `clip` is start and end in seconds of the file's own time line, where the sample is about a part of it.
    """
    if not video.exists():
        raise Timer1Error(f"{video}: no such video")
    identity = json.dumps([VERSION, str(video.resolve()), *size_and_change(video), clip, max_bytes, MAX_SIDE])
    key = hashlib.sha256(identity.encode()).hexdigest()
    kept = DiskCache.of(cache, "playable")
    entry = kept.get(key)
    if entry is None:
        made, as_is = _make(video, clip, max_bytes)
        facts = {name: getattr(made, name) for name in ("mime", "frames", "duration", "width", "height", "coarse")}
        # a file that is served as it is has only its facts kept
        kept.put(key, json.dumps(facts).encode() + b"\n" + (b"" if as_is else made.content))
        return made
    described, _, content = entry.partition(b"\n")
    return Playable(content or video.read_bytes(), **json.loads(described))


def pictures(
    run: RunFolder, sample: Sample, cache: Path, duration: float, max_bytes: int = 12_000_000, thumbnails: int | None = None
) -> tuple[Playable, Strip]:
    """What is shown of a sample's video or clip: a copy that plays, and thumbnails over `duration` seconds.

    Whatever is wrong with the video is a Timer1Error, the one line that stands in their place.
    """
    with _told(sample):
        copy = playable(run.video(sample), cache, (sample.video_start, sample.video_end), max_bytes)
        return copy, strip(copy, duration, thumbnails)
    raise AssertionError  # for the type checker: `_told` lets no error pass unsaid


def segment(run: RunFolder, sample: Sample, cache: Path, start: float, end: float, max_bytes: int = 12_000_000) -> Playable:
    """Seconds `start` to `end` of a sample as an mp4 with all their frames; errors as in `pictures`."""
    first = sample.video_start or 0.0
    last = first + end if sample.video_end is None else min(first + end, sample.video_end)
    with _told(sample):
        return playable(run.video(sample), cache, (first + start, last), max_bytes)
    raise AssertionError  # for the type checker: `_told` lets no error pass unsaid


@contextlib.contextmanager
def _told(sample: Sample) -> Iterator[None]:
    """Whatever goes wrong with a sample's video becomes one line."""
    import av

    if not sample.video:
        raise Timer1Error("this sample names no video")
    try:
        yield
    except (Timer1Error, av.FFmpegError, OSError, ValueError, ArithmeticError, LookupError, TypeError, MemoryError) as error:
        log.warning("no pictures of %s: %s", sample.id, error)
        said = " ".join(str(getattr(error, "strerror", None) or error).split())[:300]
        raise Timer1Error(said if isinstance(error, Timer1Error) else f"{sample.video}: cannot be decoded: {said}") from error


def _make(video: Path, clip: tuple[float | None, float | None], max_bytes: int) -> tuple[Playable, bool]:
    """What a browser plays, and whether that is the file as it is."""
    import av

    line = timeline(video)
    try:
        if line.pixel_format == "images":
            return _encode(line, clip, max_bytes), False
        with open_container(str(video)) as container:
            stream = container.streams.video[0]
            names = container.format.name.split(",")
            # what is no webm by its name may be Matroska with anything in it
            kind = "mp4" if "mp4" in names else "webm" if "webm" in names and video.suffix.lower() == ".webm" else ""
            mime = _AS_IS.get((kind, stream.codec_context.name.removeprefix("lib")))
            gap = int(np.diff(np.searchsorted(line.pts, line.keyframes), append=len(line.pts)).max())
            light = gap * line.width * line.height <= SEEK_BUDGET and len(line.pts) <= MAX_FRAMES
            plain = stream.codec_context.pix_fmt == "yuv420p" and line.pts[0] == 0 and not line.rotation
        if mime and light and plain and clip == (None, None) and video.stat().st_size <= max_bytes:
            times = line.times_s.round(6).tolist()
            return Playable(video.read_bytes(), mime, times, line.duration_s, line.width, line.height), True
        return _encode(line, clip, max_bytes), False
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise Timer1Error(f"{video}: cannot be decoded for the browser: {error}") from error


def _encode(line: Timeline, clip: tuple[float | None, float | None], max_bytes: int) -> Playable:
    """Decode, turn upright, scale, thin out and encode."""
    import av

    video, first = Path(line.path), float(line.pts[0]) * line.time_base
    start = first + (clip[0] or 0.0)
    end = first + (line.duration_s if clip[1] is None else clip[1])
    seconds = max(0.04, end - start)
    step = max(1 / 60, seconds / MAX_FRAMES)
    rate = int(0.85 * max_bytes * 8 / seconds)
    times = line.pts * line.time_base
    total = int(((times >= start - 1e-6) & (times < end - 1e-6)).sum())
    keys = line.keyframes * line.time_base
    keys_only = total > KEYS_FROM and int(((keys >= start) & (keys < end)).sum()) >= KEYS and line.pixel_format != "images"
    with tempfile.TemporaryDirectory() as folder:
        temporary = str(Path(folder) / "copy.mp4")
        faststart = {"movflags": "faststart"}
        with av.open(temporary, "w", format="mp4", options=faststart) as sink:
            out: Any = None
            held: Any = None
            next_due = float("-inf")
            written = 0

            def write(frame: Any, time: float) -> None:
                nonlocal out, written
                turn = int(frame.rotation) % 360
                if turn:
                    pixels = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turn // 90))
                    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                width, height = _size(frame.width, frame.height)
                if out is None:
                    out = sink.add_stream("libx264", rate=30)
                    out.width, out.height, out.pix_fmt = width, height, "yuv420p"
                    out.codec_context.time_base = Fraction(1, CLOCK)
                    out.options = {
                        "preset": "ultrafast" if total > 2000 else "veryfast", "crf": "26", "bf": "0", "g": "12",
                        "sc_threshold": "0", "maxrate": str(rate), "bufsize": str(2 * rate)
                    }  # fmt: skip
                small = frame.reformat(width=out.width, height=out.height, format="yuv420p")
                small.pts, small.time_base, small.pict_type = round(time * CLOCK), Fraction(1, CLOCK), 0
                for packet in out.encode(small):
                    sink.mux(packet)
                written += 1

            for frame in _shown(line, start, keys_only):
                if frame.time is None or frame.time < start - 1e-6:
                    held = frame
                    continue
                if frame.time >= end - 1e-6 and written:
                    break
                if held is not None and frame.time > start + 1e-6:
                    write(held, 0.0)
                    next_due = step - 1e-4
                held = None
                time = frame.time - start
                if time >= next_due:
                    write(frame, time)
                    next_due = time + step - 1e-4
            if held is not None and not written:
                write(held, 0.0)
            if out is None:
                raise Timer1Error(f"{video}: no frame could be decoded between {start:.2f} and {end:.2f} s")
            for packet in out.encode():
                sink.mux(packet)
        copy, content = timeline(temporary), Path(temporary).read_bytes()
    kept = (copy.pts * copy.time_base).round(6).tolist()
    log.info("%s: browser copy of %d frames, %.1f MB", video.name, len(kept), len(content) / 1e6)
    coarse = len(kept) < 0.9 * total
    return Playable(content, "video/mp4", kept, max(copy.duration_s, round(end - start, 6)), copy.width, copy.height, coarse)


def _shown(line: Timeline, start: float, keys_only: bool = False) -> Iterator[Any]:
    """Frames with their times in the file, from about `start` seconds on; `keys_only` leaves out what others are needed for."""
    import av

    if line.pixel_format == "images":
        for file, stamp in zip(frame_times(line.path)[0], line.pts.tolist(), strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(read_image(file)), format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1_000_000)
            yield frame
        return
    with open_container(line.path) as source:
        stream = source.streams.video[0]
        stream.thread_type = "AUTO"
        if keys_only:
            stream.codec_context.skip_frame = "NONKEY"
        if start > float(line.pts[0]) * line.time_base:
            source.seek(max(0, int(start / float(stream.time_base or 1))), stream=stream)
        yield from source.decode(stream)


def _size(width: int, height: int) -> tuple[int, int]:
    """Even sides, the longer at most `MAX_SIDE` pixels."""
    scale = min(1.0, MAX_SIDE / max(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


STRIP_WIDTH = 1080
HEIGHT = 60


@dataclass(frozen=True, slots=True)
class Strip:
    """`count` equally wide pictures side by side; picture i shows the middle of the i-th part of `duration` seconds."""

    jpeg: bytes
    count: int
    width: int
    height: int


def strip(video: Playable, duration: float, count: int | None = None) -> Strip:
    """`count` thumbnails over `duration` seconds; as many as fill `STRIP_WIDTH` pixels where none is given.

    Time beyond the video's end stays dark: an annotation's duration may be longer than its file.
    """
    from PIL import Image

    each = max(1, round(HEIGHT * video.width / video.height))
    count = count or max(1, round(STRIP_WIDTH / each))
    sheet = Image.new("RGB", (count * each, HEIGHT), (24, 26, 30))
    resample = Image.Resampling.NEAREST if video.height < HEIGHT else Image.Resampling.BILINEAR
    with open_container(video.content) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        for i in range(count):
            wanted = (i + 0.5) * duration / count
            if wanted >= video.duration:
                break
            container.seek(int(wanted / stream.time_base), stream=stream)
            shown = None
            for frame in container.decode(stream):
                if shown is not None and frame.time is not None and frame.time > wanted:
                    break
                shown = frame
            if shown is not None:
                picture: Any = shown
                sheet.paste(picture.to_image().resize((each, HEIGHT), resample), (i * each, 0))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=82)
    return Strip(buffer.getvalue(), count, count * each, HEIGHT)
