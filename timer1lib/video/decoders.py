"""Processes that decode, or do something else with one file after the other, and are not waited for without end.

They are plain subprocesses of this module that speak JSON lines: no pickle, no fork. Frames come back through the cache.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from timer1lib.clock.frames import Frames, Sampling
from timer1lib.errors import Timer1Error
from timer1lib.progress import Progress
from timer1lib.video.cache import DiskCache
from timer1lib.video.decode import damage, read_frames

PATIENCE_S, PATIENCE_A_MB_S = 120.0, 10.0
"""A decoder that says nothing for this long, and this much more a megabyte of its file, counts as hung."""

FEW = 64
"""With fewer files than this starting workers takes longer than they save."""

T = TypeVar("T")


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


def in_time(path: str | Path, call: Callable[[], T]) -> T:
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
            return in_time(path, lambda: _function(call)(str(path), *more))
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
                [sys.executable, "-m", "timer1lib.video.decoders"],
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
