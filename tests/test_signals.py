"""Signals to a run: whoever gets which one, nobody is left, a pipe's reader goes on, and the same command ends the same."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from stub_project import BODIES, make_project, write_notebook

TOKEN = "TIMER1_TEST_TOKEN"
RUN = (
    "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; from stub_project import Project\n"
    "from timer1lib.errors import Timer1Error; from timer1lib.params.sections import Params\n"
    "from timer1lib.runs.execute import NotebookFailed; from timer1lib.runs.runner import run\n"
    "root = Path(sys.argv[1])\n"
    "try: run(Params(), project=Project(root, root / 'notebooks', root / 'timer1lib'), until='04', report=False)\n"
    "except NotebookFailed as error: sys.exit(f'error: {error}')\n"
)
# A training whose kernel has workers of its own, as drawing and decoding have.
GRPO = BODIES["grpo"].replace(
    "for step in", "from timer1lib.processes import worker_processes\nwith worker_processes(1, 'stub') as pool:\n  "
    "worker = pool.submit(os.getpid).result(); (run.root.parent / 'worker.txt').write_text(str(worker))\n  for step in",
).replace("    time.sleep", "      time.sleep").replace("    with open(log", "      with open(log")  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with 01 to 03 finished, and beside it one in which 04 is too, undisturbed."""
    root = tmp_path_factory.mktemp("signals")
    make_project(root / "whole")
    write_notebook(root / "whole" / "notebooks" / "04_grpo.ipynb", "grpo", GRPO)
    assert start(root / "whole", 0.0).wait(timeout=120) == 0
    shutil.copytree(root / "whole", root / "begun")
    (root / "begun" / "outputs" / "tiny" / "stages" / "04_grpo.json").unlink()
    (root / "begun" / "outputs" / "tiny" / "logs" / "grpo.jsonl").unlink()
    (root / "begun" / "outputs" / "pids.txt").unlink()
    (root / "begun" / "outputs" / "worker.txt").unlink()
    return root


def start(root: Path, step_seconds: float, pipe: str = "") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", RUN, str(root), str(Path(__file__).parent)]
    environment = {**os.environ, "STUB_STEP_SECONDS": str(step_seconds), TOKEN: str(root)}
    if pipe:
        text = f'"$@" 2>&1 {pipe}'
        return subprocess.Popen(["bash", "-c", text, "bash", *command], env=environment, start_new_session=True)
    return subprocess.Popen(command, env=environment, stderr=(root / "said.txt").open("wb"), start_new_session=True)


def wait_for(condition: object, what: str, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.02)
    raise AssertionError(what)


def ours(root: Path) -> list[psutil.Process]:
    """Every process that runs for this project, however it came to be."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(TOKEN) == str(root) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def in_the_middle(root: Path) -> tuple[int, int]:
    """Wait until some steps are trained; the kernel's and its worker's process ids."""
    outputs = root / "outputs"
    log = outputs / "tiny" / ".work" / "grpo" / "logs" / "grpo.jsonl"
    wait_for(lambda: log.exists() and len(log.read_text().splitlines()) >= 2, "04 never began")
    return int((outputs / "pids.txt").read_text().split()[0]), int((outputs / "worker.txt").read_text())


def ends_the_same(root: Path, whole: Path) -> None:
    assert start(root, 0.0).wait(timeout=120) == 0
    log = Path("outputs/tiny/logs/grpo.jsonl")
    assert (root / log).read_bytes() == (whole / log).read_bytes()
    begun = [int(line.split()[-1]) for line in (root / "outputs" / "pids.txt").read_text().splitlines()]
    assert begun[0] == 0
    assert begun[-1] >= 2, "it began from nothing"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda n: n.name)
@pytest.mark.parametrize("who", ["runner", "kernel"])
def test_a_signal_to_one_process_leaves_nobody(prepared: Path, tmp_path: Path, who: str, number: signal.Signals) -> None:
    root = tmp_path / "copy"
    shutil.copytree(prepared / "begun", root)
    runner = start(root, 0.2)
    kernel, worker = in_the_middle(root)
    assert {kernel, worker} <= {process.pid for process in ours(root)}
    os.kill(runner.pid if who == "runner" else kernel, number)
    status = runner.wait(timeout=30)
    wait_for(lambda: not ours(root), f"left behind: {ours(root)}", 15)
    if who == "kernel":
        last = (root / "said.txt").read_text().splitlines()[-1]
        assert status == 1
        assert last.startswith("error: 04_grpo")
        assert "the kernel died (out of memory, or killed)" in last
    else:
        assert status != 0
    ends_the_same(root, prepared / "whole")


def test_a_pipe_behind_a_killed_run_ends(prepared: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(prepared / "begun", root)
    shell = start(root, 0.2, f"| tee {root / 'tee.txt'}")
    kernel, _ = in_the_middle(root)
    runner = psutil.Process(kernel).ppid()
    assert runner != shell.pid
    os.kill(runner, signal.SIGKILL)
    shell.wait(timeout=15)  # bash waits for tee, and tee for everybody who could still write
    wait_for(lambda: not ours(root), f"left behind: {ours(root)}", 15)
    assert "04_grpo" in (root / "tee.txt").read_text()
