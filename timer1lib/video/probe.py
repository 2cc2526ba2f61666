"""What a video file says about itself, and the timestamp of each of its frames, without decoding any."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from timer1lib.errors import Timer1Error
from timer1lib.video.images import MICROSECONDS, folder_facts, frame_times, is_frame_folder, read_image

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

POINTERS = frozenset({"hls", "concat", "dash", "webm_dash_manifest", "rtp", "rtsp", "sdp", "sap", "imf", "image2", "lavfi"})
"""FFmpeg's formats that read other files or addresses than the one they are given; a video is one file here."""

MISSING_SHARE, MISSING_SECONDS = 0.02, 1.0
"""A file that ends this much before the duration it declares, with every stream, is cut off."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """Timestamps of all frames of a file.

    Attributes:
        pts: int64 [M], ascending presentation timestamps in units of `time_base`.
        keyframes: int64 [K], ascending presentation timestamps of the frames that decoding can start at.
        time_base: seconds a unit.
        duration_s: from the first timestamp to the end of the last frame's display time.
        width, height: of an upright frame, in pixels.
        rotation: degrees, counterclockwise, by which a decoded frame must be turned to stand upright.
        pixel_format: FFmpeg's name of how pixels are stored, such as `yuv420p`; `images` for a folder of images.
    """

    path: str
    pts: NDArray[np.int64]
    keyframes: NDArray[np.int64]
    time_base: float
    duration_s: float
    width: int
    height: int
    rotation: int
    pixel_format: str

    @property
    def times_s(self) -> NDArray[np.float64]:
        """float64 [M], seconds from the first frame."""
        return np.asarray((self.pts - self.pts[0]) * self.time_base, dtype=np.float64)


def timeline(path: str | Path) -> Timeline:
    """What a file's packets and first frame say, or a folder's images and times; remembered while it stays as it is.

    Timer1Error names a file that is missing, empty, not a video, without a video stream or cut off.
    """
    return _timeline(os.fspath(path), *size_and_change(path))


def size_and_change(path: str | Path) -> tuple[int, int]:
    """Bytes of a video and the time of its last change in ns; Timer1Error where it is missing, empty, or neither a file nor a
    folder of images."""
    try:
        stat = os.stat(path)
    except OSError:
        raise Timer1Error(f"{path}: no such video file") from None
    if is_frame_folder(path):
        return folder_facts(path)
    if not S_ISREG(stat.st_mode):
        raise Timer1Error(f"{path}: not a file; a video (or a folder of images) is expected")
    if stat.st_size == 0:
        raise Timer1Error(f"{path}: the video file is empty (0 bytes); download or copy it again")
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=512)
def _timeline(path: str, size: int, mtime_ns: int) -> Timeline:
    import av

    if os.path.isdir(path):
        return _timeline_of_images(path)
    try:
        with open_container(path) as container:
            if not container.streams.video:
                raise Timer1Error(f"{path}: the file has no video stream")
            stream = container.streams.video[0]
            pts, ends, keyframes = _packets(container, stream)
            if not pts:
                raise Timer1Error(f"{path}: the video stream holds no frame (cut off or zero length)")
            _check_complete(path, container, stream, max(ends))
            time_base = float(stream.time_base or 0)
            rotation, size_px, pixel_format = _first_frame(path)
    except (av.FFmpegError, UnicodeDecodeError, ValueError) as error:
        raise Timer1Error(f"{path}: cannot be read as a video: {_reason(error)}") from error
    ordered = np.unique(np.array(pts, dtype=np.int64))
    last = max(ends) - int(ordered[-1])
    if last <= 0 and len(ordered) > 1:
        last = int(np.median(np.diff(ordered)))
    duration = (int(ordered[-1]) - int(ordered[0]) + last) * time_base
    width, height = size_px if rotation % 180 == 0 else size_px[::-1]
    starts = np.unique(np.array(keyframes or ordered[:1], dtype=np.int64))
    return Timeline(path, ordered, starts, time_base, duration, width, height, rotation, pixel_format)


def _timeline_of_images(path: str) -> Timeline:
    files, times, duration = frame_times(path)
    height, width = read_image(files[0]).shape[:2]
    pts = np.round(times / MICROSECONDS).astype(np.int64)
    return Timeline(path, pts, pts, MICROSECONDS, duration, width, height, 0, "images")


def open_container(video: str | Path | bytes) -> InputContainer:
    """Open one local file (or its content), and nothing that it might point to. Every video is opened here.

    Raises:
        Timer1Error: a playlist or another list of files, whatever its name ends with.
        av.FFmpegError: it cannot be opened.
    """
    import av

    allowed = ",".join(sorted(av.formats_available - POINTERS))
    source = io.BytesIO(video) if isinstance(video, bytes) else os.path.abspath(video)
    try:
        return av.open(source, "r", options={"protocol_whitelist": "file", "format_whitelist": allowed})
    except av.ArgumentError:
        name = "the content" if isinstance(video, bytes) else video
        raise Timer1Error(f"{name}: a playlist or another list of files, not a video file") from None


def _packets(container: InputContainer, stream: VideoStream) -> tuple[list[int], list[int], list[int]]:
    """Presentation times, ends and keyframe times of all packets that are shown."""
    shown = [
        (time, time + (packet.duration or 0), packet.is_keyframe)
        for packet in container.demux(stream)
        if packet.size
        and not packet.is_discard
        and not packet.is_corrupt
        and (time := packet.pts if packet.pts is not None else packet.dts) is not None
    ]
    return [time for time, _, _ in shown], [end for _, end, _ in shown], [time for time, _, key in shown if key]


def _check_complete(path: str, container: InputContainer, stream: VideoStream, end: int) -> None:
    """Refuse a file whose streams all end clearly before the duration it declares."""
    import av

    if container.duration is None or stream.time_base is None:
        return
    declared = container.duration / 1_000_000
    slack = max(MISSING_SECONDS, MISSING_SHARE * declared)
    # Some containers count the duration from second 0 and some from the first frame: the more generous reading.
    start = min(0, container.start_time or 0) / 1_000_000
    found = float(end * stream.time_base) - start
    if declared - found <= slack:
        return
    try:
        container.seek(max(0, int((found + start) * 1_000_000)))
        for packet in container.demux():
            if packet.pts is not None and packet.time_base is not None:
                found = max(found, float((packet.pts + (packet.duration or 0)) * packet.time_base) - start)
    except av.FFmpegError:
        pass
    if declared - found > slack:
        raise Timer1Error(f"{path}: cut off after {found:.1f} of the {declared:.1f} s it declares; download or copy it again")


def _first_frame(path: str) -> tuple[int, tuple[int, int], str]:
    """Rotation in degrees counterclockwise, (width, height) before it and pixel format, of the first frame that decodes."""
    with open_container(path) as container:
        for frame in container.decode(container.streams.video[0]):
            return int(frame.rotation) % 360, (frame.width, frame.height), frame.format.name
    raise Timer1Error(f"{path}: no frame can be decoded (cut off, damaged or zero length)")


def _reason(error: Any) -> str:
    return str(getattr(error, "strerror", None) or error)
