"""Processes that decode videos into the cache. Plain subprocesses that speak JSON lines: no pickle, no fork."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, TextIO


class WorkerDied(Exception):
    """A worker ended in the middle of a request."""


class WorkerPool:
    """At most `count` workers, started when they are first needed. `run` may be called from several threads."""

    def __init__(self, count: int) -> None:
        self._idle: queue.SimpleQueue[subprocess.Popen[str] | None] = queue.SimpleQueue()
        for _ in range(count):
            self._idle.put(None)
        self._all: list[subprocess.Popen[str]] = []
        self._lock = threading.Lock()
        self._closed = False

    def run(self, message: dict[str, Any]) -> None:
        """Decode one request into the cache. A file that cannot be decoded leaves no entry, so `get` meets the error.

        Raises:
            WorkerDied: the process ended (a crash in a decoder, a lack of memory).
        """
        worker = self._idle.get()
        try:
            if self._closed:
                return
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
                    raise WorkerDied(f"exit status {code}")
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
                [sys.executable, "-m", "timer1lib.video.workers"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True,
            )  # fmt: skip
            self._all.append(worker)
        return worker


def _ask(worker: subprocess.Popen[str], message: dict[str, Any]) -> str:
    """Its answer line; empty where it ended."""
    if worker.stdin is None or worker.stdout is None:
        return ""
    worker.stdin.write(json.dumps(message) + "\n")
    worker.stdin.flush()
    return worker.stdout.readline()


def serve(requests: TextIO, answers: TextIO) -> None:
    """Decode requests until the other side closes; one answer line each."""
    from timer1lib.clock.sampling import Sampling
    from timer1lib.errors import Timer1Error
    from timer1lib.video.decode import read_frames
    from timer1lib.video.disk_cache import DiskCache
    from timer1lib.video.frame_store import pack

    caches: dict[tuple[str, int], DiskCache] = {}
    for line in requests:
        request = json.loads(line)
        where = (request["folder"], request["limit"])
        cache = caches.setdefault(where, DiskCache(*where))
        answer = {"key": request["key"], "error": ""}
        try:
            start, end = request["clip"]
            frames = read_frames(request["path"], Sampling(**request["sampling"]), (start, end), request["patch"])
            cache.put(request["key"], pack(frames))
        except (Timer1Error, OSError) as error:
            answer["error"] = str(error)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Serve on stdin and stdout; whatever a decoder prints goes to stderr instead."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
