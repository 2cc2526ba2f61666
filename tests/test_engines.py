"""Engines on this machine: cards, signals, what is not installed; Slurm by submitit's local executor; artefacts by URL."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from stub_project import BODIES, make_project
from test_sweep import write_sweep

from timer1lib.cli import main
from timer1lib.errors import Timer1Error
from timer1lib.runs.engines import open_engine
from timer1lib.runs.engines.local import LocalEngine
from timer1lib.runs.engines.seam import Resources
from timer1lib.runs.graph import find_stage
from timer1lib.runs.row import JOB, LOG
from timer1lib.runs.runner import Project
from timer1lib.runs.stamps import Claimed, Store
from timer1lib.runs.storage import Storage, StoredStages
from timer1lib.runs.sweep import sweep

ROOT = Path(__file__).resolve().parent.parent


def needs(package: str, extra: str) -> pytest.MarkDecorator:
    there = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not there, reason=f"the extra [{extra}] is not installed (make extras)")


def ended(engine: Any, count: int, seconds: float = 60.0) -> dict[str, Any]:
    found: dict[str, Any] = {}
    deadline = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        found.update(engine.wait(0.2))
    return found


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows are tiny programs: each writes what it sees of the machine and ends at once, or as its name says."""
    program = tmp_path / "row.py"
    program.write_text(
        "import json, os, signal, sys, time\nfrom pathlib import Path\njob = json.loads(Path(sys.argv[1]).read_text())\n"
        "out = Path(sys.argv[1]).parent\nseen = {n: os.environ.get(n) for n in ('CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS')}\n"
        "seen['leads'] = os.getpgrp() == os.getpid()\n(out / 'seen.json').write_text(json.dumps(seen))\n"
        "if job['row'] == 'killed': os.kill(os.getpid(), signal.SIGKILL)\nif job['row'] == 'broken': sys.exit(3)\n"
        "if job['row'] == 'waits': time.sleep(60)\n"
        "(out / '.row-result.json').write_text(json.dumps({'error': None, 'stages': {}}))\n"
    )
    begin = subprocess.Popen

    def instead(command: list[str], **more: Any) -> Any:
        return begin([sys.executable, "-S", str(program), command[-1]], **more)

    monkeypatch.setattr("timer1lib.runs.row.subprocess.Popen", instead)
    return tmp_path


def start(engine: Any, folder: Path, *names: str) -> None:
    project = {"notebooks": str(folder)}
    for name in names:
        folder_of = str(folder / name)
        engine.start(
            name, {"row": name, "folder": folder_of, "project": project, "cwd": str(folder), "cpus": None, "storage": ""}
        )


def seen(folder: Path, *names: str) -> list[Any]:
    return [json.loads((folder / name / "seen.json").read_text()) for name in names]


def test_rows_are_spread_over_the_cards_and_cores(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-ab,7")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)))
    engine = LocalEngine(Resources(), None)
    assert engine.places() == 3
    start(engine, told, "a", "b", "c")
    assert all(outcome.error is None for outcome in ended(engine, 3).values())
    found = seen(told, "a", "b", "c")
    assert [row["CUDA_VISIBLE_DEVICES"] for row in found] == ["3", "GPU-ab", "7"]
    assert {row["OMP_NUM_THREADS"] for row in found} == {"4"}, "twelve cores for three rows"
    assert all(row["leads"] for row in found), "a row leads a group of its own"
    start(engine, told, "d")  # a card that has become free is used again
    ended(engine, 1)
    assert seen(told, "d")[0]["CUDA_VISIBLE_DEVICES"] == "3"

    two = LocalEngine(Resources(gpus=2, cpus=5), 8)
    assert two.places() == 1, "the second pair of cards lacks one"
    start(two, told, "e")
    ended(two, 1)
    assert seen(told, "e")[0] == {"CUDA_VISIBLE_DEVICES": "3,GPU-ab", "OMP_NUM_THREADS": "5", "leads": True}
    half = LocalEngine(Resources(gpus=0.5), None)
    assert half.places() == 6
    names = [f"h{i}" for i in range(6)]
    start(half, told, *names)
    ended(half, 6)
    assert sorted(row["CUDA_VISIBLE_DEVICES"] for row in seen(told, *names)) == ["3", "3", "7", "7", "GPU-ab", "GPU-ab"]
    none = LocalEngine(Resources(gpus=0), 2)
    assert none.places() == 2
    start(none, told, "n")
    ended(none, 1)
    assert seen(told, "n")[0]["CUDA_VISIBLE_DEVICES"] == ""


def test_without_cards_rows_run_one_by_one_and_share_nothing(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    engine = LocalEngine(Resources(), None)
    assert engine.places() == 1
    start(engine, told, "a")
    ended(engine, 1)
    assert seen(told, "a") == [{"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": None, "leads": True}]


def test_a_row_that_was_killed_is_lost_and_one_that_broke_is_not(told: Path) -> None:
    engine = LocalEngine(Resources(gpus=0), 3)
    start(engine, told, "killed", "broken", "waits")
    found = ended(engine, 2)
    assert found["killed"].lost
    assert "killed by SIGKILL" in found["killed"].error
    assert not found["broken"].lost
    assert "ended with status 3" in found["broken"].error
    process = psutil.Process(engine._running["waits"][0].process.pid)
    engine.close()
    assert not process.is_running()


@pytest.mark.parametrize(
    ("resources", "words"),
    [(Resources(gpus=3), "gpus: 3, and this machine has 2 cards"), (Resources(cpus=4000), "cpus: 4000, and this machine has")],
)
def test_what_this_machine_lacks_is_one_line(resources: Resources, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(Timer1Error, match=words):
        LocalEngine(resources, None)


@pytest.mark.parametrize(
    ("tree", "arguments", "word"),
    [
        ({}, ["--engine", "kubernetes"], "'kubernetes' is not one of"),
        ({}, ["--address", "10.0.0.1:6379"], "the local engine has none"),
        ({}, ["--engine", "ray"], "pip install 'timer1lib[ray]'"),
        ({}, ["--engine", "slurm"], "pip install 'timer1lib[slurm]'"),
        ({}, ["--storage", "nowhere://x"], "--storage 'nowhere://x'"),
        ({}, ["--storage", "/proc/nowhere"], "--storage '/proc/nowhere': cannot be used"),
        ({"gpus": 1.5}, [], "'gpus': a whole number of cards"),
        ({"gpus": -1}, [], "gpus"),
        ({"cpus": 0}, [], "cpus"),
        ({"gpus": 1000}, [], "gpus: 1000, and this machine has"),
    ],
)
def test_bad_engines_and_resources_are_one_line_and_two(
    tmp_path: Path,
    tree: dict[str, Any],
    arguments: list[str],
    word: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for package in ("ray", "submitit"):  # as where the extras are not installed
        monkeypatch.setitem(sys.modules, package, None)
    path = write_sweep(tmp_path, **tree)
    assert main(["sweep", str(path), "--out", str(tmp_path / "out"), *arguments]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert word in said
    assert not list((tmp_path / "out").glob("*/" + JOB)), "nothing has started"


def test_the_help_names_every_key_of_a_sweep_file(capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    from timer1lib.runs.sweepfile import SweepSpec

    assert main(["sweep", "--help"]) == 0
    text = capsys.readouterr().out
    tree = yaml.safe_load(textwrap.dedent(text[text.index("    name: rates") : text.index("  timer1 sweep params/sweeps")]))
    assert set(tree) == set(SweepSpec.model_fields)
    SweepSpec.model_validate(tree)


def test_a_claimed_stage_is_not_waited_for(tmp_path: Path) -> None:
    store, stage = Store(tmp_path), find_stage("sft")
    code = "import sys; from pathlib import Path; from timer1lib.runs.stamps import Store; from timer1lib.runs.graph import find_stage\n"
    code += "with Store(Path(sys.argv[1])).claim(find_stage('sft'), 'k'): print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(Claimed), store.claim(stage, "k"):
        pass
    with store.claim(stage, "another"):
        pass
    holder.kill()
    holder.wait()
    with store.claim(stage, "k"):
        pass


def below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


STEPS = """
import os, time
from pathlib import Path
from timer1lib.runfolder import RunFolder
run = RunFolder(Path(run_dir), "curate"); log = run.data("steps.txt"); log.parent.mkdir(parents=True, exist_ok=True)
done = len(log.read_text().split()) if log.exists() else 0
with open(run.root.parent / "pids.txt", "a") as stream: stream.write(f"{os.getpid()} from {done}\\n")
for step in range(done, 20):
    time.sleep(float(os.environ["STUB_STEP_SECONDS"]))
    with open(log, "a") as stream: stream.write(f"{step}\\n")
"""


def test_nothing_outlives_a_sweep_whatever_the_signal_and_a_new_start_goes_on(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", {"curate": STEPS})
    path = write_sweep(tmp_path, rows=[{"name": "a"}, {"name": "b", "set": {"curate.world_seed": 5}}], until="01")
    command = [sys.executable, "-m", "timer1lib.cli", "sweep", str(path), "--jobs", "2"]
    pids = project.root / "outputs" / "sweeps" / "s" / "pids.txt"

    def begin(seconds: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "STUB_STEP_SECONDS": seconds}
        return subprocess.Popen(command, cwd=project.root, env=environment, stderr=subprocess.PIPE)

    def begun() -> list[int]:
        return [int(line.split()[-1]) for line in pids.read_text().splitlines()] if pids.exists() else []

    for round_, how in enumerate((signal.SIGTERM, signal.SIGHUP, signal.SIGKILL), 1):
        running, deadline = begin("0.4"), time.monotonic() + 90
        while len(begun()) < 2 * round_ and time.monotonic() < deadline:
            assert running.poll() is None, running.communicate()[1].decode()
            time.sleep(0.05)
        time.sleep(0.6)
        family = below(running.pid)
        assert len(family) >= 4, "two rows, each with a kernel"
        running.send_signal(how)
        running.wait(20)
        assert running.returncode not in (0, 1, 2)
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive, [process.cmdline() for process in alive]
    again = begin("0")
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said.decode()
    assert begun()[:2] == [0, 0]
    assert len(begun()) == 8
    assert min(begun()[2:]) > 0, "all went on where they were"
    for row in "ab":
        steps = (project.root / "outputs" / "sweeps" / "s" / row / "data" / "steps.txt").read_text().split()
        assert steps == [str(i) for i in range(20)]


def stub_sweep(folder: Path, project: Project, **options: Any) -> tuple[Any, str]:
    """Two rows that share 01 and differ in 02, whose checkpoint says how."""
    path = write_sweep(folder, grid={"sft.steps": [5, 6]}, until="02")
    stream = io.StringIO()
    return sweep(path, out=folder / "out", project=project, stream=stream, **options), stream.getvalue()


def stub_rows(folder: Path) -> Project:
    return make_project(folder, {"sft": BODIES["sft"].replace('"sft of "', 'f"{steps} steps of "')})


def result(folder: Path) -> dict[str, str]:
    """The rows' files that count, by row and name."""
    names = ("data/train.jsonl", "checkpoints/sft/model.bin")
    return {f"{n} {name}": (folder / "out" / f"steps={n}" / name).read_text() for n in (5, 6) for name in names}


EXPECTED = {
    "5 data/train.jsonl": "seed 0\n",
    "5 checkpoints/sft/model.bin": "5 steps of seed 0\n",
    "6 data/train.jsonl": "seed 0\n",
    "6 checkpoints/sft/model.bin": "6 steps of seed 0\n",
}


def how(done: Any) -> list[str]:
    return sorted(stage["how"] for row in done.rows for stage in row["stages"].values())


@needs("submitit", "slurm")
def test_slurm_by_the_local_executor_of_submitit(tmp_path: Path) -> None:
    project = stub_rows(tmp_path / "p")
    done, log = stub_sweep(tmp_path, project, engine="slurm", address="local", jobs=2)
    assert not done.failed, log
    assert result(tmp_path) == EXPECTED
    assert how(done) == ["ran", "ran", "ran", "reused"]
    assert json.loads((tmp_path / "out" / ".slurm" / "jobs.json").read_text()) == []


@needs("submitit", "slurm")
@pytest.mark.parametrize(
    ("address", "options", "words"),
    [
        ("far:1", {}, "--address 'far:1'"),
        ("", {}, "no sbatch here"),
        ("local", {"partitoin": "gpu"}, "slurm options of the sweep file: .*partitoin"),
    ],
)
def test_wrong_slurm_options_are_one_line(
    tmp_path: Path, address: str, options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Timer1Error, match=words) as caught:
        open_engine("slurm", Resources(), None, address, options, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Path, dict[str, str]]:
    """A storage in a folder that a sweep has left: project, folder, {row: key of its 02}."""
    folder = tmp_path_factory.mktemp("kept")
    project = stub_rows(folder / "p")
    done, log = stub_sweep(folder / "one", project, storage=str(folder / "url"))
    assert not done.failed, log
    assert how(done) == ["ran", "ran", "ran", "reused"]
    assert result(folder / "one") == EXPECTED
    return project, folder / "url", {row["name"]: row["stages"]["02_sft"]["key"] for row in done.rows}


def test_another_machine_with_the_same_storage_runs_nothing_again(tmp_path: Path, kept: Any) -> None:
    project, url, _ = kept
    again, log = stub_sweep(tmp_path, project, storage=str(url))
    assert not again.failed, log
    assert result(tmp_path) == EXPECTED
    assert "ran" not in how(again)
    assert json.loads((tmp_path / "out" / "steps=5" / "manifest.json").read_text())["stages"]
    assert "01_curate" in (tmp_path / "out" / "steps=5" / LOG).read_text()


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    server = pytest.importorskip("moto.server", reason="the extra [extras-dev] is not installed (make extras)")
    pytest.importorskip("s3fs", reason="the extra [s3] is not installed (make extras)")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": "us-east-1"}.items():
            patch.setenv(f"AWS_{name}", value)
        import boto3

        boto3.client("s3").create_bucket(Bucket="sweeps")
        yield "s3://sweeps/mine"
    running.stop()


def test_artefacts_come_and_go_by_an_s3_like_server(tmp_path: Path, bucket: str) -> None:
    done, log = stub_sweep(tmp_path, stub_rows(tmp_path / "p"), storage=bucket)
    assert not done.failed, log
    assert result(tmp_path) == EXPECTED
    assert how(done) == ["ran", "ran", "ran", "reused"]
    with pytest.raises(Timer1Error, match=r"--storage 's3://nowhere/x': cannot be used"):
        Storage("s3://nowhere/x").check()


def test_a_damaged_or_strange_entry_of_a_storage_is_not_used(tmp_path: Path, kept: Any) -> None:
    stage, url = find_stage("sft"), tmp_path / "url"
    shutil.copytree(kept[1], url)
    key = kept[2]["steps=5"]
    assert StoredStages(tmp_path / "a", str(url), "s").find(stage, key) is not None
    entry = next(url.glob(f"stages/02_sft-{key[:8]}*.json"))
    text = entry.read_text()
    entry.write_text(text.replace("checkpoints/sft/model.bin", "../../outside.bin"))
    assert StoredStages(tmp_path / "b", str(url), "s").find(stage, key) is None
    assert not list(tmp_path.rglob("outside.bin")), "what comes from elsewhere stays in its folder"
    entry.write_text(text)
    for blob in (url / "blobs").iterdir():
        blob.write_bytes(b"x" + blob.read_bytes()[1:])
    assert StoredStages(tmp_path / "c", str(url), "s").find(stage, key) is None
