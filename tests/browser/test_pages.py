"""Pages without a kernel in a browser without a network, and the formulas of the JavaScript against the library's."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from conftest import Watched

from timer1lib.rewards import REWARDS, RewardInput
from timer1lib.runfolder import RunFolder
from timer1lib.spans import iou
from timer1lib.view import scrubber
from timer1lib.view.open import write_copy
from timer1lib.view.report import write_report


@pytest.fixture
def offline(browser: Any) -> Any:
    browser.set_offline(True)
    yield browser
    browser.set_offline(False)


def test_the_report_opens_offline_without_an_error(offline: Any, watched: Watched, big_run: RunFolder, shots: Path) -> None:
    path = write_report(big_run, big_run.root / "cache")
    watched.page.goto(f"file://{path}")
    watched.page.wait_for_function("() => document.querySelectorAll('.t1-figure .main-svg').length >= 7")
    watched.page.wait_for_timeout(300)
    watched.page.screenshot(path=str(shots / "report.png"), full_page=True)
    assert watched.errors == []
    assert {url.split(":")[0] for url in watched.requests} <= {"file", "data", "blob"}
    for strip in watched.page.locator(".samples image").all():
        assert strip.bounding_box()["width"] > 300
    assert watched.page.locator("table").first.locator("tbody tr").count() == 4  # three checkpoints and a baseline


def test_a_figure_is_as_wide_as_its_place_however_slowly_the_page_comes(
    watched: Watched, big_run: RunFolder, tmp_path: Path
) -> None:
    """The loader is ready and the first figure's script has run while its neighbour in the grid is still to come."""
    page = write_report(big_run, big_run.root / "cache").read_text()
    place = page.index("</script>", page.index('class="t1-figure"', page.index('class="two"'))) + len("</script>")
    slow = tmp_path / "slow.html"
    slow.write_text(page[:place] + '<script src="http://slow.test/slow.js"></script>' + page[place:])

    def answer(route: Any) -> None:
        watched.page.wait_for_timeout(2000)
        route.fulfill(body="", content_type="text/javascript")

    watched.page.route("**/slow.js", answer)
    watched.page.goto(f"file://{slow}")
    watched.page.wait_for_function("() => document.querySelectorAll('.t1-figure .main-svg').length >= 7")
    watched.page.wait_for_timeout(300)
    wider = "figure => figure.querySelector('.main-svg').getBoundingClientRect().width > figure.parentElement.clientWidth + 1"
    assert not any(figure.evaluate(wider) for figure in watched.page.locator(".t1-figure").all())


def test_formulas_are_the_librarys(watched: Watched) -> None:
    rng = random.Random(0)
    odd = [0.0, -1.0, 1e-9, 5.0, 5.0, 1e9, math.inf, math.nan]

    def span() -> list[float]:
        if rng.random() < 0.3:
            return [rng.choice(odd), rng.choice(odd)]
        a = rng.uniform(-2, 20)
        return [a, a + rng.uniform(-1, 10)]

    cases = [
        [span(), [a := rng.uniform(0, 15), a + rng.uniform(0.1, 9)], rng.uniform(1, 40), rng.random() < 0.5] for _ in range(2000)
    ]
    source = (Path(scrubber.__file__).parent / "scrubber.js").read_text()
    script = f"""async () => {{
      const module = await import(URL.createObjectURL(new Blob([{json.dumps(source)}], {{ type: "text/javascript" }})));
      const cases = {json.dumps(cases)};
      return cases.map(([span, truth, duration, form]) => [module.iou(span, truth), Object.fromEntries(Object.entries(module.REWARDS).map(([name, f]) => [name, f(span, truth, duration, form)]))]);
    }}"""
    watched.page.goto("about:blank")
    answers = watched.page.evaluate(script)
    for (given, truth, duration, form), (overlap, rewards) in zip(cases, answers, strict=True):
        assert overlap == pytest.approx(iou(tuple(given), tuple(truth)), abs=1e-12)
        completion = (
            f"<think>x</think><answer>{given[0]!r} to {given[1]!r}</answer>"
            if form
            else f"<answer>{given[0]!r} to {given[1]!r}</answer>"
        )
        if not all(0 <= value < 1e6 and "e" not in repr(value) for value in given):
            continue  # what the parser cannot read back exactly
        x = RewardInput(completion, (tuple(truth),), duration)
        if x.span != tuple(given):
            continue
        assert set(rewards) == set(REWARDS) - {"grounded_qa"}
        for name, value in rewards.items():
            assert value == pytest.approx(REWARDS[name](x), abs=1e-9), name


def test_frames_are_found_by_their_own_times(watched: Watched) -> None:
    source = (Path(scrubber.__file__).parent / "scrubber.js").read_text()
    watched.page.goto("about:blank")
    found = watched.page.evaluate(
        f"""async () => {{
      const {{ frameAt, insideFrame }} = await import(URL.createObjectURL(new Blob([{json.dumps(source)}], {{ type: "text/javascript" }})));
      const frames = [0, 0.1, 0.35, 0.4, 2.0];
      return [[-1, 0, 0.0999, 0.1, 0.3499, 0.35, 1.99, 2.0, 9].map((t) => frameAt(frames, t)), [0, 2, 4].map((i) => insideFrame(frames, i, 2.5))];
    }}"""
    )
    assert found == [[0, 0, 0, 1, 1, 2, 3, 4, 4], [pytest.approx(0.05), pytest.approx(0.375), pytest.approx(2.25)]]


def test_the_executed_notebook_keeps_its_figures_and_its_pictures(
    offline: Any, watched: Watched, tmp_path: Path, shots: Path
) -> None:
    """Executed without a browser, without widget state, and exported by nbconvert: what papermill's runner leaves."""
    import nbformat
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter
    from view_run import make_run

    run = make_run(tmp_path / "run", samples=9, videos=3)
    notebook = nbformat.read(write_copy(run), as_version=4)
    project = Path(__file__).resolve().parents[2]
    NotebookClient(notebook, timeout=120, store_widget_state=False, resources={"metadata": {"path": str(project)}}).execute()
    assert "widgets" not in notebook.metadata
    html, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    page = tmp_path / "06.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><body>{html}</body>")
    watched.page.goto(f"file://{page}")
    watched.page.wait_for_selector(".t1-figure .main-svg", state="attached")
    drawn = watched.page.locator("figure svg[role=img]").all()
    assert len(drawn) >= 7  # six samples and at least one group of rollouts
    assert all(one.bounding_box()["height"] > 60 for one in drawn)
    watched.page.screenshot(path=str(shots / "executed.png"), full_page=True)
    assert watched.errors == []
    assert {url.split(":")[0] for url in watched.requests} <= {"file", "data", "blob"}
