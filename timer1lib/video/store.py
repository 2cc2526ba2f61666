"""Frames of every video decoded once: from disk where they are, else by workers ahead of need or in place.

Workers are plain subprocesses of this module that speak JSON lines: no pickle, no fork. No decoder is waited for without end.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from timer1lib.clock.frames import Frames, Sampling
from timer1lib.errors import Timer1Error
from timer1lib.files import NOT_JSON, resolve
from timer1lib.progress import Progress
from timer1lib.video.cache import Costs, DiskCache
from timer1lib.video.decode import Clip, damage, read_frames
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

PATIENCE_S, PATIENCE_A_MB_S = 120.0, 10.0
"""A decoder that says nothing for this long, and this much more a megabyte of its file, counts as hung."""

FEW = 64
"""With fewer files than this starting workers takes longer than they save."""

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
                frames = _in_time(path, lambda: read_frames(path, replace(sampling, time_scale=1.0), clip, temporal_patch))
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


def pack(frames: Frames) -> bytes:
    """Frames as safetensors bytes."""
    from safetensors.numpy import save

    described = {name: getattr(frames, name) for name in ("duration_s", "step_s", "decoder", "reason")}
    tensors: dict[str, NDArray[Any]] = {"pixels": np.ascontiguousarray(frames.pixels), "times_s": frames.times_s}
    return bytes(save(tensors, metadata={"frames": json.dumps(described)}))


def unpack(content: bytes) -> Frames:
    """The reverse of `pack`."""
    from safetensors.numpy import load

    size = int.from_bytes(content[:8], "little")
    described = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["frames"])
    tensors = load(content)
    return Frames(pixels=tensors["pixels"], times_s=tensors["times_s"], **described)


def patience(path: str | Path) -> float:
    """Seconds that a decoder may take for a file before it counts as hung."""
    try:
        return PATIENCE_S + PATIENCE_A_MB_S * Path(path).stat().st_size / 1e6
    except OSError:
        return PATIENCE_S


T = TypeVar("T")


def _in_time(path: str | Path, call: Callable[[], T]) -> T:
    """What `call` gives; it runs in a thread, which is left behind (WorkerDied) where `patience(path)` is over."""
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=work, name="decode in place", daemon=True).start()
    try:
        return outcome.result(patience(path))
    except TimeoutError:
        if outcome.done():
            raise
        raise WorkerDied(f"its decoder gave no answer in {patience(path):.0f} s") from None


def each_file(call: str, files: Sequence[tuple[Path, list[Any]]], workers: int, label: str) -> list[Any]:
    """A function on each of many files, in worker processes, with progress; answers in the order of `files`.

    A file's Timer1Error stands in the place of its answer, and so does one for a decoder that died or hung, which is ended
    and named while the rest goes on.

    Args:
        call: `module:function` of this package; takes a path as text and what stands beside it, all of it JSON, and so its
            answer.
        workers: 0, or too few files to start any for, works in place.
    """
    if not files:
        return []
    progress = Progress(label, len(files))
    many = min(workers, len(files)) if len(files) >= FEW else 0
    pool = WorkerPool(many)

    def ask(entry: tuple[Path, list[Any]]) -> Any:
        path, more = entry
        if not many:
            return _in_time(path, lambda: _function(call)(str(path), *more))
        answer = json.loads(pool.run({"call": call, "args": [str(path), *more], "seconds": patience(path)}))
        if answer["error"]:
            raise Timer1Error(answer["error"])
        return answer["value"]

    found = []
    with ThreadPoolExecutor(max(1, many)) as threads:
        try:
            for answer in threads.map(lambda entry: _attempt(entry[0], lambda: ask(entry)), files):
                found.append(answer)
                progress.update()
        finally:
            pool.close()
    return found


def _attempt(path: Path, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Timer1Error as error:
        return error
    except WorkerDied as error:
        return Timer1Error(f"{path}: {error}; the file may be damaged")


def _function(call: str) -> Callable[..., Any]:
    module, _, name = call.partition(":")
    if not module.startswith("timer1lib."):
        raise ValueError(f"{call}: only this package's own functions are called")
    return cast(Callable[..., Any], getattr(importlib.import_module(module), name))


class WorkerDied(Exception):
    """A decoder ended or hung in the middle of a request; says how."""


class WorkerPool:
    """At most `count` workers, started when they are first needed. `run` may be called from several threads."""

    def __init__(self, count: int) -> None:
        self._idle: queue.SimpleQueue[subprocess.Popen[str] | None] = queue.SimpleQueue()
        for _ in range(count):
            self._idle.put(None)
        self._all: list[subprocess.Popen[str]] = []
        self._lock = threading.Lock()
        self._closed = False

    def run(self, message: dict[str, Any]) -> str:
        """Let a worker carry out one request; its answer's line, empty where the pool was closed meanwhile.

        A file that cannot be decoded leaves no entry in the cache, so `get` meets the error. WorkerDied says that the process
        ended (a crash in a decoder, a lack of memory), or took longer than `message["seconds"]`.
        """
        worker = self._idle.get()
        started = time.monotonic()
        try:
            if self._closed:
                return ""
            if worker is None or worker.poll() is not None:
                worker = self._start()
            try:
                answer = _ask(worker, message)
            except (OSError, ValueError):
                answer = ""
            if not answer:
                code = worker.wait()
                worker = None
                if not self._closed:
                    late = time.monotonic() - started >= message["seconds"]
                    limit = f"its decoder gave no answer in {message['seconds']:.0f} s"
                    raise WorkerDied(limit if late else f"the process that decoded it died (exit status {code})")
            return answer
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End all workers, busy ones too; what they had not finished is decoded again when it is needed."""
        with self._lock:
            self._closed = True
            workers = list(self._all)
        for worker in workers:
            worker.kill()
            worker.wait()

    def __del__(self) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[str]:
        package_root = str(Path(__file__).resolve().parents[2])
        paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        with self._lock:
            worker = subprocess.Popen(
                [sys.executable, "-m", "timer1lib.video.store"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True,
            )  # fmt: skip
            self._all.append(worker)
        return worker


def _ask(worker: subprocess.Popen[str], message: dict[str, Any]) -> str:
    """Its answer line; empty where it ended, or was ended because it took longer than the message's `seconds`."""
    if worker.stdin is None or worker.stdout is None:
        return ""
    # A worker ends itself when its time is up, with or without us; this is for one that cannot.
    watchdog = threading.Timer(message["seconds"] + 5, worker.kill)
    watchdog.daemon = True
    watchdog.start()
    try:
        worker.stdin.write(json.dumps(message) + "\n")
        worker.stdin.flush()
        return worker.stdout.readline()
    finally:
        watchdog.cancel()


def serve(requests: TextIO, answers: TextIO) -> None:
    """Decode requests until the other side closes; one answer line each."""
    caches: dict[tuple[str, int], DiskCache] = {}
    answer: dict[str, Any]
    for line in requests:
        request = json.loads(line)
        answer = {"error": "", "kept": True}
        signal.setitimer(signal.ITIMER_REAL, request["seconds"])  # ends the process, even in the middle of a decoder
        try:
            if "call" in request:
                answer["value"] = _function(request["call"])(*request["args"])
            elif "deep" in request:
                answer["error"] = damage(request["deep"])
            else:
                where = (request["cache"], request["limit"])
                if where not in caches:
                    caches[where] = DiskCache.of(where[0], "frames", where[1])
                cache = caches[where]
                start, end = request["clip"]
                frames = read_frames(request["path"], Sampling(**request["sampling"]), (start, end), request["patch"])
                answer["kept"] = cache.put(request["key"], pack(frames))
        except (Timer1Error, OSError) as error:
            answer |= {"error": str(error), "kept": "deep" not in request}
        except Exception as error:  # a fault of ours on one file must not end what serves the others
            answer |= {"error": f"{type(error).__name__}: {error}", "kept": False}
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Serve on stdin and stdout; whatever a decoder prints goes to stderr instead."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
