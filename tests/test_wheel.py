"""What a person gets who installs the wheel: no checkout in reach, a workbook made and run, and no torch where none is needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="hatchling builds the wheel (requirements.lock has it)")
pytest.importorskip("pip", reason="pip installs the wheel into a venv")

ROOT = Path(__file__).resolve().parent.parent
Timer1 = Callable[..., "subprocess.CompletedProcess[str]"]

TORCH = ("torch", "torchvision", "transformers", "trl", "peft", "accelerate", "datasets", "decord")
LAB = ("jupyterlab", "papermill", "ipykernel", "jupyter_client", "IPython", "ipywidgets", "anywidget", "traitlets", "pandas")
ONE_SYSTEM = ("resource", "termios", "msvcrt", "winreg")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin/` of a venv that holds the wheel, and sees the packages of the running one, but not its checkout.

    A line of a .pth file adds a folder without reading the .pth files in it, of which one leads to the checkout.
    """
    home = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    packages = next((home / "lib").glob("python3*")) / "site-packages"
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", str(wheel)], check=True)
    return home / "bin"


@pytest.fixture(scope="module")
def timer1(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Timer1:
    """Run the installed command; `without` names modules that are not there."""
    hidden = tmp_path_factory.mktemp("hidden")

    def run(*arguments: str, cwd: Path, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        if without:
            (hidden / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({without!r}))\n")
            environment["PYTHONPATH"] = str(hidden)
        command = [str(installed / "timer1"), *arguments]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)

    return run


def one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


@pytest.fixture(scope="module")
def book(timer1: Timer1, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workbook whose first two stages were run, small."""
    home = tmp_path_factory.mktemp("home")
    made = timer1("init", "book", cwd=home)
    assert made.returncode == 0, made.stderr
    small = ["shared.frames=4", "shared.workers=0", "curate.train_videos=4", "curate.test_videos=1", "curate.ood_videos=0"]
    small += ["curate.questions=0", "curate.check_clock=false", "sft.samples=2", "sft.steps=1", "sft.batch_size=2"]
    overrides = [word for value in small for word in ("-p", value)]
    done = timer1("run", "params/tiny.yaml", "--until", "02", *overrides, cwd=home / "book")
    assert done.returncode == 0, done.stderr
    return home / "book"


def test_the_wheel_holds_what_a_workbook_is_made_of_and_no_more_than_the_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    folders = ("notebooks/", "params/", "ideas/", "assets/")
    tracked = {f"timer1lib/shipped/{name}" for name in listed if name.startswith(folders)}
    tracked |= {name for name in listed if name.startswith("timer1lib/")}
    assert tracked - set(names) == {name for name in tracked if not (ROOT / name.replace("timer1lib/shipped/", "")).exists()}
    assert "timer1lib/py.typed" in names
    assert {name.split("/")[0] for name in names} - {"timer1lib"} == {
        name.split("/")[0] for name in names if ".dist-info/" in name
    }
    metadata = next(name for name in names if name.endswith("/METADATA"))
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    for line in ("Requires-Python: >=3.11", "Classifier: Typing :: Typed", "Provides-Extra: train", "Two commands"):
        assert line in text


def test_a_workbook_is_made_and_run_far_from_the_checkout(book: Path, timer1: Timer1, installed: Path) -> None:
    where = "import timer1lib, sys; print(timer1lib.__file__)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    found = subprocess.run([installed / "python", "-c", where], cwd=book, env=environment, capture_output=True, text=True)
    assert Path(found.stdout.strip()).is_relative_to(installed.parent), found.stdout
    assert (book / "outputs" / "tiny" / "checkpoints" / "sft" / "model.safetensors").is_file()
    stamp = json.loads((book / "outputs" / "tiny" / "stages" / "02_sft.json").read_text())
    assert str(ROOT) not in json.dumps(stamp)
    inner = book / "params" / "sweeps"
    plan = timer1("run", "../../params/tiny.yaml", "--dry-run", "--json", cwd=inner)
    assert [stage["notebook"] for stage in json.loads(plan.stdout)][:2] == ["01_curate", "02_sft"]
    compared = timer1("compare", "tiny", "none", cwd=inner)
    one_line(compared, "none", "outputs/, which holds tiny")


def test_the_core_needs_neither_torch_nor_jupyter(book: Path, timer1: Timer1) -> None:
    from view_run import make_run

    light = TORCH + LAB + ONE_SYSTEM
    (book / "outputs" / "seen").mkdir()
    run = make_run(book / "outputs" / "seen")
    annotations = book / "outputs" / "a.jsonl"
    annotations.write_text('{"video": "a.mp4", "query": "x", "start": 1, "end": 3, "duration": 9}\n')
    predictions = book / "outputs" / "p.jsonl"
    predictions.write_text('{"video": "a.mp4", "query": "x", "start": 1, "end": 2}\n')
    scored = timer1("score", str(predictions), str(annotations), "--json", cwd=book, without=light)
    assert json.loads(scored.stdout)["mIoU"] == 50.0, scored.stderr
    audited = timer1("audit", str(annotations), cwd=book, without=light)
    assert (audited.returncode, audited.stderr) == (0, "")
    shutil.copytree(run.root, book / "outputs" / "again")
    compared = timer1("compare", "seen", "again", cwd=book, without=light)
    assert compared.returncode == 0, compared.stderr
    tried = timer1("preview", "seen", "tiou:1.0", "--json", cwd=book, without=light)
    assert tried.returncode == 0, tried.stderr
    looked = timer1("inspect", "seen", cwd=book, without=light)
    assert looked.returncode == 0, looked.stderr
    assert "timer1lib[lab]" in looked.stdout
    assert "<svg" in (run.root / "inspect.html").read_text()


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        ("run params/tiny.yaml", "train"),
        ("ground v.mp4 query", "train"),
        ("sweep params/sweeps/five_seeds.yaml", "train"),
        ("rehearse params/tiny.yaml", "train"),
        ("estimate params/time_r1_7b.yaml", "train"),
        ("clock v.mp4", "train"),
        ("lab", "lab"),
    ],
)
def test_a_command_without_its_extra_says_what_to_install(book: Path, timer1: Timer1, words: str, extra: str) -> None:
    one_line(timer1(*words.split(), cwd=book, without=TORCH + LAB), f"pip install 'timer1lib[{extra}]'")


def test_outside_a_workbook_one_line_says_how_to_make_one(timer1: Timer1, tmp_path: Path) -> None:
    one_line(timer1("run", "params/tiny.yaml", cwd=tmp_path), "timer1 init DIR")
    one_line(timer1("run", "mine.yaml", cwd=tmp_path), "mine.yaml")


def test_another_python_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text(
        f"import sys\nsys.version_info = (3, 10, 1)\nsys.path.insert(0, {str(ROOT)!r})\nimport timer1lib\n"
    )
    done = subprocess.run([sys.executable, tmp_path / "old.py"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "timer1 needs Python 3.11 or later, and this is 3.10\n")
