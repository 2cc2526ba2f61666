"""Frames of every video decoded once: from disk where they are, else by `decoders` ahead of need or in place."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from timer1lib.clock.frames import Frames, Sampling
from timer1lib.errors import Timer1Error
from timer1lib.files import NOT_JSON, resolve
from timer1lib.progress import Progress
from timer1lib.video.cache import Costs, DiskCache
from timer1lib.video.decode import Clip, read_frames
from timer1lib.video.decoders import WorkerDied, WorkerPool, in_time, pack, patience, unpack
from timer1lib.video.images import content_digest
from timer1lib.video.probe import size_and_change
from timer1lib.workers.team import team

if TYPE_CHECKING:
    from timer1lib.params.sections import SharedParams

log = logging.getLogger(__name__)

FORMAT = 2
"""Part of every key; raise it where decoding, resizing or an entry's form changes."""

DEEP = 1
"""Part of every deep check's key; raise it where `damage` changes."""

AHEAD = 64
"""Decoded but not yet asked for, at most, where nobody says otherwise: workers run ahead of need without filling the disk."""

Request = tuple[str | Path, Sampling, Clip]
Asked = tuple[str, Sampling, Clip, int]
"""A request by which `get` finds what was decoded ahead for it; the times told do not count."""


class FrameStore:
    """Decoded frames, cached on disk by the bytes of the file, the sampling and the clip.

    The result is that of `read_frames`, whatever the cache, the number of workers or other processes do. A cache that cannot
    be written costs time only, and one whose hits take as long as decoding is left alone (workers need it all the same: what
    they decode comes through it). `seconds_waited` is the time that `get` did not return at once: decoding in place, or
    waiting for a worker. `hits` came from the cache, `misses` were decoded in place; `costs` holds their seconds, and counts
    what workers decoded among the misses.

    Args:
        cache_dir: shared by all runs; entries go to `<cache_dir>/frames`.
        limit_gb: largest size of the whole cache in GB.
        workers: processes that decode ahead; 0 decodes in place.
    """

    def __init__(self, cache_dir: str | Path, limit_gb: float = 4.0, workers: int = 0) -> None:
        self.cache, self._hashes, self._verdicts = (
            DiskCache.of(cache_dir, kind, int(limit_gb * 1e9)) for kind in ("frames", "hashes", "checked")
        )
        self._known: dict[tuple[str, int, int], str] = {}
        self._workers = workers
        self._reset()

    def _reset(self) -> None:
        self.seconds_waited = 0.0
        self.hits = self.misses = 0
        self.costs = Costs()
        self._most = AHEAD
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._pool: WorkerPool | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._running: dict[Asked, Future[None]] = {}
        self._backlog: deque[Asked] = deque()
        self._told: set[str] = set()
        self._fatal: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the workers. The cache stays, and the store can be used again."""
        with self._lock:
            self._backlog.clear()
            self._running.clear()
            pool, threads, self._pool, self._threads = self._pool, self._threads, None, None
        if pool is not None:
            pool.close()
        if threads is not None:
            threads.shutdown(wait=True, cancel_futures=True)

    def get(self, path: str | Path, sampling: Sampling, clip: Clip = (None, None), temporal_patch: int = 2) -> Frames:
        """Frames as `read_frames` gives them, from the cache where they are; errors as there, or its decoder died or hung."""
        self._after_fork()
        started = time.monotonic()
        with self._lock:
            running = self._running.pop(_asked((path, sampling, clip), temporal_patch), None)
        key = self.key(path, sampling, clip, temporal_patch)
        if running is not None and not running.cancel():
            try:
                running.result()
            except WorkerDied as error:
                self._fatal[key] = str(error)
        if key in self._fatal:
            raise Timer1Error(f"{path}: {self._fatal[key]}; the file may be damaged")
        begun = time.monotonic()
        worth = self._workers > 0 or self.costs.pays
        frames = self._read(key) if worth else None
        if frames is None:
            with self._lock:
                self.misses += 1
            try:
                frames = in_time(path, lambda: read_frames(path, replace(sampling, time_scale=1.0), clip, temporal_patch))
            except WorkerDied as error:
                self._fatal[key] = str(error)
                raise Timer1Error(f"{path}: {error}; the file may be damaged") from None
            self.costs.miss(time.monotonic() - begun)
            if worth:
                self.cache.put(key, pack(frames))
        else:
            with self._lock:
                self.hits += 1
            self.costs.hit(time.monotonic() - begun)
        self._pump()
        self.seconds_waited += time.monotonic() - started
        if frames.reason and str(path) not in self._told:
            self._told.add(str(path))
            log.info("%s: decoded with %s: %s", path, frames.decoder, frames.reason)
        return replace(frames, time_scale=sampling.time_scale)

    def pass_over(self, path: str | Path, sampling: Sampling, clip: Clip = (None, None), temporal_patch: int = 2) -> None:
        """Go on without frames that were decoded ahead: whoever asked for them has them already."""
        with self._lock:
            if running := self._running.pop(_asked((path, sampling, clip), temporal_patch), None):
                running.cancel()
        self._pump()

    def prefetch(self, requests: Iterable[Request], temporal_patch: int = 2, ahead: int = AHEAD) -> None:
        """Let the workers decode what will be asked for, in this order, instead of what they were told to before.

        A request may stand several times (one an epoch). Files that fail say so at `get`.

        Args:
            ahead: decoded but not yet asked for, at most.
        """
        self._after_fork()
        if self._workers == 0:
            return
        with self._lock:
            for future in self._running.values():
                future.cancel()
            self._running = {asked: future for asked, future in self._running.items() if not future.done()}
            self._backlog = deque(_asked(request, temporal_patch) for request in requests)
            self._most = ahead
        self._pump()

    def damaged(self, paths: Iterable[Path]) -> dict[Path, str]:
        """What is wrong with each file (`decode.damage`), empty where nothing; each content is decoded whole once, ever.

        Files that cannot be read at all have their error.
        """
        files = dict.fromkeys(paths)
        found: dict[Path, str] = {}
        progress = Progress("videos decoded", len(files))
        pool = WorkerPool(max(1, self._workers))
        with ThreadPoolExecutor(max(1, self._workers)) as threads:
            try:
                for path, verdict in zip(files, threads.map(lambda path: self._verdict(pool, path), files), strict=True):
                    found[path] = verdict
                    progress.update()
            finally:
                pool.close()
        return found

    def _verdict(self, pool: WorkerPool, path: Path) -> str:
        try:
            key = hashlib.sha256(f"{self.content_hash(path)} {DEEP}".encode()).hexdigest()
            kept = self._verdicts.get(key)
            if kept is None:
                answer = json.loads(pool.run({"deep": str(path), "seconds": patience(path)}))
                if not answer["kept"]:
                    return str(answer["error"])
                kept = json.dumps(answer["error"]).encode()
                self._verdicts.put(key, kept)
            return str(json.loads(kept))
        except (Timer1Error, OSError, WorkerDied) as error:
            return str(error)

    def key(self, path: str | Path, sampling: Sampling, clip: Clip = (None, None), temporal_patch: int = 2) -> str:
        """Name of an entry: the file's bytes, everything that decides which frames are taken, and their size."""
        described = {**asdict(sampling), "time_scale": None, "clip": list(clip), "patch": temporal_patch, "format": FORMAT}
        text = self.content_hash(path) + json.dumps(described, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def content_hash(self, path: str | Path) -> str:
        """SHA-256 of a file's bytes, or a folder's images and times; remembered, on disk too, while sizes and changes stay."""
        file = Path(path).absolute()
        known = (str(file), *size_and_change(path))
        if known not in self._known:
            note = hashlib.sha256(repr(known).encode()).hexdigest()
            kept = self._hashes.get(note)
            self._known[known] = content_digest(file) if kept is None else kept.decode()
            if kept is None:
                self._hashes.put(note, self._known[known].encode())
        return self._known[known]

    def _read(self, key: str) -> Frames | None:
        content = self.cache.get(key)
        try:
            return None if content is None else unpack(content)
        except (*NOT_JSON, KeyError, TypeError) as error:
            log.warning("cache entry %s cannot be read (%s); it is made again", key, error)
            return None

    def _pump(self) -> None:
        """Hand waiting requests to the workers while few enough results lie unused."""
        with self._lock:
            while self._backlog and len(self._running) < self._most:
                asked = self._backlog.popleft()
                if asked in self._running:
                    continue
                if self._threads is None or self._pool is None:
                    self._pool = WorkerPool(self._workers)
                    self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="frames")
                self._running[asked] = self._threads.submit(self._ahead, self._pool, asked)

    def _ahead(self, pool: WorkerPool, asked: Asked) -> None:
        path, sampling, clip, temporal_patch = asked
        try:
            key = self.key(*asked)
        except (Timer1Error, OSError):
            return
        if key in self.cache:
            return
        read = {"path": path, "sampling": asdict(sampling), "clip": list(clip), "patch": temporal_patch}
        keep = {"key": key, "cache": str(self.cache.folder.parent), "limit": self.cache.limit_bytes}
        begun = time.monotonic()
        answer = pool.run({**read, **keep, "seconds": patience(path)})
        self.costs.miss(time.monotonic() - begun)
        if answer and not json.loads(answer)["kept"]:
            # What workers decode reaches us through the cache: without one they would do it for nothing.
            with self._lock:
                self._backlog.clear()

    def _after_fork(self) -> None:
        if os.getpid() != self._pid:
            self._reset()


def open_store(shared: SharedParams) -> FrameStore:
    """The frame cache that a params file asks for; close it after use."""
    here = -(-shared.workers // team.size)  # ranks share them, as they share the videos
    return FrameStore(resolve(shared.cache_dir), shared.cache_gb, here)


def _asked(request: Request, temporal_patch: int) -> Asked:
    path, sampling, clip = request
    return str(path), replace(sampling, time_scale=1.0), (clip[0], clip[1]), temporal_patch
