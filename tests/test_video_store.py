"""The frame store: decoded once, never trusting a damaged entry, bounded, the same with and without workers."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from make_videos import number_in, write_video

from timer1lib.clock import Sampling
from timer1lib.errors import Timer1Error
from timer1lib.video import cache as cache_module
from timer1lib.video import decoders
from timer1lib.video import store as frame_store
from timer1lib.video.cache import DIGEST_BYTES, DiskCache
from timer1lib.video.decode import read_frames
from timer1lib.video.store import FrameStore

SAMPLING = Sampling(rule="frames", frames=6, min_frame_pixels=1, total_pixels=10**9, factor=2)
WHOLE = (None, None)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("videos")
    return [write_video(root / f"{k}.mp4", [i * 40 for i in range(20 + k)]) for k in range(4)]


def same(a: frame_store.Frames, b: frame_store.Frames) -> bool:
    described = ("duration_s", "step_s", "decoder", "reason", "time_scale")
    return (
        np.array_equal(a.pixels, b.pixels)
        and np.array_equal(a.times_s, b.times_s)
        and all(getattr(a, name) == getattr(b, name) for name in described)
    )


def test_the_second_time_comes_from_disk_and_is_the_same(
    tmp_path: Path, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FrameStore(tmp_path, 1.0)
    first = store.get(videos[0], SAMPLING, (0.1, 0.7))
    monkeypatch.setattr(frame_store, "read_frames", lambda *a, **k: pytest.fail("decoded twice"))
    again = FrameStore(tmp_path, 1.0)
    assert same(first, again.get(videos[0], SAMPLING, (0.1, 0.7)))
    assert (again.hits, again.misses) == (1, 0)
    assert same(first, read_frames(videos[0], SAMPLING, (0.1, 0.7)))


def test_the_wrong_clock_shares_frames_but_not_what_is_told(tmp_path: Path, videos: list[Path]) -> None:
    store = FrameStore(tmp_path, 1.0)
    right = store.get(videos[0], SAMPLING)
    fast = store.get(
        videos[0], Sampling(rule="frames", frames=6, min_frame_pixels=1, total_pixels=10**9, factor=2, time_scale=1.1)
    )
    assert store.hits == 1
    assert (right.time_scale, fast.time_scale) == (1.0, 1.1)


def test_keys_tell_everything_apart_that_changes_the_frames(tmp_path: Path, videos: list[Path]) -> None:
    store = FrameStore(tmp_path, 1.0)
    copy = tmp_path / "copy.mp4"
    shutil.copy(videos[0], copy)
    assert store.key(videos[0], SAMPLING) == store.key(copy, SAMPLING)  # the bytes count, not the name
    keys = {
        store.key(videos[0], SAMPLING),
        store.key(videos[1], SAMPLING),
        store.key(videos[0], SAMPLING, (None, 0.5)),
        store.key(videos[0], SAMPLING, (0.5, None)),
        store.key(videos[0], SAMPLING, temporal_patch=4),
        store.key(videos[0], replace(SAMPLING, factor=4)),
        store.key(videos[0], Sampling(rule="fps", frames=6, min_frame_pixels=1, total_pixels=10**9, factor=2)),
    }
    assert len(keys) == 7


def test_a_changed_file_is_decoded_again(tmp_path: Path, videos: list[Path]) -> None:
    path = tmp_path / "v.mp4"
    shutil.copy(videos[0], path)
    store = FrameStore(tmp_path / "cache", 1.0)
    assert number_in(store.get(path, SAMPLING).pixels[-1]) == 19
    shutil.copy(videos[3], path)
    assert number_in(store.get(path, SAMPLING).pixels[-1]) == 22
    assert number_in(FrameStore(tmp_path / "cache", 1.0).get(path, SAMPLING).pixels[-1]) == 22


@pytest.mark.parametrize("damage", ["flip", "short", "empty", "garbage"])
def test_damaged_entries_are_made_again(tmp_path: Path, videos: list[Path], damage: str) -> None:
    store = FrameStore(tmp_path, 1.0)
    right = store.get(videos[0], SAMPLING)
    (entry,) = (tmp_path / "frames").glob("*/*.entry")
    raw = bytearray(entry.read_bytes())
    if damage == "flip":
        raw[len(raw) // 2] ^= 1
    entry.write_bytes({"flip": bytes(raw), "short": bytes(raw[:-1]), "empty": b"", "garbage": os.urandom(500)}[damage])
    other = FrameStore(tmp_path, 1.0)
    assert same(other.get(videos[0], SAMPLING), right)
    assert (other.hits, other.misses) == (0, 1)
    assert DiskCache(tmp_path / "frames", 10**9).get(entry.stem) is not None


def test_the_folder_stays_within_its_limit_and_the_oldest_goes(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 10_000)
    for k in range(9):
        cache.put(f"{k:02d}entry", bytes(1000))
        os.utime(cache.path(f"{k:02d}entry"), (1000 + k, 1000 + k))
    assert cache.get("00entry") is not None  # used just now
    for k in range(9, 13):
        cache.put(f"{k:02d}entry", bytes(1000))
        assert cache.size_bytes() <= 10_000 + 1000 + DIGEST_BYTES
    cache.trim()
    assert cache.size_bytes() <= 10_000
    assert cache.get("01entry") is None
    assert cache.get("00entry") is not None
    assert cache.get("12entry") is not None


def test_workers_decode_ahead_and_change_nothing(tmp_path: Path, videos: list[Path]) -> None:
    plain = [FrameStore(tmp_path / "a", 1.0).get(path, SAMPLING) for path in videos]
    with FrameStore(tmp_path / "b", 1.0, workers=2) as store:
        store.prefetch([(path, SAMPLING, WHOLE) for path in videos])
        deadline = time.monotonic() + 60
        while len(list((tmp_path / "b" / "frames").glob("*/*.entry"))) < len(videos) and time.monotonic() < deadline:
            time.sleep(0.05)
        ahead = [store.get(path, SAMPLING) for path in videos]
        assert store.misses == 0
        assert store.hits == len(videos)
    assert all(same(a, b) for a, b in zip(plain, ahead, strict=True))


def test_get_before_the_workers_are_done_is_right_too(tmp_path: Path, videos: list[Path]) -> None:
    with FrameStore(tmp_path, 1.0, workers=1) as store:
        store.prefetch([(path, SAMPLING, WHOLE) for path in [*videos, "missing.mp4"]])
        for path in reversed(videos):
            assert same(store.get(path, SAMPLING), read_frames(path, SAMPLING))
        assert store.seconds_waited > 0
        with pytest.raises(Timer1Error, match=r"missing\.mp4"):
            store.get("missing.mp4", SAMPLING)


def test_a_broken_file_fails_at_get_and_the_rest_goes_on(tmp_path: Path, videos: list[Path]) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(videos[0].read_bytes()[:900])
    with FrameStore(tmp_path / "cache", 1.0, workers=1) as store:
        store.prefetch([(path, SAMPLING, WHOLE) for path in (broken, videos[0])])
        with pytest.raises(Timer1Error, match=r"broken\.mp4"):
            store.get(broken, SAMPLING)
        assert same(store.get(videos[0], SAMPLING), read_frames(videos[0], SAMPLING))


def test_a_worker_that_dies_is_named_with_its_file(tmp_path: Path, videos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timer1lib.video.decoders._ask", lambda worker, message: (worker.kill(), "")[1])
    with FrameStore(tmp_path, 1.0, workers=1) as store:
        store.prefetch([(videos[0], SAMPLING, WHOLE)])
        while store._threads is None or (store._running and not all(f.running() or f.done() for f in store._running.values())):
            time.sleep(0.01)
        for _ in range(2):
            with pytest.raises(Timer1Error, match=r"0\.mp4.*died"):
                store.get(videos[0], SAMPLING)
        assert same(store.get(videos[1], SAMPLING), read_frames(videos[1], SAMPLING))


HUNG = textwrap.dedent("""
    import time
    from timer1lib.video import decode
    real = decode.read_frames
    decode.read_frames = lambda path, *rest: time.sleep(1e6) if str(path).endswith("hangs.mp4") else real(path, *rest)
""")


@pytest.mark.parametrize("stopped", [False, True])
def test_a_worker_that_hangs_is_ended_and_the_rest_goes_on(
    tmp_path: Path, videos: list[Path], monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HUNG)
    shutil.copy(videos[0], tmp_path / "hangs.mp4")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(decoders, "PATIENCE_S", 3.0)
    if stopped:  # it cannot even end itself
        real = decoders._ask
        monkeypatch.setattr(
            decoders, "_ask", lambda worker, message: (worker.send_signal(signal.SIGSTOP), real(worker, message))[1]
        )
        monkeypatch.setattr(decoders, "PATIENCE_S", 0.1)
    with FrameStore(tmp_path / "cache", 1.0, workers=1) as store:
        store.prefetch([(path, SAMPLING, WHOLE) for path in (tmp_path / "hangs.mp4", videos[1])])
        with pytest.raises(Timer1Error, match=r"hangs\.mp4: its decoder gave no answer"):
            store.get(tmp_path / "hangs.mp4", SAMPLING)
        with pytest.raises(Timer1Error, match=r"hangs\.mp4: its decoder gave no answer"):
            store.get(tmp_path / "hangs.mp4", SAMPLING)
        if not stopped:
            assert same(store.get(videos[1], SAMPLING), read_frames(videos[1], SAMPLING))


def test_a_decoder_that_hangs_in_place_is_left_behind(
    tmp_path: Path, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = threading.Event()
    monkeypatch.setattr(decoders, "PATIENCE_S", 0.3)
    monkeypatch.setattr(
        frame_store, "read_frames", lambda path, *rest: hold.wait(60) if path == videos[0] else read_frames(path, *rest)
    )
    store = FrameStore(tmp_path, 1.0)
    for _ in range(2):
        with pytest.raises(Timer1Error, match=r"0\.mp4: its decoder gave no answer"):
            store.get(videos[0], SAMPLING)
    assert same(store.get(videos[1], SAMPLING), read_frames(videos[1], SAMPLING))
    hold.set()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("fault", ["a file in its place", "disk full"])
def test_a_cache_that_cannot_be_written_costs_no_frame(
    tmp_path: Path,
    videos: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    workers: int,
    fault: str,
) -> None:
    folder = tmp_path / "cache"
    if fault == "disk full":
        monkeypatch.setattr(cache_module, "atomic_write_bytes", full_disk)
    else:
        folder.write_text("not a folder")
    with FrameStore(folder, 1.0, workers=workers) as store:
        store.prefetch([(path, SAMPLING, WHOLE) for path in videos])
        for path in videos:
            assert same(store.get(path, SAMPLING), read_frames(path, SAMPLING))
        assert store.damaged(videos) == dict.fromkeys(videos, "")
    told = [record for record in caplog.records if "cannot write" in record.message]
    assert 1 <= len(told) <= 3  # once for each kind of entry, not for each entry


def full_disk(path: Path, content: bytes) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_what_cannot_be_removed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DiskCache(tmp_path, 1500)
    for name in ("00a", "01b"):
        cache.put(name, bytes(1000))
    cache.path("01b").write_bytes(b"damaged")

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    assert cache.get("01b") is None
    assert DiskCache(tmp_path, 10).trim() == 0


def test_an_entry_of_another_form_is_made_again(tmp_path: Path, videos: list[Path]) -> None:
    store = FrameStore(tmp_path, 1.0)
    for content in (b"8 bytes!{", b"\x02" + bytes(7) + b"{}", b"\x04" + bytes(7) + b"null"):
        store.cache.put(store.key(videos[0], SAMPLING), content)
        assert same(store.get(videos[0], SAMPLING), read_frames(videos[0], SAMPLING))


WRITER = textwrap.dedent("""
    import sys
    from timer1lib.video.cache import DiskCache
    cache = DiskCache(sys.argv[1], 10**9)
    k = 0
    while True:
        k += 1
        cache.put(f"{k % 7:02d}entry", bytes([k % 251]) * 3_000_000)
        if k == 3:
            sys.stdout.write("go\\n"); sys.stdout.flush()
""")


def test_killed_writers_leave_whole_entries_or_none(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    for delay in (0.0, 0.013, 0.029):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, env=environment)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
    cache = DiskCache(tmp_path, 10**9)
    entries = list(tmp_path.glob("*/*.entry"))
    assert entries
    for entry in entries:
        content = cache.get(entry.stem)
        assert content is not None
        assert len(set(content)) == 1
        assert len(content) == 3_000_000
    left = [path for path in tmp_path.glob("*/*") if path.suffix != ".entry"] + list(tmp_path.glob("*/.*"))
    for path in left:
        os.utime(path, (0, 0))
    cache.trim()
    assert not [path for path in left if path.exists()]


def test_several_users_at_once(tmp_path: Path, videos: list[Path]) -> None:
    right = [read_frames(path, SAMPLING) for path in videos]
    size = sum(frames.pixels.nbytes for frames in right)
    stores = [FrameStore(tmp_path, 0.6 * size / 1e9) for _ in range(4)]  # too small for all: eviction under load
    errors: list[str] = []
    lock = threading.Lock()

    def use(store: FrameStore) -> None:
        for turn in range(12):
            at = turn % len(videos)
            if not same(store.get(videos[at], SAMPLING), right[at]):
                with lock:
                    errors.append(str(videos[at]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, stores))
    assert errors == []


def test_all_kinds_of_entries_share_one_limit(tmp_path: Path) -> None:
    frames = DiskCache.of(tmp_path, "frames", 100_000)
    features, shown = DiskCache.of(tmp_path, "features", 100_000), DiskCache.of(tmp_path, "playable")
    assert shown.limit_bytes == 100_000  # as it was last said
    note = DiskCache.of(tmp_path, "hashes", 100_000)
    (tmp_path / "world-1" / "a").mkdir(parents=True)
    (tmp_path / "world-1" / "a" / "film.mp4").write_bytes(bytes(500_000))
    os.utime(tmp_path / "world-1" / "a" / "film.mp4", (0, 0))
    note.put("00note", b"short")
    os.utime(note.path("00note"), (1, 1))
    for k, cache in enumerate([frames, features, shown, frames, features]):
        cache.put(f"{k:02d}entry", bytes(30_000))
        os.utime(cache.path(f"{k:02d}entry"), (1000 + k, 1000 + k))
    frames.trim()
    left = {path.name.split(".")[0] for path in tmp_path.glob("*/*/*.entry")}
    assert left == {"00note", "03entry", "04entry", "02entry"} or left == {"00note", "03entry", "04entry"}
    assert frames.size_bytes() <= 100_000
    assert (tmp_path / "world-1" / "a" / "film.mp4").is_file()


def test_costs_are_counted_and_a_cache_that_costs_more_is_left_alone(tmp_path: Path, videos: list[Path]) -> None:
    store = FrameStore(tmp_path, 1.0)
    store.get(videos[0], SAMPLING)
    store.get(videos[0], SAMPLING)
    assert (store.costs.hits, store.costs.misses) == (1, 1)
    assert 0 < store.costs.hit_s <= store.seconds_waited
    store.costs.hit(1000.0, 20)
    store.costs.miss(1.0, 20)
    assert same(store.get(videos[0], SAMPLING), read_frames(videos[0], SAMPLING))
    assert store.misses == 2  # there, and not read
    store.get(videos[1], SAMPLING)
    assert store.key(videos[1], SAMPLING) not in store.cache
