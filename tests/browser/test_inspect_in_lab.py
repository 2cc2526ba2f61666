"""06_inspect as a person uses it: a real JupyterLab in a real browser, one story from Run All to a saved note."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from timer1lib.runfolder import RunFolder
from timer1lib.spans import iou

READ_FRAME = """() => {
  const video = document.querySelector(".t1-root[data-key^=test_] video");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const pen = canvas.getContext("2d");
  pen.drawImage(video, 0, 0);
  let index = 0;
  for (let bit = 0; bit < 10; bit++) if (pen.getImageData(bit * 12 + 6, 6, 1, 1).data[0] > 128) index |= 1 << bit;
  return index;
}"""
"""The number drawn into the picture that the browser shows now."""

SETTLED = """() => { const v = document.querySelector(".t1-root[data-key^=test_] video"); return v.readyState >= 2 && !v.seeking && v.paused; }"""
CLICK_AND_TIME = """async (key) => {
  const row = document.querySelector(`.t1t-row[data-key="${key}"]`);
  const before = document.querySelector(".t1-root[data-key^=test_]").dataset.key;
  const start = performance.now();
  row.click();
  while (document.querySelector(".t1-root[data-key^=test_]").dataset.key === before && performance.now() - start < 5000) await new Promise(requestAnimationFrame);
  return performance.now() - start;
}"""


class Lab:
    def __init__(self, page: Any, shots: Path) -> None:
        self.page, self.shots = page, shots

    def open_and_run(self, address: str) -> None:
        self.page.goto(address)
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        self.page.wait_for_selector(".jp-NotebookPanel-toolbar >> text=Python 3 (ipykernel)")
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_text("Run All Cells", exact=True).click()
        try:
            self.page.wait_for_function("() => document.querySelectorAll('.t1-root').length === 2", timeout=180_000)
            self.page.wait_for_selector(".t1t-row >> nth=5", state="attached")
        finally:
            self.page.screenshot(path=str(self.shots / "run-all.png"))
        self.root.scroll_into_view_if_needed()

    @property
    def table(self) -> Any:
        return self.page.locator(".t1t-root", has=self.page.locator(".t1t-row[data-key^=test_]"))

    @property
    def root(self) -> Any:
        return self.page.locator(".t1-root[data-key^=test_]").first

    def shot(self, name: str) -> None:
        self.root.screenshot(path=str(self.shots / f"{name}.png"))

    def settle(self) -> None:
        self.page.wait_for_function(SETTLED)
        self.page.wait_for_timeout(60)
        self.page.wait_for_function(SETTLED)

    def frame(self) -> int:
        self.settle()
        return int(self.page.evaluate(READ_FRAME))

    def current_time(self) -> float:
        return float(self.page.evaluate("() => document.querySelector('.t1-root[data-key^=test_] video').currentTime"))

    def choose(self, key: str) -> None:
        self.table.locator(".t1t-body").evaluate("(node) => { node.scrollTop = 0; }")  # only rows in sight exist
        self.table.locator(f'.t1t-row[data-key="{key}"]').click()
        self.page.wait_for_function("(key) => document.querySelector('.t1-root[data-key^=test_]').dataset.key === key", arg=key)
        self.page.wait_for_function("(key) => document.querySelector('.t1-root[data-key^=test_]').dataset.media === key", arg=key)
        self.settle()


@pytest.fixture(scope="module")
def story(browser: Any, lab: str, shots: Path) -> Any:
    from conftest import Watched

    watched = Watched(browser)
    made = Lab(watched.page, shots)
    made.open_and_run(lab)
    yield made, watched
    watched.page.close()


def item_of(run: RunFolder, key: str) -> tuple[Any, dict[str, Any]]:
    split, identity = key.split("/")
    sample = next(sample for sample in run.read_samples(split) if sample.id == identity)
    answers = {name: next(p for p in run.read_predictions(name, split) if p.id == identity) for name in ("base", "sft", "grpo")}
    return sample, answers


def test_table_filters_and_counts(story: Any, big_run: RunFolder) -> None:
    page, _ = story
    table = page.table
    assert "800 samples" in table.locator(".t1t-count").inner_text()
    table.locator("summary", has_text="filters").click()
    table.locator('[data-filter="type"]').select_option("counting")
    assert table.locator(".t1t-count").inner_text() == "200 of 800 samples"
    table.locator('[data-filter="high"]').fill("0.3")
    samples = [s for split in ("test_id", "test_ood") for s in big_run.read_samples(split) if s.type == "counting"]
    found = {s.id: s for s in samples}
    answers = {p.id: p for split in ("test_id", "test_ood") for p in big_run.read_predictions("grpo", split)}
    low = [i for i, s in found.items() if iou(answers[i].span, s.window) <= 0.3]
    assert table.locator(".t1t-count").inner_text() == f"{len(low)} of 800 samples"
    table.locator("summary", has_text="filters").click()
    table.get_by_role("columnheader", name="grpo").click()
    first = table.locator(".t1t-row").first.get_attribute("data-key")
    assert first.split("/")[1] in low
    table.get_by_role("button", name="reset").click()
    assert "800 samples" in table.locator(".t1t-count").inner_text()


@pytest.mark.parametrize("key", ["test_id/s000", "test_id/s001", "test_id/s002"])  # an mp4, a webm and an mkv
def test_dragging_the_playhead_shows_that_very_frame(story: Any, big_run: RunFolder, key: str) -> None:
    page, _ = story
    page.choose(key)
    sample, _ = item_of(big_run, key)
    box = page.root.locator(".t1-over").bounding_box()
    head = page.root.locator(".t1-head").bounding_box()
    mouse = page.page.mouse
    mouse.move(head["x"] + 1, head["y"] - 3)
    mouse.down()
    for share in (0.1, 0.45, 0.62, 0.37):
        mouse.move(box["x"] + share * box["width"], head["y"] + 4, steps=3)
    mouse.up()
    time = 0.37 * sample.duration
    assert abs(page.frame() - int(time * 10 + 1e-6)) <= 1  # the pointer itself is exact to a pixel
    shown = page.frame()
    assert shown / 10 - 1e-3 <= page.current_time() < (shown + 1) / 10 + 1e-3
    assert f"frame {shown + 1} / " in page.root.locator(".t1-clock").inner_text()
    for way in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        page.page.keyboard.press(way)
    assert page.frame() == shown + 1


def test_the_whole_picture_is_shown(story: Any) -> None:
    """Whatever its shape: the element keeps inside its stage, and the picture inside the element."""
    page, _ = story
    stage, video = page.root.locator(".t1-stage").bounding_box(), page.root.locator("video").bounding_box()
    assert video == stage
    assert page.root.locator("video").evaluate("(node) => getComputedStyle(node).objectFit") == "contain"


def test_clicking_a_bar_plays_that_segment_and_stops(story: Any, big_run: RunFolder) -> None:
    page, _ = story
    page.choose("test_id/s000")
    sample, _ = item_of(big_run, "test_id/s000")
    start, end = sample.window
    page.root.locator('[data-bar="truth:0"]').click(position={"x": 12, "y": 8})
    page.page.wait_for_function("() => !document.querySelector('.t1-root[data-key^=test_] video').paused")
    began = page.current_time()
    assert start - 0.1 <= began <= start + 1.0
    page.page.wait_for_function("() => document.querySelector('.t1-root[data-key^=test_] video').paused")
    assert page.frame() in (round(end * 10) - 1, round(end * 10))
    page.page.keyboard.press("s")
    assert page.frame() == round(start * 10)
    page.page.keyboard.press("e")
    assert page.frame() == round(end * 10)


def test_dragging_an_edge_changes_iou_as_the_library_has_it(story: Any, big_run: RunFolder) -> None:
    page, _ = story
    page.choose("test_id/s004")
    sample, answers = item_of(big_run, "test_id/s004")
    number = page.root.locator('[data-iou="grpo"]')
    assert number.inner_text() == f"{iou(answers['grpo'].span, sample.window):.3f}"
    edge = page.root.locator('[data-edge="grpo:0:1"]')
    box = edge.bounding_box()
    mouse = page.page.mouse
    mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    mouse.down()
    mouse.move(box["x"] + 90, box["y"] + 8, steps=6)
    mouse.up()
    edited = (
        float(page.root.locator('[data-edge="grpo:0:0"]').get_attribute("aria-valuenow")),
        float(edge.get_attribute("aria-valuenow")),
    )
    assert edited[1] > answers["grpo"].end + 0.2
    assert float(number.inner_text()) == pytest.approx(iou(edited, sample.window), abs=6e-4)
    page.shot("edge-dragged")
    edge.focus()
    page.page.keyboard.press("ArrowLeft")
    again = (edited[0], float(edge.get_attribute("aria-valuenow")))
    assert 0 < edited[1] - again[1] <= 0.101
    assert float(number.inner_text()) == pytest.approx(iou(again, sample.window), abs=6e-4)
    page.page.keyboard.press("r")
    assert number.inner_text() == f"{iou(answers['grpo'].span, sample.window):.3f}"


def test_text_and_timeline_are_linked(story: Any) -> None:
    page, _ = story
    page.choose("test_id/s004")
    page.root.get_by_role("tab", name="grpo").click()
    link = page.root.locator(".t1-link").first
    named = link.inner_text()
    start = float(named.split()[0])
    link.hover()
    assert page.root.locator(".t1-named.t1-lit").count() == 1
    link.click()
    page.page.wait_for_function("() => !document.querySelector('.t1-root[data-key^=test_] video').paused")
    assert page.current_time() >= start - 0.1
    page.page.keyboard.press(" ")


def test_next_and_previous_follow_the_table(story: Any) -> None:
    page, _ = story
    page.choose("test_id/s002")
    page.root.focus()
    page.page.keyboard.press("n")
    page.page.wait_for_function("() => document.querySelector('.t1-root[data-key^=test_]').dataset.key === 'test_id/s003'")
    assert page.table.locator('.t1t-row[aria-selected="true"]').get_attribute("data-key") == "test_id/s003"
    page.page.keyboard.press("p")
    page.page.wait_for_function("() => document.querySelector('.t1-root[data-key^=test_]').dataset.key === 'test_id/s002'")


def test_a_click_on_the_scatter_selects(story: Any) -> None:
    page, _ = story
    page.choose("test_id/s002")
    point = page.page.locator('.t1s-root[aria-label^="Click a point"]').locator('[data-key="test_id/s007"]')
    point.scroll_into_view_if_needed()
    point.dispatch_event("click")
    page.page.wait_for_function("() => document.querySelector('.t1-root[data-key^=test_]').dataset.key === 'test_id/s007'")
    page.root.scroll_into_view_if_needed()


def test_coming_back_before_the_other_video_was_here(story: Any) -> None:
    page, _ = story
    page.choose("test_id/s002")
    script = """async () => { for (const key of ["test_id/s005", "test_id/s002"]) {
      document.querySelector(`.t1t-row[data-key="${key}"]`).click(); await new Promise((done) => setTimeout(done, 30)); } }"""
    page.page.evaluate(script)
    page.page.wait_for_function("() => document.querySelector('.t1-root[data-key^=test_]').dataset.media === 'test_id/s002'")
    assert page.frame() == 0


def test_a_click_is_answered_within_200_ms(story: Any) -> None:
    """800 samples, 3 checkpoints; measured in the browser from the click to the scrubber's new timeline."""
    page, _ = story
    keys = [f"test_id/s{i:03d}" for i in (5, 6, 7, 5, 4, 7, 3)]
    page.choose("test_id/s002")
    page.page.wait_for_timeout(500)
    times = []
    for key in keys:
        times.append(page.page.evaluate(CLICK_AND_TIME, key))
        page.page.wait_for_timeout(350)
    (page.shots / "click-ms.txt").write_text(" ".join(f"{time:.0f}" for time in times))
    assert sorted(times)[len(times) // 2] < 200, times


def test_note_is_saved_and_still_there_after_a_reload(story: Any, big_run: RunFolder, lab: str) -> None:
    page, watched = story
    page.choose("test_id/s003")
    edge = page.root.locator('[data-edge="truth:0:1"]')
    edge.focus()
    page.page.keyboard.press("Shift+ArrowRight")
    window = [float(page.root.locator(f'[data-edge="truth:0:{side}"]').get_attribute("aria-valuenow")) for side in (0, 1)]
    page.root.get_by_label("wrong label").check()
    page.root.get_by_label("free text of the note").fill("the disc stays longer <b>than</b> that")
    page.root.locator(".t1-repair input").check()
    page.shot("note")
    page.root.get_by_role("button", name="Save").click()
    page.page.wait_for_function(
        "() => document.querySelector('.t1-root[data-key^=test_] .t1-saved').textContent.startsWith('saved')"
    )
    rows = [json.loads(line) for line in big_run.notes.read_text().splitlines()]
    assert [(row["id"], row["label"]) for row in rows] == [("s003", "wrong_label")]
    assert rows[0]["text"] == "the disc stays longer <b>than</b> that"
    assert rows[0]["window"] == pytest.approx(window, abs=2e-3)
    page.page.wait_for_function(
        "() => document.querySelector('.t1t-row[data-key=\"test_id/s003\"] .t1t-note').textContent === '✗'"
    )

    page.page.reload()
    page.open_and_run(lab)
    page.choose("test_id/s003")
    assert page.root.get_by_label("wrong label").is_checked()
    assert "the disc stays longer" in page.root.get_by_label("free text of the note").input_value()
    assert page.root.locator(".t1-repair input").is_checked()  # saved once more, the proposal stays
    page.shot("after-reload")
    assert watched.errors == []


def test_rollouts_of_a_step_are_stacked_with_their_rewards(story: Any, big_run: RunFolder) -> None:
    page, _ = story
    second = page.page.locator(".t1-root:not([data-key^=test_])")
    second.scroll_into_view_if_needed()
    group = json.loads(big_run.log("rollouts").read_text().splitlines()[0])
    shown = [float(text) for text in second.locator("[data-logged]").all_inner_texts()]
    assert shown == [pytest.approx(reward, abs=6e-4) for reward in sorted(group["rewards"], reverse=True)]
    assert second.locator(".t1-track em").inner_text() == "no answer"
    second.screenshot(path=str(page.shots / "rollouts.png"))


def test_both_themes_are_readable(story: Any, shots: Path) -> None:
    page, _ = story
    page.choose("test_id/s004")
    assert (
        page.page.evaluate("() => getComputedStyle(document.querySelector('.t1-root[data-key^=test_]')).backgroundColor")
        == "rgb(255, 255, 255)"
    )
    page.page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.page.get_by_text("Theme", exact=True).hover()
    page.page.get_by_text("JupyterLab Dark", exact=True).click()
    page.page.wait_for_selector('body[data-jp-theme-light="false"]', state="attached")
    page.page.wait_for_timeout(400)
    colours = page.page.evaluate(
        """() => { const s = getComputedStyle(document.querySelector('.t1-root[data-key^=test_] .t1-query'));
        return [s.color, getComputedStyle(document.querySelector('.t1-root[data-key^=test_]')).backgroundColor].map((c) => c.match(/[\\d.]+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0)); }"""
    )
    assert colours[0] - colours[1] > 400  # light text on a dark ground
    page.root.screenshot(path=str(shots / "dark.png"))
    page.table.screenshot(path=str(shots / "dark-table.png"))
