"""The scrubber from Python: what it sends, what it answers, and what is left of it without a kernel."""

from __future__ import annotations

import array
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from view_run import make_run, spoiled

from timer1lib import ideas
from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, atomic_write_jsonl
from timer1lib.params.sections import InspectParams, SharedParams
from timer1lib.runfolder import RunFolder
from timer1lib.spans import iou
from timer1lib.stages import Stage, inspect
from timer1lib.view.inspector import Inspector
from timer1lib.view.items import load_items, load_rollouts, trained_with
from timer1lib.view.scrubber import SegmentScrubber
from timer1lib.view.static_view import LEFT, RIGHT, WIDTH, timeline_svg


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("run"), samples=9, videos=3)


@pytest.fixture
def scrubber(run: RunFolder, tmp_path: Path) -> SegmentScrubber:
    run.notes.unlink(missing_ok=True)
    return SegmentScrubber(run, load_items(run), run.root / "cache")


@pytest.fixture(scope="module")
def bad_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return spoiled(make_run(tmp_path_factory.mktemp("bad"), samples=10, videos=5))


def tell(scrubber: SegmentScrubber, **content: Any) -> None:
    scrubber._handle_custom_msg(content, [])


def test_nothing_is_encoded_before_somebody_looks(scrubber: SegmentScrubber) -> None:
    assert scrubber.media == {}
    tell(scrubber, type="ready")
    scrubber.wait()
    frames = array.array("d", scrubber.frames)
    assert scrubber.media["key"] == scrubber.item["key"] == "test_id/s000"
    assert len(frames) == scrubber.media["frames"] == round(scrubber.item["duration"] * 10)
    assert frames[7] == pytest.approx(0.7, abs=1e-4)
    assert scrubber.video[4:8] == b"ftyp"
    assert scrubber.thumbs[:2] == b"\xff\xd8"


def test_next_and_previous_walk_the_order_and_stop_at_its_ends(scrubber: SegmentScrubber) -> None:
    scrubber.set_order(["test_id/s004", "test_id/s000", "test_id/s002"])
    seen = []
    for delta in (1, 1, -1, -1, -1):
        tell(scrubber, type="move", delta=delta)
        seen.append(scrubber.item["id"])
    assert seen == ["s002", "s002", "s000", "s004", "s004"]
    assert (scrubber.item["index"], scrubber.item["count"]) == (0, 3)


def test_a_note_from_the_browser_is_saved(scrubber: SegmentScrubber, run: RunFolder) -> None:
    tell(scrubber, type="note", key="test_id/s000", label="ambiguous", text="two discs", window=None)
    assert run.notes.read_text() == '{"id": "s000", "label": "ambiguous", "text": "two discs", "window": null}\n'
    assert scrubber.item["note"] == {"id": "s000", "label": "ambiguous", "text": "two discs", "window": None}
    tell(scrubber, type="note", key="test_id/s000", label="wrong_label", text="shots 7-9", window=[1.5, 2.5])
    assert run.notes.read_text() == '{"id": "s000", "label": "wrong_label", "text": "shots 7-9", "window": [1.5, 2.5]}\n'
    tell(scrubber, type="note", key="test_id/s000", label="wrong_label", text="", window=[2.5])
    assert scrubber.saved["message"].startswith("not saved: ")
    assert "shots 7-9" in run.notes.read_text()
    assert "saved" in scrubber.saved["message"]
    tell(scrubber, type="note", key="another", label="note", text="late", window=None)  # about a sample no longer shown
    assert "late" not in run.notes.read_text()


def test_bad_videos_among_good_ones_are_said_and_their_timelines_stay(bad_run: RunFolder) -> None:
    """One is missing, one is damaged after its first frames (its index is whole), one is cut off, one names no video."""
    items = load_items(bad_run)
    items[6].sample.video = ""
    scrubber = SegmentScrubber(bad_run, items, bad_run.root / "cache")
    tell(scrubber, type="ready")
    said = {}
    for item in items:
        scrubber.select(item.key)
        scrubber.wait(30)
        assert scrubber.media["key"] == item.key
        assert scrubber.item["rows"]
        said[item.sample.video] = scrubber.media.get("error", "")
        html = scrubber.static_html()
        assert "<svg" in html
        assert ("data:image/jpeg" in html) is not ("error" in scrubber.media)
        assert scrubber.media.get("error", "") in html
    assert {video for video, error in said.items() if not error} == {"clip_0.mp4", "clip_4.mp4"}
    assert all(error.count("\n") == 0 and (video in error or not video) for video, error in said.items() if error)
    html = Inspector(bad_run, items, bad_run.root / "cache", static_samples=8).static_html()
    assert html.count("no pictures: ") == html.count("<svg") - html.count("data:image/jpeg") > 3


def test_a_short_part_of_a_long_video_comes_in_full_and_goes_again(scrubber: SegmentScrubber) -> None:
    tell(scrubber, type="ready")
    scrubber.wait()
    key, whole = scrubber.item["key"], scrubber.media["frames"]
    assert (scrubber.media["part"], scrubber.media["coarse"]) == (None, False)
    tell(scrubber, type="look", key=key, start=2.5, end=5.0)
    scrubber.wait()
    assert scrubber.media["part"] == [0.0, 10.0]  # from one multiple of ten seconds to another
    assert scrubber.media["frames"] == 100
    tell(scrubber, type="look", key=key, start=12.5, end=15.0)
    scrubber.wait()
    assert scrubber.media["part"] == [10.0, 16.0]
    assert array.array("d", scrubber.frames)[0] == 0.0  # times of the part: the page adds its start
    tell(scrubber, type="look", key=key)
    scrubber.wait()
    assert (scrubber.media["part"], scrubber.media["frames"]) == (None, whole)


def test_unknown_keys_and_rewards_are_refused(scrubber: SegmentScrubber, run: RunFolder) -> None:
    with pytest.raises(Timer1Error, match="no sample"):
        scrubber.select("nope")
    with pytest.raises(Timer1Error, match="unknown reward 'speed'"):
        SegmentScrubber(run, load_items(run), run.root / "cache", reward="speed")


def test_the_kernel_gives_the_values_that_javascript_does_not_know(run: RunFolder, tmp_path: Path) -> None:
    """A reward of one's own, at the segments that a person dragged, against the windows that he dragged."""
    (tmp_path / "r.py").write_text(
        "def start(x):\n"
        "    if x.span and x.span[0] > 50: raise ValueError('far')\n"
        "    return abs(x.span[0] - x.window[0]) if x.span else -1.0\n"
    )
    made = SegmentScrubber(run, load_items(run), run.root / "cache", reward=f"{tmp_path}/r.py:start:2.0")
    entry = made.shown
    assert entry is not None
    truth = entry.sample.window
    assert made.item["reward"] == "start"
    own = {row.key: 2 * abs(row.span[0] - truth[0]) if row.span else -2.0 for row in entry.rows}
    assert made.item["values"] == pytest.approx(own)
    sent: list[dict[str, object]] = []
    made.send = lambda content, buffers=None: sent.append(content)  # type: ignore[method-assign]
    key = entry.rows[0].key
    asked = {"type": "values", "key": entry.key, "spans": {key: [[1.0, 2.0]]}, "truth": [[4.0, 9.0]]}
    made._message(made, asked, [])
    moved = {row.key: 2 * abs(row.span[0] - 4.0) if row.span else -2.0 for row in entry.rows} | {key: 6.0}
    assert sent[0]["values"] == pytest.approx(moved)
    made._message(made, {**asked, "spans": {key: [[60.0, 61.0]]}}, [])
    assert "line 2: ValueError: far" in str(sent[1]["fails"])
    for nonsense in ({"spans": 3}, {"spans": {key: "ab"}}, {"truth": [[1]]}, {"key": "other"}):
        made._message(made, asked | nonsense, [])
    assert len(sent) == 2
    assert "values" not in SegmentScrubber(run, load_items(run), run.root / "cache").item


def test_06_shows_the_reward_that_the_run_was_trained_with(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert trained_with(run) == "tiou, format"
    run.root.mkdir()
    run.params.write_text("grpo: {rewards: 'ideas/edges.py:edge_iou:1.0, format:1.0'}\n")
    assert trained_with(run) == "ideas/edges.py:edge_iou:1.0, format:1.0"
    digest = ideas.identity("ideas/edges.py:edge_iou")
    inputs = {"rewards": [f"edge_iou:1.0 {digest}", "format:1.0", "gone:2.0 abc"]}
    atomic_write_json(run.stamp("04_grpo"), {"parts": {"inputs": inputs}})
    assert trained_with(run) == "ideas/edges.py:edge_iou:1.0, format:1.0"
    (run.root / "ideas").mkdir()
    (run.root / "ideas" / "gone.py").write_text("def gone(x): return 1.0\n")
    inputs["rewards"][2] = f"gone:2.0 {ideas.identity(str(run.root / 'ideas' / 'gone.py') + ':gone')}"
    atomic_write_json(run.stamp("04_grpo"), {"parts": {"inputs": inputs}})
    assert trained_with(run).endswith("format:1.0, " + str(run.root / "ideas" / "gone.py") + ":gone:2.0"), "a cell gave it"
    stage = Stage("inspect", run, SharedParams(), InspectParams())
    assert inspect.live_reward(stage) == "ideas/edges.py:edge_iou:1.0"
    assert inspect.live_reward(Stage("inspect", run, SharedParams(), InspectParams(reward="iou"))) == "iou"


def test_choosing_anywhere_moves_everything(run: RunFolder) -> None:
    view = Inspector(run, load_items(run), run.root / "cache")
    view.table.selected = "test_ood/s007"
    assert view.scrubber.item["id"] == "s007"
    assert view.scatter.selected == "test_ood/s007"
    view.scatter.selected = "test_id/s003"
    assert (view.table.selected, view.scrubber.item["id"]) == ("test_id/s003", "s003")
    view.table.visible = ["test_id/s001", "test_id/s003"]
    view.scrubber.move(-1)
    assert view.table.selected == "test_id/s001"
    view.scrubber.save("wrong_label", "x", (1.0, 2.0))
    assert [row["id"] for row in view.table.rows if row["note"] == "wrong_label"] == ["s001"]


def test_rollouts_stand_best_first_with_the_rewards_of_training(run: RunFolder) -> None:
    group = load_rollouts(run)[0]
    rewards = [row.reward for row in group.rows]
    assert rewards == sorted(rewards, reverse=True)
    assert len(rewards) == 8
    assert group.sample.query.endswith("crosses")  # found in train.jsonl by its id


def test_a_broken_rollouts_row_is_named(run: RunFolder, tmp_path: Path) -> None:
    broken = RunFolder(tmp_path)
    atomic_write_jsonl(broken.log("rollouts"), [{"step": 1, "id": "x", "gt": [0, 1], "rewards": [1.0], "spans": []}])
    with pytest.raises(Timer1Error, match="row 1"):
        load_rollouts(broken)
    with pytest.raises(Timer1Error, match="04_grpo"):
        load_rollouts(RunFolder(tmp_path / "nothing"))


def test_static_svg_has_every_bar_where_it_belongs(run: RunFolder) -> None:
    item = load_items(run)[1]
    item.sample.query = 'a <b>"quoted"</b> & odd query'
    svg = timeline_svg(item)
    root = ET.fromstring(svg)  # well-formed
    assert "<b>" not in svg
    wide = WIDTH - LEFT - RIGHT
    titled = [(node, node.find("{*}title")) for node in root.iter("{http://www.w3.org/2000/svg}rect")]
    bars = {str(title.text).split(":")[0]: node for node, title in titled if title is not None}
    for row in item.rows:
        if row.span is None:
            continue
        x, width = float(bars[row.label].get("x", "")), float(bars[row.label].get("width", ""))
        assert x == pytest.approx(LEFT + wide * max(0, row.span[0]) / item.duration, abs=0.06)
        assert x + width == pytest.approx(LEFT + wide * min(item.duration, row.span[1]) / item.duration, abs=2.6)
        assert f"IoU {iou(row.span, item.sample.window):.3f}" in svg


def test_without_a_kernel_the_widget_is_html_without_script_or_address(run: RunFolder) -> None:
    view = Inspector(run, load_items(run), run.root / "cache", static_samples=2)
    html = view._repr_mimebundle_()["text/html"]
    assert html.count("<svg") == 2
    assert "7 more samples" in html
    assert "<script" not in html
    assert not re.search(r'(?:src|href)="(?!data:)', html)


def test_every_item_has_a_row_for_every_checkpoint(tmp_path: Path) -> None:
    """A run that is still being evaluated: one checkpoint has not answered the second split."""
    run = make_run(tmp_path, samples=6, videos=1)
    run.predictions("grpo", "test_ood").unlink()
    items = load_items(run)
    assert {tuple(row.key for row in item.rows) for item in items} == {("base", "sft", "grpo")}
    assert [item.rows[2].error for item in items if item.split == "test_ood"] == ["not in the predictions"] * 2
    with pytest.raises(Timer1Error, match="test_ood"):
        load_items(run, checkpoints=["grpo"])
