"""Drawing a world's videos: the same bytes however it is done, and processes that end with the one that started them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

from timer1lib.errors import Timer1Error
from timer1lib.processes import worker_processes
from timer1lib.world.render import FPS, ONE_THREAD, SIDE, render, write_video
from timer1lib.world.scene import Scene
from timer1lib.world.splits import SPLITS, split_scenes, write_videos

ROOT = Path(__file__).resolve().parent.parent
SECONDS_TO_LEAVE = 2.0


def hears_hangups() -> None:
    """Under nohup, as tests may run, a child would not even be told."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def scenes(count: int) -> list[Scene]:
    return list(islice(split_scenes(SPLITS["test_id"], 0), count))


DRAW = """
import sys
from itertools import islice
from pathlib import Path
from timer1lib.world.splits import SPLITS, split_scenes, write_videos, write_videos
folder, workers, step = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
found = list(islice(split_scenes(SPLITS["test_id"], 0), 12))[::step]
write_videos([(scene, folder / f"{scene.seed}.mp4") for scene in found], workers)
"""


def drawn(folder: Path, workers: int, step: int, **environment: str) -> dict[str, bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    subprocess.run([sys.executable, "-c", DRAW, str(folder), str(workers), str(step)], env=environment, check=True)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_processes_draw_the_same_bytes(tmp_path: Path) -> None:
    alone = drawn(tmp_path / "a", 1, 1, MALLOC_PERTURB_="165")
    together = drawn(tmp_path / "b", 2, -1)
    assert len(alone) == 12
    assert [name for name in alone if alone[name] != together.get(name)] == []


def test_x264_is_told_to_use_one_thread(tmp_path: Path) -> None:
    """What x264 writes about itself into the file."""
    write_video(scenes(1)[0], tmp_path / "v.mp4")
    content = (tmp_path / "v.mp4").read_bytes()
    for setting in (b" threads=1 ", b" lookahead_threads=1 ", b" sliced_threads=0 "):
        assert setting in content, setting


def test_the_pixels_are_those_that_they_always_were() -> None:
    """Before encoding: the same on any machine."""
    for scene, digest in zip(scenes(2), ("c86768a4e75857b6", "6daa4d84acee06d3"), strict=True):
        frames = render(scene, np.arange(round(scene.duration * FPS)) / FPS, SIDE)
        assert hashlib.sha256(frames.tobytes()).hexdigest()[:16] == digest, scene.seed


@pytest.mark.skipif((av.__version__, platform.machine()) != ("18.1.0", "x86_64"), reason="digests of one version of the codecs")
def test_the_files_decode_to_what_they_always_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoded without the processor's own instructions, so that any machine's x264 decides alike."""
    monkeypatch.setattr("timer1lib.world.render.ONE_THREAD", f"{ONE_THREAD}:asm=0")
    for scene, digest in zip(scenes(2), ("487f07bb18ffb413", "0f17d30b0891f313"), strict=True):
        path = tmp_path / f"{scene.seed}.mp4"
        write_video(scene, path)
        decoded = hashlib.sha256()
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                decoded.update(frame.to_ndarray().tobytes())
        assert decoded.hexdigest()[:16] == digest, scene.seed


SYNTH = """
import sys
from timer1lib.world.splits import synth
print("drawing", flush=True)
synth(sys.argv[1], 2000, shortest=60.0, workers=2)
"""


def living() -> Iterator[tuple[int, int]]:
    """(process, its parent) of all that run; those that ended and that nobody asked about are none."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        pid, parent, state = line.split()
        if not state.startswith("Z"):
            yield int(pid), int(parent)


def wait_for(true: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(true())


@pytest.fixture
def drawing(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], set[int]]]:
    """A process with a pipe as its output that has videos for minutes drawn, and its workers."""
    command = [sys.executable, "-c", SYNTH, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, preexec_fn=hears_hangups
    )
    workers: set[int] = set()
    try:
        assert wait_for(lambda: any(tmp_path.glob("videos/*.mp4")) or process.poll() is not None, 120)
        workers = {pid for pid, parent in living() if parent == process.pid}
        assert len(workers) == 2
        yield process, workers
    finally:
        for pid in (process.pid, *workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_workers_end_with_their_parent_and_keep_no_pipe_open(
    drawing: tuple[subprocess.Popen[bytes], set[int]], end: signal.Signals
) -> None:
    process, workers = drawing
    process.send_signal(end)
    rest, _ = process.communicate(timeout=SECONDS_TO_LEAVE)  # reads to the pipe's end, as `tee` does
    assert rest == b"drawing\n"
    assert wait_for(lambda: not workers & {pid for pid, _ in living()}, SECONDS_TO_LEAVE)


def test_a_killed_worker_is_named(tmp_path: Path) -> None:
    with pytest.raises(Timer1Error, match=r"^drawing: one of 2 processes was killed"), worker_processes(2, "drawing") as pool:
        list(pool.map(_end_itself, range(2)))


def _end_itself(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_drawing_left_is_removed_and_a_living_ones_is_not(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    left, living = tmp_path / f".7.{ended.pid}.mp4", tmp_path / f".8.{os.getpid()}.mp4"
    for path in (left, living, tmp_path / ".mine.mp4"):
        path.write_bytes(b"half")
    write_videos([(scenes(1)[0], tmp_path / "1.mp4")], workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([".mine.mp4", living.name, "1.mp4"])
