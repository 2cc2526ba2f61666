"""The pages themselves: what they open and close with, that the idea in a cell is held against the library, and nothing dull."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from timer1lib.params.cells import notebooks

ROOT = Path(__file__).resolve().parent.parent
NAMES = list(notebooks().values())


def cells_of(name: str, kind: str) -> list[str]:
    notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("name", NAMES)
def test_a_page_opens_with_a_question_and_closes_with_what_was_to_be_seen(name: str) -> None:
    prose = cells_of(name, "markdown")
    title, first = prose[0].split("\n\n")[:2]
    assert title.startswith(f"# {name[:2]} · ")
    assert "?**" in first, "the first paragraph asks a question"
    assert "\n## What you should have seen\n" in "\n" + "\n\n".join(prose[-2:])
    assert "## Change this and run again" in "\n".join(prose[-2:])
    for cell in prose:
        long = [line for line in cell.splitlines() if len(line) > 132 and not line.startswith(("|", "$"))]
        assert not long, f"prose has one width: {long[0]}"


@pytest.mark.parametrize("name", NAMES)
def test_cells_show_sentences_and_tables(name: str) -> None:
    for source in cells_of(name, "code")[1:]:
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.Expr):
                continue
            shown = node.value
            if isinstance(shown, ast.Call) and isinstance(shown.func, ast.Name):
                assert shown.func.id != "len", source
                if shown.func.id == "display":
                    assert not isinstance(shown.args[0], ast.Constant | ast.JoinedStr), f"a text is printed: {source}"
            assert not isinstance(shown, ast.Attribute), f"a wall of repr: {source}"


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("01_curate", '["answers"]["window prior"]["mIoU"]'),
        ("03_difficulty", 'select(table, "gaussian"'),
        ("04_grpo", 'REWARDS["tiou"](x)'),
        ("04_grpo", "filter_epoch(list(known), known, low, high)"),
        ("05_evaluate", '["R1@0.5"]) < 1e-9'),
        ("05_evaluate", '*row["interval"]'),
    ],
)
def test_what_a_cell_works_out_is_held_against_the_library(name: str, library: str) -> None:
    held = [source for source in cells_of(name, "code") if library in source]
    assert held
    assert all(any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(source))) for source in held)


def test_a_wrong_reward_in_the_cell_is_found_by_its_assertion() -> None:
    source = next(source for source in cells_of("04_grpo", "code") if "def tiou" in source)
    from timer1lib.forms import FORMS
    from timer1lib.rewards import RewardInput

    group = [RewardInput(f"<answer>{a} to {a + 3}</answer>", ((2.0, 6.0),), 10.0, FORMS["brief"]) for a in range(7)]
    exec(source, {"group": group, "REWARDS": _rewards()})
    with pytest.raises(AssertionError):
        exec(source.replace("1 - abs", "1 - 2 * abs"), {"group": group, "REWARDS": _rewards()})


def _rewards() -> dict[str, Any]:
    from timer1lib.rewards import REWARDS

    return dict(REWARDS)


def test_the_live_curve_grows_with_the_log_and_is_silent_under_a_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython.display

    from timer1lib.progress import RUNNER_VARIABLE
    from timer1lib.view import lesson

    drawn: list[str] = []

    class Handle:
        def update(self, shown: Any) -> None:
            drawn.append(shown._repr_html_())

    log = tmp_path / "grpo.jsonl"
    monkeypatch.setattr(lesson, "in_kernel", lambda: True)
    monkeypatch.setattr(lesson, "LIVE_SECONDS", 0.0)
    monkeypatch.setattr(IPython.display, "display", lambda **_: Handle())
    monkeypatch.setenv(RUNNER_VARIABLE, "1")
    assert lesson.live_curve(log) is None
    monkeypatch.delenv(RUNNER_VARIABLE)
    draw = lesson.live_curve(log)
    assert draw is not None
    draw()
    log.write_text('{"step": 1, "reward": 0.5}\n')
    draw()
    assert drawn == []
    with log.open("a") as stream:
        stream.write('{"step": 2, "reward": 1.5}\n')
    draw()
    draw()
    assert len(drawn) == 1, "a log that has not grown is not drawn again"
    assert "reward, now 1.000" in drawn[0]  # the running mean of both
    assert 'points="54.0,142.0 694.0,22.0"' in drawn[0], "from the lower left corner to the upper right one"


def test_times_are_marked_and_nothing_becomes_markup() -> None:
    from timer1lib.view import lesson

    html = lesson.written("a", "<3.2 seconds>seen from 1.50 to 12 seconds & 7 birds")._repr_html_()
    assert [part.partition("</mark>")[0].partition(">")[2] for part in html.split("<mark")[1:]] == [
        "3.2 seconds",
        "1.50",
        "12 seconds",
    ]
    assert "&lt;<mark" in html
    assert "&amp; 7 birds" in html


def test_the_three_errors_to_look_at_first_are_of_three_kinds() -> None:
    from types import SimpleNamespace

    from timer1lib.params.sections import InspectParams
    from timer1lib.schema import Prediction, Sample
    from timer1lib.stages import inspect
    from timer1lib.view.lesson import item_of

    def item(name: str, base: tuple[float, float], grpo: tuple[float, float]) -> Any:
        sample = Sample(name, "v.mp4", "a dog runs", 20.0, [(0.0, 10.0)])
        return item_of(sample, {"base": Prediction(name, *base), "grpo": Prediction(name, *grpo)})

    items = [
        item("fine", (0.0, 10.0), (0.0, 10.0)),  # 1.0 and 1.0
        item("edges", (0.0, 4.0), (0.0, 4.0)),  # 0.4 and 0.4
        item("near", (0.0, 6.0), (0.0, 6.0)),  # 0.6 and 0.6
        item("lost", (0.0, 10.0), (12.0, 15.0)),  # 1.0 and 0.0: worst of all, and so the first alone
        item("missed", (0.0, 9.0), (12.0, 15.0)),  # 0.9 and 0.0
    ]
    found = inspect.first_errors(SimpleNamespace(params=InspectParams()), items)  # type: ignore[arg-type]
    assert [one.sample.id for _, one in found] == ["lost", "missed", "edges"]
    assert [why for why, _ in found] == [
        "grpo lost most against base",
        "grpo misses what another one hit",
        "grpo found the event and missed its edges",
    ]
    assert inspect.first_errors(SimpleNamespace(params=InspectParams()), items[:1]) == []  # type: ignore[arg-type]


def test_the_default_run_leaves_08_alone() -> None:
    from timer1lib.runs.graph import STAGES

    assert [stage.notebook for stage in STAGES] == NAMES[:7]
