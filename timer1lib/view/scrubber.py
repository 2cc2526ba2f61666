"""The segment scrubber: scrub through a video over what the truth, the checkpoints and the thinking say."""

from __future__ import annotations

import array
import base64
import contextlib
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from timer1lib.data.notes import LABELS, Note, notes_by_sample, save_note
from timer1lib.errors import Timer1Error
from timer1lib.forms import FORMS, AnswerForm
from timer1lib.rewards import Moved, RewardInput, parse_rewards
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Window
from timer1lib.view.aside import HERE, Aside, script
from timer1lib.view.items import Item, payload
from timer1lib.view.playable import pictures, segment
from timer1lib.view.static_view import static_item, timeline_svg

KEPT_IN_MEMORY = 8
IN_JAVASCRIPT = ("tiou", "iou", "tiou_centered", "format", "tvg_r1")
"""Rewards that `scrubber.js` computes itself."""
FINE_BELOW, PART = 40.0, 10.0
"""Seconds: a shorter part of a long video gets a copy with all its frames, from one multiple of the second to another."""
MOVED = 0.1
"""A change of IoU beyond it counts as one."""


class SegmentScrubber(anywidget.AnyWidget):
    """Shows one of `items` at a time; with a kernel as a widget, without one as a static picture.

    Its keys stand in `KEYS` of scrubber.js and under "keys" in the widget.

    Args:
        run: the run whose videos are shown and to which notes are saved.
        cache: folder for browser-playable copies.
        reward: the reward shown live, as `grpo.rewards` says it. What JavaScript does not know the kernel computes.
        max_bytes: largest video handed to the browser.
        form: how the rows' completions are read, for rewards that the kernel computes.
    """

    _esm = script("dom", "timeline", "history", "scrubber")
    _css = HERE / "scrubber.css"
    item = traitlets.Dict().tag(sync=True)
    media = traitlets.Dict().tag(sync=True)
    video = traitlets.Bytes().tag(sync=True)
    frames = traitlets.Bytes().tag(sync=True)
    thumbs = traitlets.Bytes().tag(sync=True)
    saved = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        run: RunFolder,
        items: Sequence[Item],
        cache: Path,
        reward: str = "tiou",
        max_bytes: int = 12_000_000,
        form: AnswerForm = FORMS["timer1"],
    ) -> None:
        super().__init__()
        self._rewards = parse_rewards(reward)
        self._form = form
        self.reward = next(iter(self._rewards)) if len(self._rewards) == 1 else " + ".join(self._rewards)
        self.run, self.items, self.cache, self.max_bytes = run, list(items), cache, max_bytes
        self.notes = notes_by_sample(run.notes)
        self.on_note: list[Callable[[Item, Note | None], None]] = []
        self.on_select: list[Callable[[Item], None]] = []
        self.order: list[str] = [entry.key for entry in self.items]
        self._by_key = {entry.key: entry for entry in self.items}
        self.shown: Item | None = None
        self.pair: tuple[int, int] = (0, -1)
        self._watched = False
        self._aside = Aside("scrubber")
        self._job: Future[tuple[Item, Window | None, dict[str, Any]]] | None = None
        self._kept: OrderedDict[tuple[str, Window | None], dict[str, Any]] = OrderedDict()
        self.on_msg(self._message)
        if self.items:
            self.select(self.items[0].key)

    def select(self, key: str) -> None:
        """Show the item of that key: its timeline at once, its video once a copy is there; Timer1Error if no such item."""
        if key not in self._by_key:
            raise Timer1Error(f"no sample {key!r} among the {len(self.items)} shown")
        entry = self._by_key[key]
        self.shown = entry
        self.item = payload(entry, self.notes.get(entry.sample.id), self.reward) | self._place() | self.values(entry, {})
        if self._watched:
            self._fetch(entry)
        for callback in self.on_select:
            callback(entry)

    def values(
        self, entry: Item, spans: Mapping[str, Sequence[Window]], windows: Sequence[Window] | None = None
    ) -> dict[str, dict[str, float] | str]:
        """What the reward gives each row, {"values": {row: number}}, where JavaScript cannot say it; {"fails": why} where it
        raises. `spans` (seconds) were dragged, and so may `windows`, the true ones, have been. Of several segments the best
        counts.
        """
        if self.reward in IN_JAVASCRIPT:
            return {}
        found = {}
        for row in entry.rows:
            x = RewardInput.of(row.completion, entry.sample, self._form)
            true = x.windows if windows is None else tuple(windows)
            listed: Sequence[Window | None] = spans.get(row.key, row.spans) or [None]
            moved = [Moved.from_input(x, span, true) for span in listed]
            try:
                found[row.key] = max(sum(weight * reward(one) for reward, weight in self._rewards.values()) for one in moved)
            except Timer1Error as error:
                return {"fails": str(error)}
        return {"values": found}

    def _answer(self, content: Mapping[str, Any]) -> None:
        """Send the values for edges that a person has dragged; a message that makes no sense is not answered."""
        if self.shown is None or content.get("key") != self.shown.key:
            return
        with contextlib.suppress(TypeError, ValueError, AttributeError):
            spans = {str(key): _windows(listed) for key, listed in content["spans"].items()}
            self.send({"type": "values", "key": self.shown.key} | self.values(self.shown, spans, _windows(content["truth"])))

    def move(self, delta: int, how: str = "next") -> None:
        """Next (1) or previous (-1) item in `order`; stops at the ends.

        `how`: "worst" goes by the IoU of the second of the `pair` of rows that are compared, lowest first; "changed" to the next
        whose IoU moved by more than `MOVED` between the two, "worse" to the next whose IoU fell by more.
        """
        if self.shown is None or not self.order:
            return
        if how != "next":
            found = self._next(1 if delta > 0 else -1, how)
            if found is None:
                self.send(
                    {
                        "type": "said",
                        "text": {"worst": "no other sample", "changed": "no further sample that changed"}.get(
                            how, "no further sample that got worse"
                        ),
                    }
                )
            else:
                self.select(found)
            return
        here = self.order.index(self.shown.key) if self.shown.key in self.order else -delta if delta > 0 else 0
        there = min(len(self.order) - 1, max(0, here + delta))
        self.select(self.order[there])

    def _next(self, way: int, how: str) -> str | None:
        assert self.shown is not None
        first, second = self.pair
        values = {key: self._by_key[key].iou(self._by_key[key].rows[second]) for key in (*self.order, self.shown.key)}
        if how == "worst":
            place = {key: i for i, key in enumerate(self.order)}
            queue = sorted(values, key=lambda key: (values[key], place.get(key, -1)))
            there = queue.index(self.shown.key) + way
            return queue[there] if 0 <= there < len(queue) else None
        here = self.order.index(self.shown.key) if self.shown.key in self.order else -1 if way > 0 else len(self.order)
        for key in self.order[here + 1 :] if way > 0 else reversed(self.order[: max(0, here)]):
            change = values[key] - self._by_key[key].iou(self._by_key[key].rows[first])
            if change < -MOVED or (how == "changed" and change > MOVED):
                return key
        return None

    def set_order(self, keys: Sequence[str]) -> None:
        """What n and p walk through: the rows that the table shows, in its order."""
        self.order = [key for key in keys if key in self._by_key]
        if self.shown is not None:
            self.item = self.item | self._place()

    def _place(self) -> dict[str, int]:
        key = self.shown.key if self.shown else ""
        return {"index": self.order.index(key) if key in self.order else 0, "count": max(1, len(self.order))}

    def save(self, label: str, text: str = "", window: Sequence[float] | None = None) -> None:
        """Save a note on the sample shown, with the window that it proposes; an empty one takes the old one away."""
        if self.shown is None:
            return
        entry = self.shown
        try:
            self.notes = save_note(self.run.notes, entry.sample.id, label, text, window)
        except (Timer1Error, OSError) as error:
            self.saved = {"key": entry.key, "message": f"not saved: {error}"}
            return
        note = self.notes.get(entry.sample.id)
        self.item = self.item | {"note": note.to_json() if note else None}
        message = f"saved to {self.run.notes.name}" if note else "note taken away"
        if note and note.label in ("wrong_label", "ambiguous") and entry.step is None and not entry.split.startswith("train"):
            message += "; a test set: listed, and changed only with curate.repair_test"
        self.saved = {"key": entry.key, "message": message, "n": len(self.notes)}
        for callback in self.on_note:
            callback(entry, note)

    def wait(self, timeout: float = 60.0) -> None:
        """Until the video asked for last is here (seconds); for scripts, in which no loop runs that would bring it."""
        if self._job is not None:
            self._hand_over(self._job.result(timeout))

    def _message(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        kind = content.get("type")
        if kind == "ready":
            self._watched = True
            if self.shown is not None and self.media.get("key") != self.shown.key:
                self._fetch(self.shown)
        elif kind == "move":
            self.move(1 if content.get("delta", 1) > 0 else -1, str(content.get("how", "next")))
        elif kind == "values":
            self._answer(content)
        elif kind == "select" and content.get("key") in self._by_key:
            self.select(content["key"])
        elif kind == "note" and self.shown is not None and content.get("key") == self.shown.key:
            label = content.get("label")
            self.save(label if label in LABELS else "", str(content.get("text", ""))[:4000], content.get("window"))
        elif self.shown is not None and content.get("key") == self.shown.key:
            self._asked(self.shown, str(kind), content)

    def _asked(self, entry: Item, kind: str, content: dict[str, Any]) -> None:
        """For pictures of a part, or for a file."""
        start, end = content.get("start"), content.get("end")
        name = re.sub(r"[^\w.-]+", "-", entry.sample.id)
        if kind == "look":
            self._look(entry, start, end)
        elif kind == "svg" and start is not None and end is not None:
            self._file(f"{name}.svg", "image/svg+xml", lambda: self._svg(entry, content.get("edits", {}), start, end).encode())
        elif kind == "clip" and start is not None and end is not None:
            row = re.sub(r"[^\w.-]+", "-", str(content.get("row", "")))
            run = entry.run or self.run

            def cut() -> bytes:
                if not 0 <= start < end or start >= entry.duration:
                    raise Timer1Error(f"no segment from {start:.2f} to {end:.2f} s in {entry.duration:.2f} s of video")
                return segment(run, entry.sample, self.cache, float(start), float(end), self.max_bytes).content

            self._file(f"{name}-{row}-{start:.2f}-{end:.2f}.mp4", "video/mp4", cut)

    def _fetch(self, entry: Item, part: Window | None = None) -> None:
        if self._job is not None:
            self._job.cancel()
        name = (entry.key, part)
        self._job = self._aside.do(lambda: (entry, part, self._kept.get(name) or self._prepare(entry, part)), self._hand_over)

    def _hand_over(self, made: tuple[Item, Window | None, dict[str, Any]]) -> None:
        entry, part, ready = made
        self._kept[entry.key, part] = ready
        self._kept.move_to_end((entry.key, part))
        while len(self._kept) > KEPT_IN_MEMORY:
            self._kept.popitem(last=False)
        if self.shown is not entry:
            return
        with self.hold_sync():
            self.video, self.frames, self.thumbs = ready["video"], ready["frames"], ready["thumbs"]
            self.media = ready["media"]

    def _prepare(self, entry: Item, part: Window | None) -> dict[str, Any]:
        run = entry.run or self.run
        try:
            copy, picture = pictures(run, entry.sample, self.cache, entry.duration, self.max_bytes)
            fine = segment(run, entry.sample, self.cache, *part, self.max_bytes) if part else copy
        except Timer1Error as error:
            return {"video": b"", "frames": b"", "thumbs": b"", "media": {"key": entry.key, "error": str(error)}}
        facts = {"key": entry.key, "mime": fine.mime, "width": fine.width, "height": fine.height, "duration": fine.duration}
        facts |= {"thumbs": picture.count, "strip": [picture.width, picture.height], "frames": len(fine.frames)}
        facts |= {"coarse": copy.coarse, "fine_below": FINE_BELOW, "part": list(part) if part else None}
        return {"video": fine.content, "frames": array.array("d", fine.frames).tobytes(), "thumbs": picture.jpeg, "media": facts}

    def _look(self, entry: Item, start: Any, end: Any) -> None:
        """The browser shows a short part of a long video, or (without numbers) the whole again."""
        if not isinstance(start, int | float) or not isinstance(end, int | float) or not 0 <= end - start <= 2 * FINE_BELOW:
            return self._fetch(entry)
        first = max(0.0, PART * math.floor(start / PART))
        self._fetch(entry, (first, min(entry.duration, PART * math.ceil(end / PART))))

    def _svg(self, entry: Item, edits: Mapping[str, Any], start: float, end: float) -> str:
        """The timeline as it is on the screen, its thumbnails inside."""
        sample = replace(entry.sample, windows=_edited("truth", entry.sample.windows, edits))
        rows = [replace(row, span=next(iter(_edited(row.key, row.spans, edits)), None)) for row in entry.rows]
        strip = ""
        with contextlib.suppress(Timer1Error):
            _, picture = pictures(entry.run or self.run, sample, self.cache, entry.duration, self.max_bytes)
            strip = "data:image/jpeg;base64," + base64.b64encode(picture.jpeg).decode()
        shown = (max(0.0, start), min(entry.duration, end))
        return timeline_svg(replace(entry, sample=sample, rows=rows), strip, shown if shown[1] > shown[0] else None)

    def _file(self, name: str, mime: str, make: Callable[[], bytes]) -> None:
        """Make a file beside the thread that answers clicks; the browser keeps it."""

        def made() -> bytes | str:
            try:
                return make()
            except (Timer1Error, ValueError, TypeError) as error:
                return f"not saved: {error}"

        def hand(content: bytes | str) -> None:
            if isinstance(content, str):
                self.send({"type": "said", "text": content})
            else:
                self.send({"type": "file", "name": name, "mime": mime}, buffers=[content])

        self._aside.do(made, hand)

    def static_html(self) -> str:
        """The item shown, as HTML that needs neither a kernel nor a script."""
        shown = self.shown
        return static_item(shown.run or self.run, shown, self.cache, self.max_bytes) if shown else "<p>no sample</p>"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        return {**data, "text/html": self.static_html()}, metadata


def _edited(key: str, spans: Sequence[Window], edits: Mapping[str, Any]) -> list[Window]:
    """Spans of a row with the edges that were dragged in the browser: {row:number: [start, end]}."""
    found = [edits.get(f"{key}:{i}", span) for i, span in enumerate(spans)]
    return [(float(start), float(end)) for start, end in found]


def _windows(listed: Any) -> list[Window]:
    return [(float(start), float(end)) for start, end in listed]
