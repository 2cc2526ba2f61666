"""The runner on stub notebooks: order, skipping, keeping, killing, errors."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import yaml
from stub_project import BODIES, make_project, write_notebook

from timer1lib.errors import Timer1Error
from timer1lib.params.load import load_params
from timer1lib.params.sections import NOTEBOOKS, Params
from timer1lib.progress import BEACON_VARIABLE
from timer1lib.runfolder import RunFolder
from timer1lib.runs import stamps
from timer1lib.runs.display import Display
from timer1lib.runs.execute import NotebookFailed
from timer1lib.runs.graph import find_stage
from timer1lib.runs.runner import Project, RunResult, run, summary_lines


def in_process(
    source: Path, target: Path, failed: Path, parameters: dict[str, object], cwd: Path, lock: Path, display: Display
) -> None:
    """Stands in for papermill where a test is about which stages run: the same cells, without a kernel's second."""
    cells = [cell for cell in json.loads(source.read_text())["cells"] if cell["cell_type"] == "code"]
    names: dict[str, object] = {}
    with contextlib.chdir(cwd):
        for i, cell in enumerate(cells):
            exec("".join(cell["source"]), names)
            if i == 0:
                names.update(parameters)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("{}")


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timer1lib.runs.runner.execute", in_process)


def quiet_run(project: Project, params: Params | None = None, **options: object) -> tuple[RunResult, str]:
    stream = io.StringIO()
    beacon = project.root / "beacon"
    result = run(params or Params(), project=project, report=False, display=Display(7, beacon, stream), **options)  # type: ignore[arg-type]
    return result, stream.getvalue()


def how(result: RunResult) -> list[str]:
    return [stage["how"] for stage in result.stages.values()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose run is complete."""
    project = make_project(tmp_path_factory.mktemp("project"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("timer1lib.runs.runner.execute", in_process)
        result, log = quiet_run(project)
    assert how(result) == ["ran"] * 7
    assert [line.split()[0] for line in log.splitlines() if "done in" in line] == list(NOTEBOOKS)
    # 0^2 + ... + 19^2 = 2470, and the stub writes a hundredth of it.
    assert result.metrics is not None
    assert result.metrics["splits"]["test_id"]["grpo"]["mIoU"] == 24.7
    return project


def test_a_run_leaves_the_whole_folder(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    assert how(quiet_run(project, until="02")[0]) == ["ran", "ran"]
    root = project.root / "outputs" / "tiny"
    for name in NOTEBOOKS[:2]:
        executed = json.loads((root / "notebooks" / f"{name}.ipynb").read_text())
        injected = next(cell for cell in executed["cells"] if "injected-parameters" in cell["metadata"].get("tags", []))
        assert 'run_dir = "outputs/tiny"' in "".join(injected["source"])
        assert "seed = 0" in "".join(injected["source"])
        stamp = json.loads((root / "stages" / f"{name}.json").read_text())
        assert stamp["seconds"] > 0
    manifest = json.loads((root / "manifest.json").read_text())
    assert manifest["seed"] == 0
    assert manifest["packages"]["torch"]
    assert manifest["machine"]["cores"] >= 1
    assert load_params(root / "params.yaml") == Params()


def test_a_second_run_skips_everything_and_says_so(finished: Project) -> None:
    result, log = quiet_run(finished)
    assert how(result) == ["unchanged"] * 7
    assert log.count("unchanged, skipped") == 7
    assert summary_lines(result)[0].splitlines()[-1].split() == ["test_id", "GRPO", "24.7"]


def test_only_what_a_change_reaches_runs_again(tmp_path: Path, finished: Project, no_kernels: None) -> None:
    root = tmp_path / "copy"
    shutil.copytree(finished.root, root)
    project = Project(root, root / "notebooks", root / "timer1lib")
    # A comment and a docstring change no meaning; new code in a stage's module does, for that stage alone here,
    # as its stub leaves the same bytes.
    (project.package / "stages" / "sft.py").write_text('"""Words."""\n\nX = 1  # a comment\n')
    assert how(quiet_run(project)[0]) == ["unchanged"] * 7
    (project.package / "stages" / "difficulty.py").write_text("X = 2\n")
    result, log = quiet_run(project)
    assert how(result) == ["unchanged", "unchanged", "ran", "unchanged", "unchanged", "unchanged", "unchanged"]
    assert "03_difficulty: runs again, code" in log
    # A damaged output is not believed; the stage makes it again with the same bytes, so nothing after it runs.
    (root / "outputs" / "tiny" / "checkpoints" / "sft" / "model.bin").write_text("damaged")
    result, log = quiet_run(project)
    assert how(result)[1] == "ran"
    assert how(result).count("ran") == 1
    assert "checkpoints/sft/model.bin has changed" in log
    # Another seed changes what 01 hands on, and so everything; 02 to 04 also see it themselves.
    changed = Params.model_validate({"shared": {"seed": 5}})
    result, log = quiet_run(project, changed, until="02")
    assert how(result) == ["ran", "ran"]
    assert "01_curate: runs again, params (seed)" in log
    assert (root / "outputs" / "tiny" / "checkpoints" / "sft" / "model.bin").read_text() == "sft of seed 5\n"


def test_from_keeps_earlier_stages_and_fresh_runs_the_rest(tmp_path: Path, finished: Project, no_kernels: None) -> None:
    root = tmp_path / "copy"
    shutil.copytree(finished.root, root)
    project = Project(root, root / "notebooks", root / "timer1lib")
    write_notebook(project.notebooks / "01_curate.ipynb", "curate", BODIES["curate"] + "\nmore = 1")
    result, log = quiet_run(project, from_="06", fresh=True)
    assert how(result) == ["kept"] * 5 + ["ran", "ran"]
    assert "01_curate: kept as it is, though changed: notebook" in log
    with pytest.raises(Timer1Error, match="comes after"):
        quiet_run(project, from_="05", until="02")
    with pytest.raises(Timer1Error, match="no stage '9'"):
        quiet_run(project, from_="9")
    with pytest.raises(Timer1Error, match="01_curate has not finished"):
        quiet_run(project, from_="02", out=tmp_path / "nothing there")


def test_a_failing_cell_is_one_line_and_leaves_no_stamp(tmp_path: Path) -> None:
    bad = "from timer1lib.errors import Timer1Error\nraise Timer1Error('train.jsonl, line 3: no query')"
    project = make_project(tmp_path / "p", {"sft": bad, "curate": BODIES["curate"]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("timer1lib.runs.runner.execute", in_process)
        quiet_run(project, until="01")
    with pytest.raises(NotebookFailed) as caught:
        quiet_run(project)
    message = str(caught.value)
    assert message.startswith("02_sft, cell 3: train.jsonl, line 3: no query")
    assert "\n" not in message
    root = tmp_path / "p" / "outputs" / "tiny"
    assert not (root / "stages" / "02_sft.json").exists()
    assert not (root / "notebooks" / "02_sft.ipynb").exists()
    assert (root / "notebooks" / "02_sft.failed.ipynb").exists()
    write_notebook(project.notebooks / "02_sft.ipynb", "sft", BODIES["sft"])
    assert how(quiet_run(project, until="02")[0]) == ["unchanged", "ran"]
    assert not (root / "notebooks" / "02_sft.failed.ipynb").exists()


def test_a_display_hears_cells_and_what_they_write_and_a_dead_kernel_is_named(tmp_path: Path) -> None:
    body = "import sys\nprint('drawing 3/9, 0:01 elapsed, 0:02 left', file=sys.stderr, flush=True)"
    project = make_project(tmp_path / "p", {"curate": body, "sft": "import os\nos._exit(3)"})
    with pytest.raises(NotebookFailed, match=r"^02_sft, cell 3 of 3: the kernel died \(out of memory, or killed\)$"):
        quiet_run(project)
    stream = io.StringIO()
    run(Params(), project=project, report=False, until="01", fresh=True, display=Display(7, project.root / "beacon", stream))
    # Cells: the parameters, those that are given in their place, the body.
    assert "01_curate (1/7)  cell 3 of 3  drawing 3/9, 0:01 elapsed, 0:02 left\n" in stream.getvalue()
    assert not list((project.root / "outputs" / "tiny" / "notebooks").glob(".*"))


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from stub_project import Project
from timer1lib.params.sections import Params
from timer1lib.runs.runner import run
root = Path(sys.argv[1])
run(Params(), project=Project(root, root / "notebooks", root / "timer1lib"), report=False, until=sys.argv[3])
"""


def start_runner(root: Path, until: str, step_seconds: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", SCRIPT, str(root), str(Path(__file__).parent), until]
    return subprocess.Popen(command, env={**os.environ, "STUB_STEP_SECONDS": str(step_seconds)}, stderr=subprocess.DEVNULL)


def wait_for(condition: object, seconds: float = 150.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.02)
    raise AssertionError("it never happened")


def test_kill_minus_nine_in_04_and_running_again_ends_in_the_same_numbers(tmp_path: Path, finished: Project) -> None:
    root = tmp_path / "copy"
    shutil.copytree(finished.root, root)
    outputs = root / "outputs" / "tiny"
    for name in ("04_grpo", "05_evaluate", "06_inspect", "07_compare"):
        (outputs / "stages" / f"{name}.json").unlink()
    (outputs.parent / "pids.txt").unlink()
    shutil.rmtree(outputs / "notebooks")
    log, unfinished = outputs / "logs" / "grpo.jsonl", outputs / ".work" / "grpo" / "logs" / "grpo.jsonl"
    runner = start_runner(root, "05", 0.15)
    wait_for(lambda: unfinished.exists() and 3 <= len(unfinished.read_text().splitlines()) < 19)
    os.kill(runner.pid, signal.SIGKILL)
    runner.wait()
    kernel = int((outputs.parent / "pids.txt").read_text().split()[0])
    assert not (outputs / "stages" / "04_grpo.json").exists()
    assert not (outputs / "notebooks" / "04_grpo.ipynb").exists()
    again = start_runner(root, "05", 0.0)
    assert again.wait() == 0
    assert not Path(f"/proc/{kernel}").exists(), "the killed runner's kernel still lives"
    begun = [int(line.split()[-1]) for line in (outputs.parent / "pids.txt").read_text().splitlines()]
    assert begun[0] == 0
    assert begun[1] >= 3, "the second run began from nothing"
    undisturbed = finished.root / "outputs" / "tiny"
    assert log.read_bytes() == (undisturbed / "logs" / "grpo.jsonl").read_bytes()
    assert (outputs / "metrics.json").read_bytes() == (undisturbed / "metrics.json").read_bytes()


def test_a_stage_that_was_killed_twice_counts_all_the_time_it_was_at_work(tmp_path: Path) -> None:
    run, stage = RunFolder(tmp_path), find_stage("grpo")
    for k in (1, 2):  # the last file is written 100 s after the stage began, or went on
        resumed, before = stamps.begin(run, stage, "key")
        assert resumed == (k == 2)
        path = stamps.work_folder(run, stage) / f"step{k}.txt"
        path.write_text("done")
        os.utime(path, (time.time() + 100 * k, time.time() + 100 * k))
    stamps.begin(run, stage, "key")
    stamp = stamps.finish(run, stage, "key", {}, before, seconds=5.0)
    assert stamp.seconds == pytest.approx(100 + 200 + 5, abs=2)
    stamps.begin(run, stage, "another")
    assert stamps.finish(run, stage, "another", {}, {}, seconds=5.0).seconds == pytest.approx(5.0)


def test_what_a_killed_run_left_under_other_parameters_is_not_believed(
    tmp_path: Path, finished: Project, no_kernels: None
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(finished.root, root)
    project = Project(root, root / "notebooks", root / "timer1lib")
    outputs = root / "outputs" / "tiny"
    (outputs / "stages" / "04_grpo.json").unlink()
    (outputs / ".work" / "grpo.started.json").write_text(json.dumps({"key": "of other parameters", "before": {}}))
    (outputs / ".work" / "grpo" / "logs").mkdir(parents=True)
    for base in (outputs, outputs / ".work" / "grpo"):
        (base / "logs" / "grpo.jsonl").write_text("999\n999\n")
    quiet_run(project, until="05")
    assert (outputs / "logs" / "grpo.jsonl").read_text().splitlines()[:2] == ["0", "1"]


def tree(root: Path) -> dict[str, bytes]:
    """Every file of a run but those of whoever works in it."""
    hidden = (".work", ".previous", ".runner.lock", ".kernel.lock", "manifest.json", "params.yaml")
    names = {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
    return {name.as_posix(): (root / name).read_bytes() for name in names if name.parts[0] not in hidden}


def test_the_last_finished_result_stands_until_another_one_is(tmp_path: Path, finished: Project, no_kernels: None) -> None:
    root = tmp_path / "copy"
    shutil.copytree(finished.root, root)
    project = Project(root, root / "notebooks", root / "timer1lib")
    outputs = root / "outputs" / "tiny"
    before = tree(outputs)
    # A mistaken change of 04 fails half way, twice: nothing of what stood there has moved.
    broken = BODIES["grpo"].replace("range(done, 20)", "range(done, done + 2)") + "\nraise ValueError"
    write_notebook(project.notebooks / "04_grpo.ipynb", "grpo", broken)
    for lines in (2, 4):
        with pytest.raises(ValueError):
            quiet_run(project)
        assert tree(outputs) == before
        # the second try goes on from the first one's work
        assert len((outputs / ".work" / "grpo" / "logs" / "grpo.jsonl").read_text().splitlines()) == lines
    write_notebook(project.notebooks / "04_grpo.ipynb", "grpo", BODIES["grpo"])
    assert how(quiet_run(project)[0]) == ["unchanged"] * 7
    # A change that works replaces it; as 05 fails after it, what it replaced is kept, and found again by its key.
    write_notebook(project.notebooks / "04_grpo.ipynb", "grpo", BODIES["grpo"].replace("step * step", "step"))
    write_notebook(project.notebooks / "05_evaluate.ipynb", "evaluate", "raise ValueError")
    with pytest.raises(ValueError):
        quiet_run(project)
    assert (outputs / "logs" / "grpo.jsonl").read_text().splitlines()[3] == "3"
    assert (outputs / "metrics.json").read_bytes() == before["metrics.json"]
    write_notebook(project.notebooks / "04_grpo.ipynb", "grpo", BODIES["grpo"])
    write_notebook(project.notebooks / "05_evaluate.ipynb", "evaluate", BODIES["evaluate"])
    result, log = quiet_run(project, until="06")
    assert how(result) == ["unchanged"] * 3 + ["brought back"] + ["unchanged"] * 2
    assert "04_grpo: the result from before is the one" in log
    assert tree(outputs) == before
    # What was replaced goes when the whole run has finished.
    assert list((outputs / ".previous").glob("04_grpo-*"))
    quiet_run(project)
    assert not (outputs / ".previous").exists()


def test_a_kill_at_any_moment_leaves_the_old_result_or_the_new_one(tmp_path: Path, finished: Project) -> None:
    """The kernel's training and the publishing are cut at random moments under a changed parameter."""
    old = finished.root / "outputs" / "tiny"
    root = tmp_path / "copy"
    shutil.copytree(finished.root, root)
    outputs = root / "outputs" / "tiny"
    before = tree(outputs)
    write_notebook(root / "notebooks" / "04_grpo.ipynb", "grpo", BODIES["grpo"] + "\nmore = 1")
    random = Random(0)
    unfinished = outputs / ".work" / "grpo" / "logs" / "grpo.jsonl"
    for _ in range(3):
        runner = start_runner(root, "04", 0.15)
        seen = len(unfinished.read_text().splitlines()) if unfinished.exists() else 0
        wait_for(lambda seen=seen: unfinished.exists() and len(unfinished.read_text().splitlines()) > seen)
        time.sleep(random.uniform(0, 0.3))
        runner.kill()
        runner.wait()
        assert tree(outputs) == before
    project = Project(root, root / "notebooks", root / "timer1lib")
    write_notebook(project.notebooks / "04_grpo.ipynb", "grpo", BODIES["grpo"])
    assert how(quiet_run(project)[0]) == ["unchanged"] * 7
    write_notebook(project.notebooks / "04_grpo.ipynb", "grpo", BODIES["grpo"] + "\nmore = 1")
    assert start_runner(root, "04", 0.0).wait() == 0
    assert (outputs / "logs" / "grpo.jsonl").read_bytes() == (old / "logs" / "grpo.jsonl").read_bytes()
    begun = [int(line.split()[-1]) for line in (outputs.parent / "pids.txt").read_text().splitlines()][1:]
    assert begun == sorted(begun), "a resumed stage began from nothing"
    assert begun[-1] > 0


def killing(journal: Path, cut: int) -> Callable[[Path, Path], None]:
    """`os.replace` whose process is killed (-9) at its `cut`-th call while a journal is there."""
    real, calls = os.replace, []

    def replace(source: Path, target: Path) -> None:
        if journal.exists():
            calls.append(source)
            if len(calls) == cut:
                os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)

    return replace


def in_a_process(work: Callable[[], object]) -> int:
    """The exit status of a process forked for this work, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_publishing_that_was_killed_is_done_by_whoever_opens_the_run_next(
    tmp_path: Path, finished: Project, no_kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner is killed at each rename of its publishing in turn."""
    changed = BODIES["sft"].replace("sft of ", "another of ")
    real = os.replace
    for cut in range(1, 20):
        root = tmp_path / str(cut)
        shutil.copytree(finished.root, root)
        project = Project(root, root / "notebooks", root / "timer1lib")
        write_notebook(project.notebooks / "02_sft.ipynb", "sft", changed)
        monkeypatch.setattr(os, "replace", killing(root / "outputs" / "tiny" / ".work" / "sft.journal.json", cut))
        status = in_a_process(lambda project=project: quiet_run(project, until="02"))
        monkeypatch.setattr(os, "replace", real)
        if status == 0:
            assert cut > 3, "publishing was never cut"
            break
        assert status == -signal.SIGKILL, "publishing has more renames than were tried"
        assert how(quiet_run(project, until="02")[0]) == ["unchanged"] * 2
        folder = root / "outputs" / "tiny"
        assert (folder / "checkpoints" / "sft" / "model.bin").read_text() == "another of seed 0\n"
        kept = next((folder / ".previous").glob("02_sft-*"))
        assert (kept / "checkpoints" / "sft" / "model.bin").read_text() == "sft of seed 0\n"
        # both stamps are good: the change taken back brings the old one back
        write_notebook(project.notebooks / "02_sft.ipynb", "sft", BODIES["sft"])
        assert how(quiet_run(project, until="02")[0]) == ["unchanged", "brought back"]
        assert not any((folder / ".work").iterdir())


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, finished: Project, no_kernels: None) -> None:
    root = tmp_path / "mine"
    for name in ("data/videos.txt", "checkpoints/sft/model.bin", "params.yaml", "manifest.json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text('{"name": "mine"}')
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    with pytest.raises(Timer1Error, match="mine: holds 'checkpoints' and no run of timer1's"):
        quiet_run(finished, out=root)
    shutil.copytree(root, finished.root / "outputs" / "named")
    with pytest.raises(Timer1Error, match="no run of timer1's"):
        quiet_run(finished, Params(name="named"))
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    # a first run that was killed before its first stage is ours
    manifest = json.loads((finished.root / "outputs" / "tiny" / "manifest.json").read_text())
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "manifest.json").write_text(json.dumps(manifest))
    (begun / "params.yaml").write_text("")
    (begun / ".manifest.json.ab12cd34").write_text("{")
    assert how(quiet_run(finished, out=begun, until="01")[0]) == ["ran"]
    assert not (begun / ".manifest.json.ab12cd34").exists()


class Person(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_person_is_asked_before_a_long_training_is_replaced(
    tmp_path: Path, finished: Project, no_kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(finished.root, root)
    project = Project(root, root / "notebooks", root / "timer1lib")
    outputs = root / "outputs" / "tiny"
    path = outputs / "stages" / "02_sft.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": 4000.0}))
    write_notebook(project.notebooks / "02_sft.ipynb", "sft", BODIES["sft"] + "\nmore = 1")
    before, shown = tree(outputs), Person()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setattr("sys.stdin", Person("n\n"))
    with pytest.raises(Timer1Error, match="nothing was run"):
        quiet_run(project)
    assert tree(outputs) == before
    assert "02_sft, notebook; it took 1:06:40" in shown.getvalue()
    monkeypatch.setattr("sys.stdin", Person("y\n"))
    result, log = quiet_run(project, until="02")
    assert how(result) == ["unchanged", "ran"]
    assert "to run again: 02_sft, notebook; it took 1:06:40" in log
    path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": 4000.0}))
    monkeypatch.setattr("sys.stdin", Person("n\n"))
    assert how(quiet_run(project, until="02", fresh=True, yes=True)[0]) == ["ran", "ran"]


def test_a_run_folder_that_was_removed_meanwhile_is_named(tmp_path: Path, finished: Project, no_kernels: None) -> None:
    root = tmp_path / "copy"
    shutil.copytree(finished.root, root)
    project = Project(root, root / "notebooks", root / "timer1lib")
    body = f"import shutil\nshutil.rmtree({str(root / 'outputs' / 'tiny')!r})\n"
    write_notebook(project.notebooks / "02_sft.ipynb", "sft", body + BODIES["sft"])
    with pytest.raises(Timer1Error, match=r"outputs/tiny: this run's folder was removed or replaced while it ran"):
        quiet_run(project)
    assert not (root / "outputs" / "tiny" / "manifest.json").exists()


def test_two_runners_do_not_share_a_folder(tmp_path: Path, finished: Project) -> None:
    from timer1lib.runs.kernel import exclusive

    code = "import sys; from pathlib import Path; from timer1lib.runs.kernel import exclusive\n"
    code += "with exclusive(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(Timer1Error, match=f"process {holder.pid}"), exclusive(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with exclusive(tmp_path):
        pass


def test_params_file_of_a_run_reads_back(tmp_path: Path) -> None:
    from timer1lib.runs.runner import params_text

    params = Params.model_validate({"shared": {"seed": 7, "fps": 1.0e-6}})
    path = tmp_path / "params.yaml"
    path.write_text(params_text(params))
    assert load_params(path) == params
    assert isinstance(yaml.safe_load(path.read_text())["shared"]["fps"], float)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_one_line_no_wider_than_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    stream, beacon = Terminal(), tmp_path / "beacon"
    display = Display(7, beacon, stream)
    assert display.environment() == {BEACON_VARIABLE: str(beacon)}
    display.start("04_grpo", 4, resumed=False)
    display.cell(5, 11)
    beacon.write_text("GRPO: 30/60  0:40 elapsed, 0:41 left  reward 0.713")
    display.note("a line that stays and is far longer than the sixty columns that this terminal has")
    deadline = time.monotonic() + 10
    while "GRPO: 30" not in stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.1)
    display.finish(61.0)
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+", stream.getvalue())]
    # Stage 4 of 7 is three stages and 5 of its 12 steps in: 16 * (3 + 5 / 12) / 7 = 7.8 of the bar's 16 marks.
    live = [line for line in lines if "GRPO: 30" in line]
    assert live
    assert all(line.startswith("[#######.........] 04_grpo (4/7)  cell 5 of 11  GRPO: 30") and len(line) <= 60 for line in live)
    assert "a line that stays and is far longer than the sixty columns that this terminal has" in lines
    assert "04_grpo (4/7): done in 1:01" in lines
    assert not beacon.exists()


def test_from_a_later_stage_of_no_run_leaves_nothing(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    with pytest.raises(Timer1Error, match=r"01_curate has not finished .*: no such run"):
        run(Params(), project=project, from_="04", out=tmp_path / "new", report=False)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("model", ["nope", "no/such/folder", "./nope"])
def test_a_model_that_is_not_there_is_named_before_anything_starts(tmp_path: Path, model: str) -> None:
    params = Params.model_validate({"shared": {"model": model}})
    with pytest.raises(Timer1Error, match=r"shared\.model"):
        run(params, project=make_project(tmp_path), out=tmp_path / "new", report=False)
    assert not (tmp_path / "new").exists()
