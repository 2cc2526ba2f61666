"""A process that imports torch, transformers and trl once, and forks ranks from there.

    python -m timer1lib.workers.server ADDRESS OWNER MODULE...

It belongs to the process that started it (its id is OWNER) and ends with it, whatever the signal. Nothing touches CUDA and
no thread is started before a fork. A connection is one order: {"imports": true}, or {"folder", "ranks": [environment, ...]}.
Ranks live as long as the connection that ordered them: closing it kills them. The first rank that fails ends the others, and
what became of it is the answer: {"rank": null} where all went well, else {"rank": 3, "signal": 9, "status": null}.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timer1lib.processes import POLL_SECONDS, end_group, leave_with


@dataclass
class _Group:
    """The ranks of one order."""

    connection: socket.socket
    alive: dict[int, int] = field(default_factory=dict)  # rank by process id
    heard: bytes = b""


def main() -> None:
    address, owner, modules = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a person's Ctrl-C is for who started us
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(bound(address))
    listener.listen()
    groups: list[_Group] = []
    while os.getppid() == owner:
        waiting = [listener, *(group.connection for group in groups)]
        ready, _, _ = select.select(waiting, [], [], POLL_SECONDS / 4 if any(g.alive for g in groups) else POLL_SECONDS)
        if listener in ready:
            connection, _ = listener.accept()
            if _ours(connection):
                groups.append(_Group(connection))
            else:
                connection.close()
        for group in list(groups):
            if group.connection in ready and not _listen(group, modules, listener, groups):
                _end(group)
                groups.remove(group)
        _bury(groups)
    for group in groups:
        _end(group)


def bound(address: str) -> str:
    """The socket's name as the system wants it; one that starts with @ is no file."""
    return "\0" + address[1:] if address.startswith("@") else address


def _ours(connection: socket.socket) -> bool:
    """Whether the same person is at the other end: a name without a file has no permissions."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # a file in a folder that is closed to others
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return bool(user == os.getuid())


def _listen(group: _Group, modules: list[str], listener: socket.socket, groups: list[_Group]) -> bool:
    """Take what came; False where the other end is gone."""
    try:
        heard = group.connection.recv(1 << 16)
    except OSError:
        return False
    group.heard += heard
    if heard and group.heard.endswith(b"\n"):
        order = json.loads(group.heard)
        group.heard = b""
        for module in modules:
            with contextlib.suppress(ImportError):  # the rank says what is missing
                importlib.import_module(module)
        if "folder" in order:
            for number, environment in enumerate(order["ranks"]):
                group.alive[_fork(Path(order["folder"]), environment, listener, groups)] = int(environment.get("RANK", number))
    return bool(heard)


def _fork(folder: Path, environment: dict[str, str], listener: socket.socket, groups: list[_Group]) -> int:
    server = os.getpid()
    if pid := os.fork():
        return pid
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        listener.close()
        for group in groups:
            group.connection.close()
        os.environ.update(environment)
        _write_to(folder / f"rank{environment.get('RANK', '0')}.txt")
        leave_with(server)
        from timer1lib.workers.rank import main as work

        status = work(folder)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)  # threads and pools of a forked rank must not hold it up


def _write_to(path: Path) -> None:
    """Send what this process and its libraries write to a file."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for target in (1, 2):
        os.dup2(handle, target)
    os.close(handle)


def _bury(groups: list[_Group]) -> None:
    """Look which ranks ended; answer where a group is complete or broken."""
    for group in groups:
        failed = []
        for pid, rank in list(group.alive.items()):
            with contextlib.suppress(ChildProcessError):
                done, status = os.waitpid(pid, os.WNOHANG)
                if not done:
                    continue
                del group.alive[pid]
                end_group(pid)  # decoding workers that it left
                if code := os.waitstatus_to_exitcode(status):
                    failed.append({"rank": rank, "signal": -code if code < 0 else None, "status": code if code > 0 else None})
                elif not group.alive and not failed:
                    _answer(group, {"rank": None})
        if failed:  # one that was killed is why the others failed
            _answer(group, min(failed, key=lambda end: end["signal"] is None))
            _end(group)


def _answer(group: _Group, answer: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        group.connection.sendall(json.dumps(answer).encode() + b"\n")


def _end(group: _Group) -> None:
    """Kill what is left of a group."""
    for pid in group.alive:
        end_group(pid)
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    group.alive.clear()


if __name__ == "__main__":
    main()
