"""Reports and figures as a reader sees them: widths, themes, buttons, links, paper."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ARGUMENTS, Watched
from view_run import make_run

from timer1lib.evaluation.compare import compare_runs
from timer1lib.view import figures
from timer1lib.view.comparison import write_pages

DRAWN = "(n) => document.querySelectorAll('.t1-figure .main-svg').length >= n"
CONTRAST = """(selector) => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const page = light(parse(getComputedStyle(document.body).backgroundColor));
  return [...document.querySelectorAll(selector)].filter((one) => one.textContent.trim()).map((one) => {
    const style = getComputedStyle(one), given = one instanceof SVGElement ? style.fill : style.color;
    const [high, low] = [light(parse(given)), page].sort((a, b) => b - a);
    return [(high + 0.05) / (low + 0.05), one.textContent];
  });
}"""
"""WCAG's contrast of every text with the page behind it."""
TEXTS = ".gtitle, .xtitle, .ytitle, .xtick text, .ytick text, .legendtext"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run's report, two runs beside each other, and a sweep of both."""
    root = tmp_path_factory.mktemp("reports") / "rates"
    rows = []
    for seed, name in enumerate(("plain", "fast")):
        run = make_run(root / name, samples=40, videos=4, seed=seed)
        run.params.write_text(f"name: {name}\ngrpo: {{learning_rate: {1e-5 * (1 + seed)}, rewards: 'tiou, format'}}\n")
        for split in ("test_id", "test_ood"):
            asked = [
                replace(
                    s,
                    video=f"clip_{i % 4}.{['mp4', 'webm', 'mkv', 'mp4'][i % 4]}",
                    query=f"query {i}",
                    windows=[(1.0, 3.0)],
                    duration=8.0,
                )
                for i, s in enumerate(run.read_samples(split))
            ]
            run.write_samples(split, asked)
        rows.append(
            {"name": name, "variant": name, "seed": 0, "changes": {"grpo.learning_rate": seed}, "seconds": 61.0, "error": None}
        )
    value = compare_runs([root / "plain", root / "fast"], resamples=100)
    sweep = {"name": "rates", "about": "Which learning rate is best?", "rows": rows, "comparison": value, "seconds": 130.0}
    (root / "sweep.json").write_text(json.dumps(sweep))
    made = write_pages([root])
    comparison = write_pages([root / "plain", root / "fast"], root / "ab.html")[0]
    return {"sweep": made[0], "run": made[1], "comparison": comparison}


@pytest.mark.parametrize("kind", ["run", "comparison", "sweep"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_fits_every_width_and_can_be_read_in_both_themes(
    watched: Watched, pages: dict[str, Path], shots: Path, kind: str, scheme: str
) -> None:
    page = watched.page
    page.emulate_media(color_scheme=scheme)
    for width in (700, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(f"file://{pages[kind]}")
        page.wait_for_function(DRAWN, arg=3)
        page.wait_for_timeout(400)
        page.screenshot(path=str(shots / f"{kind}-{scheme}-{width}.png"), full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
        low = [one for one in page.evaluate(CONTRAST, TEXTS) if one[0] < 4.5]
        assert low == []
    assert [
        one for one in page.evaluate(CONTRAST, "p, h1, h2, h3, td, th, summary, nav a, td a, figcaption") if one[0] < 4.5
    ] == []
    wrapped = page.evaluate(
        "() => [...document.querySelectorAll('td small')].filter((one) => /^[-+\\d.]+ to [-+\\d.]+$/.test(one.textContent) && one.getClientRects().length && one.offsetHeight > 1.5 * parseFloat(getComputedStyle(one).lineHeight)).map((one) => one.textContent)"
    )
    assert wrapped == []
    assert watched.errors == []
    assert page.locator(".modebar").count() == 0 or not page.locator(".modebar").first.is_visible()


COVERED = """() => [...document.querySelectorAll('.js-plotly-plot')].flatMap((plot) => {
  const title = plot.querySelector('.gtitle').getBoundingClientRect(), box = plot.getBoundingClientRect();
  const parts = [...plot.querySelectorAll('.legend, .modebar, .plot, .xtitle, .ytitle, .xtick, .ytick')].filter((one) => one.checkVisibility());
  const meets = parts.map((one) => one.getBoundingClientRect()).filter((b) => b.width && b.left < title.right && b.right > title.left && b.top < title.bottom - 1 && b.bottom > title.top);
  return meets.length || title.right > box.right + 1 || title.top < box.top - 1 ? [plot.querySelector('.gtitle').textContent] : [];
})"""


@pytest.mark.parametrize("width", [360, 700, 1280])
def test_no_title_is_covered_or_cut(watched: Watched, pages: dict[str, Path], width: int) -> None:
    watched.page.set_viewport_size({"width": width, "height": 900})
    watched.page.goto(f"file://{pages['run']}")
    watched.page.wait_for_function(DRAWN, arg=8)
    watched.page.wait_for_timeout(400)
    assert watched.page.evaluate(COVERED) == []


def test_a_link_to_a_sample_opens_its_place(watched: Watched, pages: dict[str, Path]) -> None:
    page = watched.page
    text = pages["run"].read_text()
    listed = re.findall(r'<tr id="(sample=[^"]+)"', text)[-1]
    page.goto(f"file://{pages['run']}#{listed}")
    page.wait_for_function("() => document.querySelector('tr:target')?.closest('details').open")
    page.wait_for_function(
        "() => { const top = document.querySelector('tr:target').getBoundingClientRect().top; return top >= 0 && top < innerHeight; }"
    )
    drawn = re.findall(r'<div class="sample" id="(sample=[^"]+)"', text)[0]
    page.evaluate("(hash) => { location.hash = hash; }", drawn)
    inside = "() => { const top = document.querySelector('.sample:target')?.getBoundingClientRect().top; return top > -60 && top < innerHeight; }"
    page.wait_for_function(inside)


def test_the_rows_of_a_sweep_are_a_click_away(watched: Watched, pages: dict[str, Path]) -> None:
    watched.page.goto(f"file://{pages['sweep']}")
    assert "Which learning rate is best?" in watched.page.locator("header").inner_text()
    watched.page.locator("#rows").get_by_role("link", name="fast").click()
    watched.page.wait_for_url("**/fast/report.html")
    assert watched.page.locator("h1").inner_text() == "rates" or watched.page.locator("h1").inner_text() == "fast"


@pytest.mark.parametrize("theme", ["true", "false"])
def test_a_figure_in_a_notebook(watched: Watched, tmp_path: Path, shots: Path, theme: str) -> None:
    """The HTML that a notebook gets, on a page with JupyterLab's own mark of a light or a dark theme."""
    groups = {
        name: {f"type {i}": {"n": 9, "R1@0.5": 30.0 + 9 * i, "interval": {"R1@0.5": [20.0, 60.0]}} for i in range(3)}
        for name in ("base", "sft", "grpo")
    }
    drawn = figures.loader_html() + figures.figure_html(
        figures.by_group(groups, title="R1@0.5 by type of query, and a title that is far too long for it"), tools=True
    )
    background = "#ffffff" if theme == "true" else "#111111"
    path = tmp_path / "lab.html"
    path.write_text(
        f'<!doctype html><meta charset=utf-8><body data-jp-theme-light="{theme}" style="background:{background}">{drawn}'
    )
    page = watched.page
    page.set_viewport_size({"width": 700, "height": 600})
    page.goto(f"file://{path}")
    page.wait_for_function(DRAWN, arg=1)
    bar = page.locator(".modebar")
    assert (
        float(bar.locator(".modebar-group").first.evaluate("(node) => getComputedStyle(node).opacity")) == 0
    )  # not before the pointer comes
    assert [one for one in page.evaluate(CONTRAST, TEXTS) if one[0] < 4.5] == []
    error = page.locator(".xerror").first.evaluate("(node) => [getComputedStyle(node).stroke, getComputedStyle(node).filter]")
    assert error[0] == ("rgb(20, 23, 28)" if theme == "true" else "rgb(242, 244, 247)")
    assert "drop-shadow" in error[1]
    page.locator(".js-plotly-plot").hover()
    page.wait_for_timeout(400)
    page.screenshot(path=str(shots / f"notebook-{theme}.png"))
    assert page.evaluate(COVERED) == []
    buttons = page.locator(".modebar-btn").evaluate_all("(all) => all.map((one) => one.dataset.title)")
    assert any("Download" in one for one in buttons)
    assert not any(re.search("cloud|studio|share|edit", one, re.I) for one in buttons)
    assert page.locator("a[href^=http]").count() == 0
    with page.expect_download() as download:
        page.locator('.modebar-btn[data-title*="Download"]').first.click()
    assert download.value.suggested_filename.endswith(".svg")
    assert "<svg" in Path(download.value.path()).read_text()[:300]
    assert watched.errors == []


def test_on_paper_nothing_is_cut_and_figures_are_drawn(pages: dict[str, Path], browser: Any, tmp_path: Path) -> None:
    """As `chromium --print-to-pdf` prints it: figures as wide as the paper, no buttons, no menu."""
    import shutil

    pdf = tmp_path / "report.pdf"
    program = next(found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name)))
    command = [program, "--headless", *ARGUMENTS, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000"]
    subprocess.run(
        [*command, "--no-pdf-header-footer", f"--print-to-pdf={pdf}", f"file://{pages['run']}"],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert pdf.read_bytes()[:5] == b"%PDF-"
    assert 4 <= len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes())) <= 30
    page = browser.new_page()
    page.set_viewport_size({"width": 688, "height": 1000})  # A4 without its margins
    page.goto(f"file://{pages['run']}")
    page.wait_for_function(DRAWN, arg=8)
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert [one for one in page.evaluate(CONTRAST, TEXTS) if one[0] < 4.5] == []
    assert not page.locator("nav").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.close()
