"""Ideas of one's own: named in a params file or written in a cell, tried before anything starts, known by what they mean."""

from __future__ import annotations

import json
import linecache
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import typer
from stub_project import make_project

from timer1lib import forms, ideas
from timer1lib.cli import EXAMPLES, app
from timer1lib.data.schedules import filter_epoch
from timer1lib.data.selection import select
from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_jsonl
from timer1lib.params import listing
from timer1lib.params.load import load_params
from timer1lib.params.sections import Params
from timer1lib.rewards import RewardInput, parse_rewards
from timer1lib.rules import Judged, own_keep, own_weight
from timer1lib.runfolder import RunFolder
from timer1lib.runs.keys import input_files
from timer1lib.runs.preview import preview, tau_b
from timer1lib.schema import Sample

ROOT = Path(__file__).resolve().parent.parent
FILE = '''"""About."""
import math
from timer1lib.rewards import RewardInput
HALF = 0.5
OTHER = 3
def helper(a):
    return a * HALF
def mine(x: RewardInput) -> float:
    """Half of one."""
    return math.sqrt(1.0) * helper(1.0)
def unused(x):
    return OTHER
'''


def file(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


# -------------------------------------------------------------------------------------------------------------- from a file


def test_a_reward_of_ones_own_has_its_functions_name_and_value(tmp_path: Path) -> None:
    rewards = parse_rewards(f"{file(tmp_path, FILE)}:mine:0.25, format")
    assert {name: weight for name, (_, weight) in rewards.items()} == {"mine": 0.25, "format": 1.0}
    assert rewards["mine"][0](RewardInput("", (), 1.0)) == 0.5
    assert parse_rewards(f"{tmp_path}/mine.py:mine")["mine"][1] == 1.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(a, b): return 1.0", ["mine.py:f", "takes one argument"]),
        ("f = 3", ["mine.py:f", "takes one argument"]),
        ("def f(x): return 'a'", ["mine.py:f", "'a'", "no number"]),
        ("def f(x): return None", ["mine.py:f", "None", "no number"]),
        ("def f(x): return float('nan')", ["mine.py:f", "nan, no number"]),
        ("\ndef f(x): return x.span[0]", ["mine.py:f, line 2", "TypeError", "on ''"]),
        ("def g(x): return 1.0", ["no 'f'"]),
        ("import nothere", ["mine.py, line 1", "nothere"]),
        ("x = 1\ndef f(:", ["mine.py, line 2", "SyntaxError"]),
    ],
)
def test_a_wrong_file_is_one_line_when_parameters_are_loaded(tmp_path: Path, text: str, words: list[str]) -> None:
    params = file(tmp_path, "name: x", "p.yaml")
    with pytest.raises(Timer1Error) as caught:
        load_params(params, [f"grpo.rewards={file(tmp_path, text)}:f:1.0"])
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_missing_file_is_named_within_a_second_and_nothing_is_started(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "timer1lib.cli", "run", "params/tiny.yaml", "-p", "grpo.rewards=ideas/no.py:f", "--out", str(tmp_path / "r")],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "'ideas/no.py': no such file" in done.stderr
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("section", "text", "words"),
    [
        ("difficulty.rule", "def f(s): return -1.0", ["gives -1, below 0", "'a'"]),
        ("difficulty.rule", "def f(s): return s.iuo", ["line 1", "AttributeError"]),
        ("grpo.keep", "def f(s): return 0.5", ["0.5, not True or False"]),
    ],
)
def test_wrong_rules_are_one_line_too(tmp_path: Path, section: str, text: str, words: list[str]) -> None:
    with pytest.raises(Timer1Error) as caught:
        load_params(file(tmp_path, "name: x", "p.yaml"), [f"{section}={file(tmp_path, text)}:f"])
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_only_what_a_function_uses_counts(tmp_path: Path) -> None:
    path = file(tmp_path, FILE)

    def mark() -> Any:
        return input_files({"rewards": f"{path}:mine:1.0, format:1.0"})

    before = mark()
    assert before["rewards"][1] == "format:1.0"
    for same in (FILE.replace("OTHER = 3", "OTHER = 4"), FILE.replace('"""Half of one."""', '"""Text."""'), "# remark\n" + FILE):
        path.write_text(same)
        assert mark() == before
    for other in (FILE.replace("HALF = 0.5", "HALF = 0.25"), FILE.replace("a * HALF", "a + HALF"), FILE.replace("sqrt", "exp")):
        path.write_text(other)
        assert mark() != before
    assert input_files({"rewards": f"{path}:mine:2.0, format:1.0"}) != before
    moved = file(tmp_path, FILE, "other.py")
    path.write_text(FILE)
    assert input_files({"rewards": f"{moved}:mine:1.0, format:1.0"}) == before, "where a file lies does not count"


def test_shipped_ideas_are_what_they_say() -> None:
    rewards = parse_rewards("ideas/edges.py:edge_iou:1.0, format:1.0")
    edge = rewards["edge_iou"][0]

    def at(start: float, end: float) -> float:
        return edge(RewardInput(f"<think>a</think><answer>{start} to {end}</answer>", ((10.0, 20.0),), 60.0))

    assert at(10, 20) == 1.0
    # IoU 0.9; the start is off by a tenth of the length, at which its factor is one half: 0.9 * (0.5 + 1) / 2
    assert at(11, 20) == pytest.approx(0.675)
    assert edge(RewardInput("nothing", ((10.0, 20.0),), 60.0)) == 0.0
    weight, keep = own_weight("ideas/pick.py:short_and_hard"), own_keep("ideas/pick.py:still_learning")
    one = Judged("a", "q", ((0.0, 5.0),), 10.0, "", 0.25)
    assert weight(one) == pytest.approx(0.8 / 1.5)
    assert [keep(Judged("a", "q", (), 10.0, "", iou, epoch=e)) for iou, e in ((0.0, 1), (0.75, 1), (0.75, 2))] == [
        False,
        True,
        False,
    ]


def test_a_weight_of_ones_own_draws_by_it() -> None:
    rows = [{"id": f"s{i}", "iou": i / 10} for i in range(10)] + [{"id": "silent", "iou": None}]
    given = [0.0, 0.0, 5.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0]
    chosen = select(rows, "mine", 5, 0, given=given)
    assert chosen.chosen == ["s2", "s4"]
    fates = {row["id"]: row["fate"] for row in chosen.table}
    assert (fates["s0"], fates["silent"], fates["s2"]) == ("weight 0 by mine", "not answered", "chosen")
    # of two rows with weights 5 and 1 the first is drawn alone five times in six
    firsts = sum(select(rows, "mine", 1, seed, given=given).chosen == ["s2"] for seed in range(600))
    assert 460 < firsts < 540


def test_a_keep_rule_of_ones_own_stands_in_the_bounds_place() -> None:
    ious = {"a": 0.0, "b": 0.9, "c": None}
    kept = filter_epoch(list(ious), ious, keep=lambda name, iou: name == "b" and iou == 0.9)
    assert [(row["id"], row["kept"], row["reason"]) for row in kept] == [
        ("a", False, "by your rule"), ("b", True, "kept"), ("c", False, "no answer"),
    ]  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- from a cell

CELL = '''
import math as m
from timer1lib.spans import iou
from timer1lib.rewards import RewardInput
K = 0.7
NAMES = ["a", {"b": (1, 2.5)}]
span = object()  # of the notebook, and no idea's
def helper(a): return a * K
def edge(x: RewardInput) -> float:
    """How near."""
    return m.floor(helper(10)) + iou(x.span, x.window) + len(NAMES)
made = dict(keep=lambda s: 0 < s.iou <= K, other=lambda s: s.iou > 1)
table = object()
def uses_a_table(x): return table
def outer():
    inside = 3
    return lambda x: inside
closed = outer()
'''


@pytest.fixture
def cell() -> Iterator[Callable[[str], dict[str, Any]]]:
    """Runs text as a notebook's cell, whose source is known by a made-up file's name."""
    numbers, names = count(), []

    def run(text: str) -> dict[str, Any]:
        name = f"<cell {next(numbers)}>"
        names.append(name)
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        given: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(text, name, "exec"), given)
        return given

    yield run
    for name in names:
        del linecache.cache[name]


def test_a_cells_function_is_written_down_with_all_that_it_uses(cell: Any, tmp_path: Path) -> None:
    names = cell(CELL)
    path = file(tmp_path, ideas.written_out(names["edge"], "mine", "reward"))
    reward = parse_rewards(f"{path}:mine")["mine"][0]
    x = RewardInput("<think>a</think><answer>2.0 to 4.0</answer>", ((2.0, 4.0),), 10.0)
    assert reward(x) == names["edge"](x) == 7 + 1 + 2
    assert "table" not in path.read_text()
    keep = own_keep(f"{file(tmp_path, ideas.written_out(names['made']['keep'], 'keep', 'keep rule'), 'k.py')}:keep")
    assert keep(Judged("a", "q", (), 1.0, "", 0.7))
    assert not keep(Judged("a", "q", (), 1.0, "", 0.71))
    # an edit of what it uses is an edit of it
    again = ideas.written_out(cell(CELL.replace("K = 0.7", "K = 0.8"))["edge"], "mine", "reward")
    assert ideas.meaning(again) != ideas.meaning(path.read_text())
    assert ideas.meaning(ideas.written_out(cell("\n\n" + CELL)["edge"], "mine", "reward")) == ideas.meaning(path.read_text())


def test_a_cells_form_is_written_down_too(cell: Any, tmp_path: Path) -> None:
    names = cell(
        "from timer1lib.forms import OwnForm\nSHARE = 100\n"
        "def ask(query, duration): return f'percent: {query}'\n"
        "def read(text, duration): return [(0.0, float(text) / SHARE * duration)] if text.isdigit() and duration else []\n"
        "mine = OwnForm(ask, read, fits=lambda text: text.isdigit(), system='short')\n"
        "worse = OwnForm(ask, read, system=object())\n"
    )
    path = file(tmp_path, ideas.written_out(names["mine"], "tried", "form"))
    form = forms.load(f"{path}:tried")
    assert (form.ask("a", 1.0).text, form.ask("a", 1.0).system, form.fits("25")) == ("percent: a", "short", True)
    assert form.of_sample(Sample("a", "a", "a", 20.0), grounded=True).span("25") == (0.0, 5.0)
    with pytest.raises(Timer1Error, match="form 'worse': its system"):
        ideas.written_out(names["worse"], "worse", "form")


@pytest.mark.parametrize(("name", "words"), [("uses_a_table", ["'table'", "cannot be written"]), ("closed", ["inside another"])])
def test_what_cannot_be_written_down_is_named(cell: Any, name: str, words: list[str]) -> None:
    with pytest.raises(Timer1Error) as caught:
        ideas.written_out(cell(CELL)[name], "mine", "reward")
    assert all(word in str(caught.value) for word in words)


def test_two_lambdas_of_one_line_are_told_apart(cell: Any) -> None:
    pair = cell("a, b = (lambda s: s.iou > 0), (lambda s: s.id > 0)\n")
    assert "s.id > 0" in ideas.written_out(pair["b"], "b", "keep rule")


# ----------------------------------------------------------------------------------------------------------------- preview


@pytest.fixture
def stored(tmp_path: Path) -> RunFolder:
    """A run with three groups of three rollouts."""
    run = RunFolder(tmp_path / "run")
    samples = [Sample(f"s{i}", f"v{i}.mp4", "a dog runs", windows=[(2.0, 4.0)], duration=10.0) for i in range(3)]
    run.write_samples("selected", samples)
    texts = ["2.0 to 4.0", "3.0 to 5.0", "8.0 to 9.0"]
    spans = [[2.0, 4.0], [3.0, 5.0], [8.0, 9.0]]
    rewards = [[1.0, 0.4, 0.0], [0.5, 0.5, 0.5], [0.0, 0.4, 1.0]]
    rows = [
        {"step": i, "id": f"s{i}", "gt": [2.0, 4.0], "completions": [f"<think>a</think><answer>{t}</answer>" for t in texts],
         "spans": spans, "rewards": rewards[i]}
        for i in range(3)
    ]  # fmt: skip
    atomic_write_jsonl(run.log("rollouts"), rows)
    run.params.write_text("shared: {form: timer1}\ngrpo: {rewards: 'what was'}\n")
    return run


def test_a_preview_counts_what_would_change(stored: RunFolder, tmp_path: Path) -> None:
    # the length that is said, over ten: 0.2, 0.2, 0.1 in every group
    path = file(tmp_path, "def length(x): return (x.span[1] - x.span[0]) / 10 if x.span else 0.0")
    found = preview(stored, parse_rewards(f"{path}:length"), "length")
    assert (found.groups, found.completions) == (3, 9)
    assert found.flat_before == pytest.approx(100 / 3)
    assert found.flat_after == 0.0
    # pairs (1,2) (1,3) (2,3): ordered 1 > 2 > 3 before and 1 = 2 > 3 after: (0 + 1 + 1) / sqrt(3 * 2), and its reverse
    assert tau_b([1.0, 0.4, 0.0], [0.2, 0.2, 0.1]) == pytest.approx(2 / 6**0.5)
    assert found.agreement == pytest.approx(0.0)
    assert found.best_changed == pytest.approx(100 / 3)  # in the last group the third was best, and is the worst now
    assert found.five == pytest.approx((0.1, 0.1, 0.2, 0.2, 0.2))
    assert found.changes[0].sample.id == "s2"
    assert (found.outside, found.furthest) == (0, [])
    assert found.bins == [3, 0, 0, 0, 0, 0, 0, 0, 0, 6]
    text = str(found)
    assert "33.3% under what was, 0.0% under length" in text
    assert "8.0 to 9.0 s (true: 2.0 to 4.0 s)" in text
    assert found._repr_html_().count("<svg") == len(found.changes) == 3


def test_a_notebook_previews_a_function_and_writes_nothing(stored: RunFolder) -> None:
    from timer1lib.params.sections import GrpoParams, SharedParams
    from timer1lib.stages import Stage, grpo

    def length(x: RewardInput) -> float:
        return (x.span[1] - x.span[0]) / 10 if x.span else 0.0

    before = {path: path.stat().st_mtime_ns for path in stored.root.rglob("*")}
    stage = Stage("grpo", stored, SharedParams(), GrpoParams())
    found = grpo.preview(stage, length)
    assert (found.name, found.five) == ("length", pytest.approx((0.1, 0.1, 0.2, 0.2, 0.2)))
    both = grpo.preview(stage, {"length": (length, 0.5), "iou": 1.0})
    assert both.five[4] == pytest.approx(1.1)
    with pytest.raises(Timer1Error, match=r"sample 's0', step 0: reward fails, line \d+: TypeError"):
        grpo.preview(stage, {"fails": lambda x: x.span + 1})
    assert {path: path.stat().st_mtime_ns for path in stored.root.rglob("*")} == before


def test_values_out_of_range_are_named_with_their_completions(stored: RunFolder, tmp_path: Path) -> None:
    path = file(tmp_path, "def f(x): return x.span[0] - 4.0 if x.span else 0.0")  # -2, -1 and 4 in every group
    found = preview(stored, parse_rewards(f"{path}:f"), "f")
    assert found.outside == 9
    assert all(text.startswith("4.000 at step") for text in found.furthest)
    assert "sample 's0': '<think>a</think><answer>8.0 to 9.0" in str(found)
    assert "&lt;answer&gt;8.0 to 9.0" in found._repr_html_()


def test_the_same_reward_changes_nothing(stored: RunFolder) -> None:
    rows = [json.loads(line) for line in stored.log("rollouts").read_text().splitlines()]
    for row in rows:
        row["rewards"] = [1.0, 1 / 3, 0.0]  # IoU of 2-4 s with 2-4, 3-5 and 8-9 s
    atomic_write_jsonl(stored.log("rollouts"), rows)
    found = preview(stored, parse_rewards("iou"), "iou")
    assert (found.agreement, found.best_changed, found.changes) == (pytest.approx(1.0), 0.0, [])


def test_a_reward_that_fails_in_a_preview_names_sample_and_completion(stored: RunFolder, tmp_path: Path) -> None:
    path = file(tmp_path, "def f(x): return 1 / (x.span[0] - 8.0) if x.span else 0.0")
    with pytest.raises(Timer1Error, match=r"sample 's0', step 0: reward .*f, line 1: ZeroDivisionError.*8\.0 to 9\.0"):
        preview(stored, parse_rewards(f"{path}:f"), "f")
    with pytest.raises(Timer1Error, match="no stored rollouts"):
        preview(RunFolder(tmp_path / "none"), parse_rewards("iou"), "iou")


# ------------------------------------------------------------------------------------------------------------- discoverable


def test_every_parameter_is_listed_with_type_default_range_and_help() -> None:
    rows = {row["parameter"]: row for row in listing.rows()}
    assert len(rows) == sum(len(model.model_fields) for model in listing.ALL.values())
    assert rows["grpo.epsilon"] | {"help": ""} == {
        "parameter": "grpo.epsilon", "type": "number", "default": "0.2", "range": "> 0", "read by": "04", "help": "",
    }  # fmt: skip
    assert rows["shared.frames"]["range"] == ">= 2, <= 4096"
    assert rows["shared.form"]["read by"] == "01 02 03 04 05 06"
    assert all(row["help"] for row in rows.values())
    given = listing.rows("grpo", Params.model_validate({"grpo": {"beta": 0.1}}), differing=True)
    assert [(row["parameter"], row["value"], row["default"]) for row in given] == [("grpo.beta", "0.1", "0.0")]
    with pytest.raises(Timer1Error, match="did you mean 'grpo'"):
        listing.rows("gpro")


def test_the_schema_knows_every_key_and_forbids_others() -> None:
    schema = listing.schema()
    grpo = schema["$defs"]["GrpoParams"]
    assert grpo["additionalProperties"] is False
    assert set(grpo["properties"]) == set(type(Params().grpo).model_fields)
    assert grpo["properties"]["beta"]["minimum"] == 0
    assert json.loads(json.dumps(schema)) == schema


def test_a_dry_run_says_why_and_touches_nothing(tmp_path: Path) -> None:
    from timer1lib.runs.runner import plan_text, planned, run

    project = make_project(tmp_path)
    first = planned(Params(), project=project)
    assert [stage.why for stage in first] == ["it has not finished"] * 7
    assert not (tmp_path / "outputs").exists()
    run(Params(), project=project, until="02", report=False)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    changed = Params.model_validate({"sft": {"steps": 31}})
    text = plan_text(planned(changed, project=project, until="03")).splitlines()
    assert text[0].startswith("01_curate: unchanged, skipped (took 0:")
    assert text[1].startswith("02_sft: runs, params (steps) (took 0:")
    assert text[2] == "03_difficulty: runs, it has not finished"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_every_commands_examples_can_be_read() -> None:
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert set(EXAMPLES) == set(commands)
    for name, examples in EXAMPLES.items():
        assert len(examples) == 2
        for example in examples:
            commands[name].make_context(name, shlex.split(example))
