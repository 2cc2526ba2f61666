"""In a notebook's kernel: have a job carried out by ranks, show how far they are, and raise what went wrong with them.

A job's folder lies beside the stage's work folder. It holds `job.json`, rank 0's newest progress, what ranks logged, what
they and their libraries printed (`rank0.txt`, ...), and the line of a rank that failed. It goes when all went well.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, read_json, read_jsonl
from timer1lib.processes import POLL_SECONDS
from timer1lib.progress import Progress
from timer1lib.workers.nodes import MARK, Nodes, jobs
from timer1lib.workers.server import bound

SERVER_VARIABLE = "TIMER1_RANKS"
"""Address of the server that a runner started for all its stages."""

IMPORTS = (
    *("torch", "torch.distributed", "transformers", "peft", "datasets", "trl.trainer.sft_trainer"),
    *("timer1lib.training.sft", "timer1lib.training.grpo", "timer1lib.inference.generate", "timer1lib.inference.likelihood"),
)
"""What the server imports before it forks; the last ones by name alone, since they stand above this package."""

_LAUNCH = (
    "import runpy, sys; from timer1lib.processes import leave_with; leave_with(int(sys.argv.pop(1))); "
    "runpy.run_module('accelerate.commands.launch', run_name='__main__', alter_sys=True)"
)
_BEFORE_IMPORTS = {"HF_HUB_DISABLE_TELEMETRY": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""No thread of a library that asks the network or keeps house in the background, where a person did not set them otherwise."""
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_TOP_PAD_": str(64 << 20)}
"""glibc keeps what a rank frees (up to a GiB of it): pages that went back after every tensor would be zeroed anew for others."""
_START_SECONDS = 60.0
_ENDING_SECONDS = 10.0
"""How long this machine's ranks may take to end after another machine's have."""


class RankFailed(Exception):
    """A rank died or failed for a reason that is no person's bad input: one line that names it."""


class Started(Protocol):
    """Ranks that were started here."""

    def ended(self) -> Mapping[str, Any] | None:
        """What became of them: `rank` (None: all went well), `signal`, `status`; None while they work."""

    def close(self) -> None:
        """Kill what is left of them."""


def carry_out(job: dict[str, Any], folder: Path, nodes: Nodes, watch: Callable[[], None] | None = None) -> None:
    """Have a job done by `job["processes"]` ranks on each machine, and wait for it; `watch` is called all the while.

    Raises:
        Timer1Error: what a rank raised as one.
        RankFailed: a rank was killed, or failed otherwise.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    job |= {"id": secrets.token_hex(8), "nodes": nodes.count, "cwd": os.getcwd()}
    atomic_write_json(folder / "job.json", job)
    try:
        follow(job, folder, nodes, watch)
    except BaseException:
        (folder / "job.json").unlink(missing_ok=True)  # what tells other machines; what was printed stays
        raise
    shutil.rmtree(folder, ignore_errors=True)


def follow(job: Mapping[str, Any], folder: Path, nodes: Nodes, watch: Callable[[], None] | None = None) -> None:
    """Start this machine's ranks of a job and see them through; errors as in `carry_out`."""
    group: Started = _Launched(job, folder, nodes) if job["config"] else _Forked(job, folder, nodes)
    shown = _Mirror(folder)
    given_up = float("inf")
    try:
        while (end := group.ended()) is None:
            shown.update()
            if watch is not None:
                watch()
            if any(folder.glob("error.*.json")):
                end = _soon(group)  # where a rank was killed, that is why the others failed
                break
            if not (folder / "job.json").is_file():
                given_up = min(given_up, time.monotonic() + _ENDING_SECONDS)
            if time.monotonic() > given_up:
                raise RankFailed("the machine that began this job has given it up")
            time.sleep(POLL_SECONDS / 4)
        shown.update()
        if end["rank"] is not None or end.get("status"):
            if not end.get("signal"):
                _raise_errors(folder, job)
            why = _why(end, folder, job["processes"] * nodes.count)
            if nodes.count > 1 and folder.is_dir():  # for the other machines
                atomic_write_json(folder / f"error.{end['rank']}.json", {"rank": end["rank"], "known": False, "text": why})
            raise RankFailed(why)
    finally:
        group.close()


def _soon(group: Started) -> Mapping[str, Any]:
    """What became of a group in which a rank has said that it failed."""
    deadline = time.monotonic() + 1.0
    while (end := group.ended()) is None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS / 10)
    return end or {"rank": -1}


def join(root: Path, nodes: Nodes, said: Callable[[str], object]) -> None:
    """Take part in every job of a run that another machine began, until it is finished; `said` gets a line for each."""
    last = ""
    while not (root / MARK).is_file():
        time.sleep(POLL_SECONDS)
    while (root / MARK).is_file():
        for folder in jobs(root):
            with contextlib.suppress(Timer1Error, KeyError, TypeError):
                job = read_json(folder / "job.json")
                if job["nodes"] == nodes.count and job["id"] != last:
                    last = job["id"]
                    said(f"{job['stage']}, {job['phase']}: joined with {job['processes']} ranks")
                    try:
                        follow(job, folder, nodes)
                    except (RankFailed, Timer1Error) as error:
                        said(f"{job['stage']}, {job['phase']}: {error}")
        time.sleep(POLL_SECONDS)


def _raise_errors(folder: Path, job: Mapping[str, Any]) -> None:
    """Raise the first error that a rank left: the others fail because of it."""
    found = sorted(folder.glob("error.*.json"), key=lambda path: path.stat().st_mtime_ns)
    if found:
        error = read_json(found[0])
        if error["known"]:
            shutil.rmtree(folder, ignore_errors=True)
            raise Timer1Error(error["text"])
        where = folder / f"rank{error['rank']}.txt"
        raise RankFailed(f"rank {error['rank']} of {job['processes'] * job['nodes']}: {error['text'][:500]} (see {where})")


def _why(end: Mapping[str, Any], folder: Path, size: int) -> str:
    rank = end["rank"]
    who = "the ranks' launcher" if rank is None or rank < 0 else f"rank {rank} of {size}"
    if end.get("signal"):
        return f"{who} was killed by signal {end['signal']}{' (out of memory?)' if end['signal'] == signal.SIGKILL else ''}"
    text = folder / f"rank{max(0, rank or 0)}.txt"
    lines = text.read_text(errors="replace").split("\n") if text.is_file() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return f"{who} ended with status {end.get('status')}: {last[:300]} (see {text})"


class _Mirror:
    """Shows in this process what ranks report."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bar: Progress | None = None
        self._id = -1
        self._read: dict[str, tuple[int, int]] = {}  # bytes and rows of each rank's log that were shown

    def update(self) -> None:
        for path in sorted(self._folder.glob("log.*.jsonl")):
            size, (seen, shown) = path.stat().st_size, self._read.get(path.name, (0, 0))
            if size == seen:
                continue
            rows = list(read_jsonl(path, torn_tail=True))
            for row in rows[shown:]:
                logging.getLogger(row["name"]).log(row["level"], "%s", row["text"])
            self._read[path.name] = size, len(rows)
        with contextlib.suppress(Timer1Error, OSError):
            state = read_json(self._folder / "progress.json")
            if state["id"] != self._id:
                self._id, self._bar = state["id"], Progress(state["label"], state["total"], done=state["already"])
            if self._bar is not None:
                self._bar.mirror(state["done"], state["numbers"])


# --- ranks that a server of our own forks -------------------------------------------------------------------------


class _Forked:
    def __init__(self, job: Mapping[str, Any], folder: Path, nodes: Nodes) -> None:
        local = int(job["processes"])
        world = local * nodes.count
        environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")}
        if nodes.count > 1:
            environment["MASTER_ADDR"], environment["MASTER_PORT"] = nodes.host, str(nodes.port)
        if world == 1 and job["device"] != "cpu":  # trl refuses to see several cards without others to share them with
            environment["CUDA_VISIBLE_DEVICES"] = environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        ranks = []
        for number in range(local):
            own = {"RANK": str(nodes.node * local + number), "WORLD_SIZE": str(world)}
            if world > 1:
                own |= {"LOCAL_RANK": str(number), "LOCAL_WORLD_SIZE": str(local)}
            ranks.append({**environment, **own})
        self._server = server()
        self._heard = b""
        self._server.sendall(json.dumps({"folder": str(folder.resolve()), "ranks": ranks}).encode() + b"\n")
        self._server.setblocking(False)

    def ended(self) -> Mapping[str, Any] | None:
        try:
            heard = self._server.recv(1 << 16)
        except BlockingIOError:
            return None
        except OSError:
            heard = b""
        self._heard += heard
        if self._heard.endswith(b"\n"):
            answer: dict[str, Any] = json.loads(self._heard)
            return answer
        return None if heard else {"rank": -1, "signal": signal.SIGKILL}

    def close(self) -> None:
        self._server.close()


def server() -> socket.socket:
    """A connection to the server: the runner's, or one of this process's own."""
    address = os.environ.get(SERVER_VARIABLE, "")
    with contextlib.suppress(OSError):
        if address:
            return _connected(address)
    start_server()
    address = os.environ[SERVER_VARIABLE]
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            return _connected(address)
        except OSError as error:
            if time.monotonic() > deadline:
                raise RankFailed(f"the process that starts ranks does not answer: {error}") from None
            time.sleep(0.02)


def _connected(address: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(bound(address))
    except OSError:
        connection.close()
        raise
    return connection


def start_server(threads: int = 0) -> subprocess.Popen[bytes]:
    """Start a server that ends with this process. It imports nothing heavy before it is told to.

    Its address goes into the environment, where kernels that this process starts find it. `threads`: of OpenMP, which reads
    them when torch is imported; 0 leaves them as the environment has them.
    """
    name = f"timer1-{os.getpid()}-{secrets.token_hex(8)}"
    address = f"@{name}" if sys.platform == "linux" else f"{tempfile.mkdtemp(prefix='timer1-')}/{name[-8:]}"
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-m", "timer1lib.workers.server", address, str(os.getpid()), *IMPORTS]
    environment = {**_BEFORE_IMPORTS, **_KEEP_MEMORY, **_environment()} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    os.environ[SERVER_VARIABLE] = address
    return subprocess.Popen(command, start_new_session=True, env=environment, **quiet)  # type: ignore[call-overload,no-any-return]


def _environment() -> dict[str, str]:
    """This process's, with the folder that this package is imported from before all others."""
    home = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))}


def warm() -> None:
    """Let the server begin to import while the notebook does other things."""
    with contextlib.suppress(OSError, RankFailed), server() as connection:
        connection.sendall(b'{"imports": true}\n')


# --- ranks that accelerate starts, by a person's own configuration -------------------------------------------------


class _Launched:
    def __init__(self, job: Mapping[str, Any], folder: Path, nodes: Nodes) -> None:
        command = [sys.executable, "-c", _LAUNCH, str(os.getpid()), "--config_file", str(job["config"])]
        command += ["--num_processes", str(job["processes"] * nodes.count)]
        if nodes.count > 1:
            command += ["--num_machines", str(nodes.count), "--machine_rank", str(nodes.node)]
            command += ["--main_process_ip", nodes.host, "--main_process_port", str(nodes.port)]
        with open(folder / f"rank{nodes.node}.txt", "ab") as said:
            self._process = subprocess.Popen(
                [*command, "-m", "timer1lib.workers.rank", str(folder.resolve())],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
                env=_environment(),
            )  # fmt: skip

    def ended(self) -> Mapping[str, Any] | None:
        code = self._process.poll()
        return None if code is None else {"rank": -1 if code else None, "status": code}

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
