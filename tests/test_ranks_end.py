"""How ranks are started, what is seen of them, and that nothing outlives who started them, whatever signal ended it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from timer1lib.errors import Timer1Error
from timer1lib.runs.kernel import RANKS_LOCK, Held
from timer1lib.workers import launch
from timer1lib.workers.launch import RankFailed, carry_out
from timer1lib.workers.nodes import Nodes, parse_nodes

TESTS = Path(__file__).resolve().parent


@pytest.fixture(scope="module", autouse=True)
def own_server() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH")))))
        patch.setenv(launch.SERVER_VARIABLE, "")
        patch.setattr(launch, "IMPORTS", ("torch", "torch.distributed"))
        yield


def job(folder: Path, do: str, processes: int = 2, **more: Any) -> dict[str, Any]:
    return {
        "package": "rank_stub", "stage": "stub", "phase": do, "given": {"do": do, "folder": str(folder)}, "processes": processes,
        "device": "cpu", "threads": 1, "config": "", "lock": str(folder / RANKS_LOCK), **more,
    }  # fmt: skip


def pids(folder: Path, count: int = 2) -> list[int]:
    """Process ids of the ranks and of their server, once all are there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        texts = [path.read_text().split() for path in folder.glob("pid*")]
        if len(texts) == count and all(len(text) == 2 for text in texts):
            return [int(text[0]) for text in texts] + [int(texts[0][1])]
        time.sleep(0.05)
    raise AssertionError("the ranks did not start")


def gone(processes: list[int], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}").exists() and "Z" not in state(pid) for pid in processes):
            return True
        time.sleep(0.05)
    return False


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_ranks_know_each_other_and_rank_0_is_seen(tmp_path: Path, capsys: Any, caplog: Any) -> None:
    carry_out(job(tmp_path, "work"), tmp_path / "stub.job", Nodes())
    assert (tmp_path / "all0").read_text() == "([0, 1], 0, [0, 2, 4])"
    assert (tmp_path / "all1").read_text() == "([0, 1], 0, [1, 3])"
    shown = capsys.readouterr()
    assert "counting: 3/3" in shown.err + shown.out
    assert "reward 2.000" in shown.err + shown.out
    assert "said by rank 1" in caplog.text
    assert not (tmp_path / "stub.job").exists()
    Held(tmp_path, "next").release()  # nobody is left who holds the folder


def test_the_server_forks_from_one_thread(tmp_path: Path) -> None:
    carry_out(job(tmp_path, "work", processes=1), tmp_path / "stub.job", Nodes())
    server = pids(tmp_path, 1)[-1]
    assert "Threads:\t1\n" in Path(f"/proc/{server}/status").read_text()


@pytest.mark.parametrize(
    ("do", "kind", "said"),
    [
        ("bad input", Timer1Error, r"^data/x.jsonl, line 3: no such video$"),
        ("fault", RankFailed, r"^rank 1 of 2: ValueError: shapes differ \(see .*rank1.txt\)$"),
        ("killed", RankFailed, r"^rank 1 of 2 was killed by signal 9 \(out of memory\?\)$"),
        ("exit", RankFailed, r"^rank 1 of 2 ended with status 7"),
    ],
)
def test_one_rank_that_fails_ends_all_with_one_line(do: str, kind: type[Exception], said: str, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(kind, match=said):
        carry_out(job(tmp_path, do), tmp_path / "stub.job", Nodes())
    assert time.monotonic() - started < 30  # the other one sleeps for a minute
    assert gone(pids(tmp_path)[:2])
    Held(tmp_path, "next").release()


def test_a_killed_server_is_told_and_another_one_takes_its_place(tmp_path: Path) -> None:
    import threading

    def kill() -> None:
        os.kill(pids(tmp_path)[-1], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(RankFailed, match="was killed by signal 9"):
        carry_out(job(tmp_path, "wait"), tmp_path / "stub.job", Nodes())
    thread.join()
    assert gone(pids(tmp_path))
    for path in tmp_path.glob("pid*"):
        path.unlink()
    carry_out(job(tmp_path, "work"), tmp_path / "stub.job", Nodes())
    assert (tmp_path / "all1").is_file()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_ranks_and_server_end_with_who_started_them(number: int, tmp_path: Path) -> None:
    code = (
        "import json, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from pathlib import Path; from timer1lib.workers import launch; from timer1lib.workers.nodes import Nodes;"
        "launch.IMPORTS = ('torch',); launch.carry_out(json.loads(sys.argv[1]), Path(sys.argv[2]), Nodes())"
    )
    given = [json.dumps(job(tmp_path, "wait")), str(tmp_path / "stub.job")]
    environment = {**os.environ, launch.SERVER_VARIABLE: "", "PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    owner = subprocess.Popen([sys.executable, "-c", code, *given], env=environment, **quiet)  # type: ignore[call-overload]
    try:
        started = pids(tmp_path)
        owner.send_signal(number)
        owner.wait(timeout=20)
        assert gone(started)
        Held(tmp_path, "next").release()
    finally:
        owner.kill()


def test_two_machines_meet_and_the_other_one_follows_the_run(tmp_path: Path) -> None:
    import socket
    import threading

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    lines: list[str] = []
    with parse_nodes(0, 2, address).open(tmp_path):
        other = threading.Thread(target=launch.join, args=(tmp_path, parse_nodes(1, 2, address), lines.append))
        other.start()
        carry_out(job(tmp_path, "work", processes=1), tmp_path / ".work" / "stub.job", parse_nodes(0, 2, address))
        with pytest.raises(RankFailed, match="rank 1 of 2: ValueError: shapes differ"):
            carry_out(job(tmp_path, "fault", processes=1), tmp_path / ".work" / "stub.job", parse_nodes(0, 2, address))
    other.join(timeout=30)
    assert not other.is_alive()  # the run has ended
    assert (tmp_path / "all1").read_text() == "([0, 1], 0, [1, 3])"
    assert lines[0] == "stub, work: joined with 1 ranks"


def test_machines_that_do_not_meet_are_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TIMER1_PATIENCE", "1")
    with pytest.raises(Timer1Error, match=r"2 machines did not meet at 127.0.0.1:\d+ in 1 s: start `timer1 work`"):
        carry_out(job(tmp_path, "work", processes=1), tmp_path / "stub.job", parse_nodes(0, 2, "127.0.0.1:29611"))


@pytest.mark.parametrize(
    ("node", "count", "address", "said"),
    [(0, 2, "here", "HOST:PORT"), (0, 2, "here:0", "HOST:PORT"), (2, 2, "here:99", "count from 0 to 1"), (0, 2, "", "HOST:PORT")],
)
def test_a_wrong_machine_or_address_is_one_line(node: int, count: int, address: str, said: str) -> None:
    with pytest.raises(Timer1Error, match=said):
        parse_nodes(node, count, address)
