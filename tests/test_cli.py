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
from timer1lib.cli import Outcome, main

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ["run", "ground", "score", "audit", "clock", "synth", "sweep", "compare", "inspect", "estimate", "pretrain"]


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
        assert f"\n    {command} " in done.stdout
    assert seconds < 2.0


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from timer1lib.cli import build_parser; build_parser(); print(' '.join(sys.modules))"
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
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"usage: timer1 {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "required"),
        (["frobnicate"], "invalid choice"),
        (["synth", "x", "--videos", "0"], "less than 1"),
        (["synth", "x", "--videos", "many"], "not a whole number"),
        (["sweep", "x", "--jobs", "-1"], "less than 1"),
        (["score", "a"], "ANNOTATIONS"),
    ],
)
def test_wrong_usage_is_one_line_and_two(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    captured = capsys.readouterr()
    assert caught.value.code == 2
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert word in captured.err


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
        (["score", "a", "b", "--form", "mine"], "form 'mine': neither a file nor one of brief, timer1"),
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
    code = "import argparse, sys, timer1lib.cli as c\n"
    code += "options = argparse.Namespace(verbose=False, json=False, command=lambda o: c.Outcome(sys.stdin.read() + 'words'))\n"
    code += "c.build_parser = lambda: type('P', (), {'parse_args': lambda s, a: options})()\nsys.exit(c.main([]))"
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
    monkeypatch.setattr(cli, "_ground", lambda options: Outcome("words"))
    main(["ground", "v", "q"])
    assert capsys.readouterr().out == "words\n"
