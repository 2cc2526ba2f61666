"""Table, scatter and scrubber as one: choose anywhere, and everything follows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import ipywidgets

from timer1lib.data.notes import Note
from timer1lib.errors import Timer1Error
from timer1lib.runfolder import RunFolder
from timer1lib.view.items import Item
from timer1lib.view.scatter import rollout_scatter, sample_scatter
from timer1lib.view.scrubber import SegmentScrubber, static_strip
from timer1lib.view.static_view import item_html
from timer1lib.view.table import SampleTable


class Inspector(ipywidgets.VBox):  # type: ignore[misc]
    """The view of 06_inspect.

    Args:
        items: what to look at, from `load_items` or `load_rollouts`.
        compare: two checkpoints whose difference is sorted and drawn; the first and the last where not given.
        static_samples: how many are drawn where there is no kernel.
    """

    def __init__(
        self,
        run: RunFolder,
        items: Sequence[Item],
        cache: Path,
        reward: str = "tiou",
        compare: tuple[str, str] | None = None,
        max_bytes: int = 12_000_000,
        mode: Literal["checkpoints", "rollouts"] = "checkpoints",
        static_samples: int = 6,
    ) -> None:
        if not items:
            raise Timer1Error(f"{run.root}: nothing to look at")
        self.items = list(items)
        self.static_samples = static_samples
        self._keys = [item.key for item in self.items]
        self._labels = [row.label for row in self.items[0].rows]
        ends = compare if compare and set(compare) <= set(self._labels) else (self._labels[0], self._labels[-1])
        self.scrubber = SegmentScrubber(run, self.items, cache, reward, max_bytes)
        self.table = SampleTable(self.items, self.scrubber.notes, mode, ends)
        self.scatter = sample_scatter(self.items, ends) if mode == "checkpoints" else rollout_scatter(self.items)
        self._following = False
        self.table.observe(lambda change: self.select(change["new"]), "selected")
        self.scatter.observe(lambda change: self.select(change["new"]), "selected")
        self.table.observe(lambda change: self._filtered(change["new"]), "visible")
        self.scrubber.on_select.append(lambda item: self.select(item.key))
        self.scrubber.on_note.append(self._noted)
        super().__init__([self.table, self.scrubber, self.scatter])

    def select(self, key: str) -> None:
        """Choose an item everywhere: table, scatter and scrubber."""
        if self._following:
            return
        self._following = True
        try:
            if self.scrubber.shown is None or self.scrubber.shown.key != key:
                self.scrubber.select(key)
            self.table.selected = key
            self.scatter.selected = key
        finally:
            self._following = False

    def _filtered(self, keys: list[str]) -> None:
        self.scrubber.set_order(keys)
        self.scatter.visible = keys

    def _noted(self, item: Item, note: Note | None) -> None:
        self.table.set_note(item.sample.id, note)

    def static_html(self) -> str:
        """Items as HTML without a script: the chosen one, then the first of the order shown; the rest is counted."""
        chosen = [self.scrubber.shown.key] if self.scrubber.shown else []
        keys = list(dict.fromkeys([*chosen, *self.scrubber.order]))[: self.static_samples]
        shown = [self.items[self._keys.index(key)] for key in keys]
        scrubber = self.scrubber
        parts = [item_html(item, static_strip(scrubber.run, item, scrubber.cache, scrubber.max_bytes)) for item in shown]
        more = len(self.items) - len(shown)
        tail = f"<p><em>{more} more samples: open the notebook in JupyterLab to scrub through them.</em></p>" if more else ""
        return f"<div>{''.join(parts)}{tail}</div>"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return {**super()._repr_mimebundle_(**kwargs), "text/html": self.static_html()}
