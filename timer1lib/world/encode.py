"""Scenes as real video files: mp4 with H.264, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from timer1lib.world.render import render
from timer1lib.world.scene import Scene

FPS = 4
SIDE = 112
CHUNK = 32
"""Frames drawn at a time: few enough to stay in the processor's cache."""


def write_video(scene: Scene, path: Path, *, side: int = SIDE, fps: int = FPS, burn_clock: bool = False) -> None:
    """Encode a scene as mp4 (H.264, `side` x `side` pixels, `fps` frames a second).

    The file appears under its name only when it is complete.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
    times = np.arange(round(scene.duration * fps)) / fps
    try:
        with av.open(str(temporary), "w", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=fps, options={"preset": "veryfast", "crf": "30", "g": str(4 * fps)})
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
            stream.thread_count = 1
            for first in range(0, len(times), CHUNK):
                for pixels in render(scene, times[first : first + CHUNK], side, burn_clock=burn_clock):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
