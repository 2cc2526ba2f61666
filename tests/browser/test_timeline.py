"""The scrubber's script without a kernel or a network: an hour on the timeline, sets of segments, the keys' help."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import Watched

from timer1lib.view.aside import HERE, script

PAGE = """async ([source, css, item]) => {
  document.head.innerHTML = `<style>dt { float: left; width: 20%; } dd { float: left; width: 80%; } ${css}</style>`;
  document.body.innerHTML = '<div id="here" style="width: 1000px"></div>';
  const state = { item, media: {}, saved: {}, video: new Uint8Array(), frames: new Uint8Array(), thumbs: new Uint8Array() };
  window.model = { sent: [], get: (key) => state[key], on() {}, off() {}, send(message) { this.sent.push(message); } };
  const made = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  window.scripts = made;
  made.default.render({ model: window.model, el: document.getElementById("here") });
}"""


def open_item(watched: Watched, **changes: Any) -> Any:
    style = {"colour": "#009e73", "pattern": "solid", "form": True, "reward": None, "error": None, "pieces": []}
    rows = [{"key": "grpo", "label": "grpo", "spans": [[1830.0, 1836.0]], **style}]
    item = {
        "key": "x", "id": "x", "query": "she waves", "duration": 3600.0, "truth": [[1834.0, 1838.5]], "truth_colour": "#777",
        "facts": [], "tags": [], "reward": "tiou", "note": None, "rows": rows, "walks": ["worst"], "history": [],
    } | changes  # fmt: skip
    page = watched.page
    page.goto("about:blank")
    page.set_viewport_size({"width": 1100, "height": 800})
    page.evaluate(PAGE, [script("dom", "timeline", "history", "scrubber"), (HERE / "scrubber.css").read_text(), item])
    return page


def test_a_window_of_seconds_in_an_hour_is_set_to_a_tenth(watched: Watched) -> None:
    page = open_item(watched)
    assert page.locator(".t1-axis span").all_inner_texts()[:2] == ["0:00:00", "0:10:00"]
    assert page.locator('[data-times="truth"]').inner_text() == "0:30:34.0 – 0:30:38.5"
    bar = page.locator('[data-bar="truth:0"]')
    assert bar.bounding_box()["width"] < 4
    page.locator(".t1-root").focus()
    page.keyboard.press("0")
    page.keyboard.press("z")
    assert bar.bounding_box()["width"] > 200
    start = page.locator('[data-edge="truth:0:0"]')
    box, over = start.bounding_box(), page.locator(".t1-over").bounding_box()
    first, last = (float(page.locator(".t1-root").get_attribute(f"data-view-{end}")) for end in ("start", "end"))
    wanted = 1832.7
    x = over["x"] + over["width"] * (wanted - first) / (last - first)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 8)
    page.mouse.down()
    page.mouse.move(x, box["y"] + 8, steps=5)
    assert page.locator('[data-times="truth"]').inner_text() == "0:30:32.7 – 0:30:38.5"
    page.mouse.up()
    assert float(start.get_attribute("aria-valuenow")) == pytest.approx(wanted, abs=0.05)
    page.keyboard.press("ArrowRight")  # without the pictures a tenth at a time
    assert float(start.get_attribute("aria-valuenow")) == pytest.approx(wanted + 0.1, abs=0.05)
    page.locator(".t1-root").focus()
    page.keyboard.press("a")
    box = page.locator(".t1-map").bounding_box()
    window = page.locator('[data-map="window"]').bounding_box()
    assert window["width"] == pytest.approx(box["width"], abs=3)
    assert watched.errors == []


def test_the_map_moves_and_pulls_what_is_shown(watched: Watched) -> None:
    page = open_item(watched)
    page.locator(".t1-root").focus()
    for _ in range(3):
        page.keyboard.press("+")

    def part() -> list[float]:
        return [float(page.locator(".t1-root").get_attribute(f"data-view-{end}")) for end in ("start", "end")]

    assert part() == [0.0, 450.0]
    box = page.locator(".t1-map").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 8)
    assert part() == [pytest.approx(1575, abs=5), pytest.approx(2025, abs=5)]
    end = page.locator('[data-map="end"]').bounding_box()
    page.mouse.move(end["x"] + 2, end["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"], end["y"] + 8, steps=3)
    page.mouse.up()
    assert part() == [pytest.approx(1575, abs=5), pytest.approx(3600, abs=12)]


def test_a_set_of_segments_is_drawn_and_scored_as_one_answer(watched: Watched) -> None:
    style = {"colour": "#009e73", "pattern": "solid", "form": True, "reward": None, "error": None, "pieces": []}
    rows = [{"key": "grpo", "label": "grpo", "spans": [[0.0, 4.0], [3.0, 5.0], [10.0, 12.0]], **style}]
    page = open_item(watched, duration=20.0, truth=[[2.0, 6.0], [11.0, 13.0]], rows=rows)
    assert page.locator('[data-bar^="grpo:"]').count() == 3
    # covered: 0-5 and 10-12 are 7 s; truth 6 s; shared 3 + 1 = 4 s; union 9 s
    assert page.locator('[data-iou="grpo"]').inner_text() == f"{4 / 9:.3f}"
    assert page.evaluate("() => window.scripts.setIou([[0, 2]], [[1, 3]])") == pytest.approx(1 / 3)
    assert page.evaluate("() => window.scripts.setIou([], [])") == 0


def test_the_keys_help_is_readable_under_jupyterlabs_styles(watched: Watched) -> None:
    page = open_item(watched)
    page.locator(".t1-help summary").click()
    keys, said = page.locator(".t1-help dt").all(), page.locator(".t1-help dd").all()
    assert len(keys) == len(said) >= 15
    for key, text in zip(keys, said, strict=True):
        one, other = key.bounding_box(), text.bounding_box()
        assert one["x"] + one["width"] <= other["x"]
        assert abs(one["y"] - other["y"]) < 12
        assert other["width"] >= 100
    assert "got worse" not in page.locator(".t1-help dl").inner_text()  # no such way here


def test_edits_and_the_shown_part_go_to_the_kernel_for_an_svg(watched: Watched) -> None:
    page = open_item(watched)
    page.locator(".t1-root").focus()
    page.keyboard.press("0")
    page.keyboard.press("z")
    page.locator('[data-edge="truth:0:1"]').focus()
    page.keyboard.press("ArrowRight")
    page.locator('[data-keep="svg"]').click()
    asked = page.evaluate("() => window.model.sent.at(-1)")
    assert asked["type"] == "svg"
    assert asked["edits"] == {"truth:0": [1834.0, pytest.approx(1838.6)]}
    assert 1820 < asked["start"] < 1834 < asked["end"] < 1850
    assert json.dumps(asked)


def test_a_short_part_of_a_coarse_copy_is_asked_for_in_full(watched: Watched) -> None:
    page = open_item(watched)
    page.evaluate(
        """() => { const get = window.model.get; window.model.get = (key) => (key === "media" ? { key: "x", coarse: true, fine_below: 40, part: null } : get(key)); }"""
    )
    page.locator(".t1-root").focus()
    page.keyboard.press("+")
    page.wait_for_timeout(400)
    assert [m["type"] for m in page.evaluate("() => window.model.sent")] == ["ready"]
    page.keyboard.press("0")
    page.keyboard.press("z")
    page.wait_for_timeout(400)
    asked = page.evaluate("() => window.model.sent.at(-1)")
    assert (asked["type"], asked["key"]) == ("look", "x")
    assert asked["start"] < 1834 < asked["end"] < asked["start"] + 40
