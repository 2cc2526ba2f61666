"""Small pictures along the time axis, as one JPEG strip."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from timer1lib.view.playable import Playable

STRIP_WIDTH = 1080
HEIGHT = 60


@dataclass(frozen=True, slots=True)
class Strip:
    """`count` equally wide pictures side by side; picture i shows the middle of the i-th part of `duration` seconds."""

    jpeg: bytes
    count: int
    width: int
    height: int


def strip(video: Playable, duration: float | None = None, width: int = STRIP_WIDTH, height: int = HEIGHT) -> Strip:
    """Thumbnails over `duration` seconds (the video's, where not given) that fill `width` pixels.

    Time beyond the video's end stays dark: an annotation's duration may be longer than its file.
    """
    import av
    from PIL import Image

    span = duration or video.duration
    each = max(1, round(height * video.width / video.height))
    count = max(1, round(width / each))
    sheet = Image.new("RGB", (count * each, height), (24, 26, 30))
    resample = Image.Resampling.NEAREST if video.height < height else Image.Resampling.BILINEAR
    with av.open(io.BytesIO(video.content), "r") as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        for i in range(count):
            wanted = (i + 0.5) * span / count
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
                sheet.paste(picture.to_image().resize((each, height), resample), (i * each, 0))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=82)
    return Strip(buffer.getvalue(), count, count * each, height)
