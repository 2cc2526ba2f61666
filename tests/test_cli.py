"""The command line as a person meets it: quick, one line a mistake, JSON alone on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from timer1lib import cli
from timer1lib.cli import main

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = [
    "run",
    "ground",
    "score",
    "audit",
    "clock",
    "synth",
    "sweep",
    "compare",
    "inspect",
    "estimate",
    "rehearse",
    "pretrain",
    "init",
    "upgrade",
]


def timer1(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "timer1lib.cli", *arguments], capture_output=True, text=True, cwd=ROOT, **options
    )  # type: ignore[call-overload,no-any-return]


def test_help_is_quick_and_names_every_command() -> None:
    started = time.perf_counter()
    done = timer1("--help")
    seconds = time.perf_counter() - started
    assert done.returncode == 0
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout
    assert seconds < 2.0, "0.3 s on a machine that has nothing else to do"


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; import timer1lib.cli as c; c.main(['--help']); print('modules', ' '.join(sys.modules))"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert "timer1lib.cli" in loaded
    heavy = {
        "torch",
        "transformers",
        "trl",
        "peft",
        "datasets",
        "plotly",
        "papermill",
        "decord",
        "av",
        "pandas",
        "numpy",
        "pydantic",
    }
    assert not loaded & heavy


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Usage: timer1 {command}" in shown
    assert "\x1b" not in shown, "no colours where nobody sees them"


def test_help_has_colours_in_a_terminal() -> None:
    read, write = os.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")} | {"TERM": "xterm-256color"}
    done = subprocess.run(
        [sys.executable, "-m", "timer1lib.cli", "run", "-h"], stdout=write, cwd=ROOT, env=environment, check=True
    )
    os.close(write)
    shown = os.read(read, 100_000).decode()
    os.close(read)
    assert done.returncode == 0
    assert "\x1b[" in shown
    assert "Override a parameter" in shown


def test_a_shell_can_complete_commands_options_and_runs(tmp_path: Path) -> None:
    (tmp_path / "outputs" / "mine").mkdir(parents=True)
    (tmp_path / "outputs" / "mine" / "params.yaml").write_text("")

    def complete(words: str) -> list[str]:
        given = {"_TIMER1_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        environment = {**os.environ, **given, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "timer1lib.cli"]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path).stdout.split()

    assert complete("timer1 s") == ["score", "synth", "sweep"]
    assert complete("timer1 clock v.mp4 --r") == ["--rule"]
    assert complete("timer1 compare m") == ["mine"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "timer1: Missing command"),
        (["frobnicate"], "timer1: No such command 'frobnicate'"),
        (["synth", "x", "--videos", "0"], "'--videos': Input should be greater than or equal to 1"),
        (["synth", "x", "--videos", "many"], "'--videos': Input should be a valid integer"),
        (["synth", "x"], "Missing option '--videos'"),
        (["sweep", "x", "--jobs", "-1"], "'--jobs': Input should be greater than or equal to 1"),
        (["sweep", "x", "--seeds", "0,one"], "--seeds: 'one' is not a whole number"),
        (["sweep", "x", "--seeds", "9" * 5000], "is not a whole number from 0 to 4294967295"),
        (["synth", "x", "--videos", "9" * 5000], "'--videos'"),
        (["synth", "x", "--videos", "1", "--seed", "4294967296"], "'--seed': Input should be less than or equal to 4294967295"),
        (["pretrain", "x", "--seed", "4294967296"], "'--seed': Input should be less than or equal to 4294967295"),
        (["pretrain", "x", "--learning-rate", "nan"], "'--learning-rate'"),
        (["pretrain", "x", "--hardest", "nan"], "'--hardest'"),
        (["score", "a"], "timer1 score: Missing argument 'ANNOTATIONS'"),
        (["score", "a", "b", "--repair", "mine"], "'mine' is not one of"),
        (["run", "params/tiny.yaml", "--untl", "05"], "No such option"),
    ],
)
def test_wrong_usage_is_one_line_and_two(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert word in captured.err
    assert captured.err.endswith(" --help)\n")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["run", "nowhere.yaml"], "nowhere.yaml: no such params file"),
        (["run", "params/tiny.yaml", "-p", "shared.sed=1"], "did you mean 'shared.seed'"),
        (["run", "params/tiny.yaml", "--from", "08"], "no stage '08'"),
        (["run", "params/tiny.yaml", "--from", "05", "--until", "04"], "comes after"),
        (["run", "params"], "params"),
        (["sweep", "nowhere.yaml"], "nowhere.yaml: no such sweep file"),
        (["estimate", "nowhere.yaml"], "nowhere.yaml"),
        (["score", "nowhere.jsonl", "nowhere.json", "--json"], "nowhere"),
        (["audit", "nowhere.json", "--json"], "nowhere"),
        (["ground", "nowhere.mp4", "a", "--json"], "nowhere.mp4"),
        (["clock", "nowhere.mp4", "--json"], "nowhere.mp4"),
        (["compare", "nowhere-run", "--json"], "nowhere-run"),
        (["inspect", "nowhere-run"], "nowhere-run"),
    ],
)
def test_bad_input_is_one_line_and_two(
    arguments: list[str], word: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    status = main(arguments)
    captured = capfd.readouterr()
    assert (status, captured.out) == (2, "")
    assert word in captured.err
    assert captured.err.splitlines()[-1].startswith("timer1: ")
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["ground", "v.mp4", "a cat", "--model", ""],
        ["ground", "v.mp4", " "],
        ["clock", "v.mp4", "--model="],
        ["run", "params/tiny.yaml", "--out", ""],
        ["sweep", "params/sweeps/clock.yaml", "--out", " "],
        ["run", "params/tiny.yaml", "--until", ""],
        ["compare", ""],
        [""],
    ],
)
def test_an_empty_argument_is_one_line_and_starts_nothing(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert captured.err.rstrip().endswith("is empty")


@pytest.mark.parametrize(
    "override",
    ["", "=", "x", ".=1", "shared=3", "shared..seed=1", "shared.seed=-1", "shared.fps=.nan", "shared.seed=4294967296",
     "grpo.rewards=speed", "grpo.bogus=1", "shared.cache_dir=", "name=", "shared.seed={", "shared.seed=" + "9" * 5000,
     "shared.seed=" + "[" * 5000, "shared.model=assets/gone"],
)  # fmt: skip
def test_garbage_after_p_is_one_line_and_starts_nothing(
    override: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["run", str(ROOT / "params" / "tiny.yaml"), "--out", str(tmp_path / "out"), "-p", override]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert len(captured.err) < 500
    assert not (tmp_path / "out").exists()


def fake(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: object) -> None:
    module = ModuleType(name)
    for key, value in attributes.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)


def test_json_stands_alone_whatever_a_library_prints(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def noisy(*_: object, **__: object) -> dict[str, object]:
        sys.stdout.write("from python\n")
        os.write(1, b"from C\n")
        return {"start": None, "completion": "é"}

    fake(monkeypatch, "timer1lib.inference.ground", ground=noisy)
    assert main(["ground", "v.mp4", "q", "--json"]) == 0
    captured = capfd.readouterr()
    assert json.loads(captured.out) == {"start": None, "completion": "é"}
    assert captured.out.count("\n") == 1
    assert "from C" in captured.err
    assert "from python" in captured.err


def test_a_fault_of_our_own_is_one_line_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("two\nlines")

    fake(monkeypatch, "timer1lib.inference.ground", ground=broken)
    assert main(["ground", "v.mp4", "q"]) == 1
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    assert "KeyError" in captured.err
    assert "TIMER1_DEBUG" in captured.err


def test_an_interrupt_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    fake(monkeypatch, "timer1lib.inference.ground", ground=stopped)
    assert main(["ground", "v.mp4", "q"]) == 130
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_reader_that_goes_away_leaves_no_traceback() -> None:
    # The command answers only when its stdin closes, and by then nobody reads its stdout.
    code = "import sys, types, timer1lib.cli as c\n"
    code += "module = sys.modules['timer1lib.inference.ground'] = types.ModuleType('ground')\n"
    code += "module.ground = lambda *a: {'start': None, 'completion': sys.stdin.read() + 'words'}\n"
    code += "sys.exit(c.main(['ground', 'v.mp4', 'q']))"
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1


def test_text_ends_with_one_line_feed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, "timer1lib.inference.ground", ground=lambda *_: {"start": 1.0, "end": 2.0, "duration": 3.0})
    assert main(["ground", "v", "q"]) == 0
    assert capsys.readouterr().out == "1.00 to 2.00 s of 3.00 s\n"


def test_options_stand_anywhere_and_repeat(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    monkeypatch.setattr("timer1lib.params.load.load_params", lambda path, overrides: given.append((path.name, overrides)))
    fake(monkeypatch, "timer1lib.training.estimate", estimate=lambda *_: {"n": 1}, format_estimate=str)
    assert main(["-v", "estimate", "-p", "a.b=1", "p.yaml", "-p", "c.d=-x=2", "--json"]) == 0
    assert given == [("p.yaml", ["a.b=1", "c.d=-x=2"])]
    assert capsys.readouterr().out == '{"n": 1}\n'


def test_pretrain_passes_its_options_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    fake(monkeypatch, "timer1lib.world.base.lessons", Mix=lambda **m: ("mix", m))
    fake(
        monkeypatch,
        "timer1lib.world.base.pretrain",
        Recipe=lambda **r: ("recipe", r),
        pretrain=lambda *a: given.append(a) or a[0],
    )
    assert main(["pretrain", "m", "--steps", "7", "--family", "qwen2_5_vl", "--positions", "--hidden", "64"]) == 0
    recipe = ("recipe", {"steps": 7, "batch": 16, "learning_rate": 2e-3, "seed": 0})
    assert given == [(Path("m"), recipe, ("mix", {"hardest": 0.45}), "qwen2_5_vl", 64, 3, False)]
    assert capsys.readouterr().out.startswith("m: ")


def test_what_the_command_line_takes_for_granted_is_what_the_library_does() -> None:
    import inspect

    from timer1lib.world.base.lessons import Mix
    from timer1lib.world.base.pretrain import Recipe, pretrain

    options = inspect.signature(cli.pretrain).parameters
    assert {name: options[name].default for name in ("steps", "batch", "learning_rate", "seed")} == {
        name: getattr(Recipe(), name) for name in ("steps", "batch", "learning_rate", "seed")
    }
    assert options["hardest"].default == Mix().hardest
    inner = inspect.signature(pretrain).parameters
    assert [options[n].default for n in ("family", "hidden", "layers")] == [
        inner[n].default for n in ("family", "hidden", "layers")
    ]
