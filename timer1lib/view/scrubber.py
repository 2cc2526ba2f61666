"""The segment scrubber: scrub through a video over what the truth, the checkpoints and the thinking say."""

from __future__ import annotations

import array
import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from timer1lib.data.notes import LABELS, Note, notes_by_sample, save_note
from timer1lib.errors import Timer1Error
from timer1lib.runfolder import RunFolder
from timer1lib.view.items import Item, payload
from timer1lib.view.playable import pictures
from timer1lib.view.static_view import static_item

HERE = Path(__file__).parent
KEPT_IN_MEMORY = 8


class SegmentScrubber(anywidget.AnyWidget):
    """Shows one of `items` at a time; with a kernel as a widget, without one as a static picture.

    Keys: space plays, left and right step by frames, n and p change the sample, s and e jump to the chosen row's
    start and end, a digit chooses a row, r undoes edits.

    Args:
        run: the run whose videos are shown and to which notes are saved.
        cache: folder for browser-playable copies.
        reward: the reward shown live: a name in `timer1lib.rewards` (all but `grounded_qa`).
        max_bytes: largest video handed to the browser.
    """

    _esm = HERE / "scrubber.js"
    _css = HERE / "scrubber.css"
    item = traitlets.Dict().tag(sync=True)
    media = traitlets.Dict().tag(sync=True)
    video = traitlets.Bytes().tag(sync=True)
    frames = traitlets.Bytes().tag(sync=True)
    thumbs = traitlets.Bytes().tag(sync=True)
    saved = traitlets.Dict().tag(sync=True)

    def __init__(
        self, run: RunFolder, items: Sequence[Item], cache: Path, reward: str = "tiou", max_bytes: int = 12_000_000
    ) -> None:
        super().__init__()
        if reward not in ("tiou", "iou", "tiou_centered", "format", "tvg_r1"):
            raise Timer1Error(f"reward {reward!r} cannot be shown live; one of tiou, iou, tiou_centered, format, tvg_r1")
        self.run, self.items, self.cache, self.reward, self.max_bytes = run, list(items), cache, reward, max_bytes
        self.notes = notes_by_sample(run.notes)
        self.on_note: list[Callable[[Item, Note | None], None]] = []
        self.on_select: list[Callable[[Item], None]] = []
        self.order: list[str] = [entry.key for entry in self.items]
        self._by_key = {entry.key: entry for entry in self.items}
        self.shown: Item | None = None
        self._watched = False
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="scrubber")
        self._job: Future[tuple[Item, dict[str, Any]]] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._kept: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.on_msg(self._message)
        if self.items:
            self.select(self.items[0].key)

    def select(self, key: str) -> None:
        """Show the item of that key: its timeline at once, its video once a copy is there; Timer1Error if no such item."""
        if key not in self._by_key:
            raise Timer1Error(f"no sample {key!r} among the {len(self.items)} shown")
        entry = self._by_key[key]
        self.shown = entry
        self.item = payload(entry, self.notes.get(entry.sample.id), self.reward) | self._place()
        if self._watched:
            self._fetch(entry)
        for callback in self.on_select:
            callback(entry)

    def move(self, delta: int) -> None:
        """Next (1) or previous (-1) item in `order`; stops at the ends."""
        if self.shown is None or not self.order:
            return
        here = self.order.index(self.shown.key) if self.shown.key in self.order else -delta if delta > 0 else 0
        there = min(len(self.order) - 1, max(0, here + delta))
        self.select(self.order[there])

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
        self.saved = {"key": entry.key, "message": message, "n": len(self.notes)}
        for callback in self.on_note:
            callback(entry, note)

    def wait(self, timeout: float = 60.0) -> None:
        """Until the video asked for last is here (seconds); for scripts, in which no loop runs that would bring it."""
        if self._job is not None:
            entry, ready = self._job.result(timeout)
            self._hand_over(entry, ready)

    def _message(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        kind = content.get("type")
        if kind == "ready":
            self._watched = True
            if self.shown is not None and self.media.get("key") != self.shown.key:
                self._fetch(self.shown)
        elif kind == "move":
            self.move(1 if content.get("delta", 1) > 0 else -1)
        elif kind == "note" and self.shown is not None and content.get("key") == self.shown.key:
            label = content.get("label")
            self.save(label if label in LABELS else "", str(content.get("text", ""))[:4000], content.get("window"))

    def _fetch(self, entry: Item) -> None:
        if self._job is not None:
            self._job.cancel()
        with contextlib.suppress(RuntimeError):  # no loop: a script, not a kernel
            self._loop = asyncio.get_running_loop()
        self._job = self._worker.submit(self._deliver, entry)

    def _deliver(self, entry: Item) -> tuple[Item, dict[str, Any]]:
        """Decode beside the thread that answers clicks, then hand over in that thread.

        A widget's state is not made for two threads: a change of `item` while another thread holds the sync is lost.
        """
        ready = self._kept.get(entry.key) or self._prepare(entry)
        loop = self._loop
        if loop is None or loop.is_closed():
            self._hand_over(entry, ready)
        else:
            loop.call_soon_threadsafe(self._hand_over, entry, ready)
        return entry, ready

    def _hand_over(self, entry: Item, ready: dict[str, Any]) -> None:
        self._kept[entry.key] = ready
        self._kept.move_to_end(entry.key)
        while len(self._kept) > KEPT_IN_MEMORY:
            self._kept.popitem(last=False)
        if self.shown is not entry:
            return
        with self.hold_sync():
            self.video, self.frames, self.thumbs = ready["video"], ready["frames"], ready["thumbs"]
            self.media = ready["media"]

    def _prepare(self, entry: Item) -> dict[str, Any]:
        try:
            copy, picture = pictures(self.run, entry.sample, self.cache, entry.duration, self.max_bytes)
        except Timer1Error as error:
            return {"video": b"", "frames": b"", "thumbs": b"", "media": {"key": entry.key, "error": str(error)}}
        facts = {"key": entry.key, "mime": copy.mime, "width": copy.width, "height": copy.height, "duration": copy.duration}
        facts |= {"thumbs": picture.count, "strip": [picture.width, picture.height], "frames": len(copy.frames)}
        return {"video": copy.content, "frames": array.array("d", copy.frames).tobytes(), "thumbs": picture.jpeg, "media": facts}

    def static_html(self) -> str:
        """The item shown, as HTML that needs neither a kernel nor a script."""
        return static_item(self.run, self.shown, self.cache, self.max_bytes) if self.shown else "<p>no sample</p>"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        return {**data, "text/html": self.static_html()}, metadata
