"""The table of samples: filtered and sorted in the browser, one list that the scrubber follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import anywidget
import traitlets

from timer1lib.data.notes import Note
from timer1lib.view.items import Item, table_row

HERE = Path(__file__).parent


class SampleTable(anywidget.AnyWidget):
    """A row an item, with a small timeline.

    Traits:
        selected: key of the chosen item; set by a click, or from Python.
        visible: keys that pass the filters, in the order shown.
    """

    _esm = HERE / "table.js"
    _css = HERE / "table.css"
    rows: Any = traitlets.List().tag(sync=True)
    names: Any = traitlets.List().tag(sync=True)
    mode = traitlets.Unicode("checkpoints").tag(sync=True)
    compare: Any = traitlets.List().tag(sync=True)
    selected = traitlets.Unicode("").tag(sync=True)
    visible: Any = traitlets.List().tag(sync=True)

    def __init__(
        self,
        items: Sequence[Item],
        notes: Mapping[str, Note],
        mode: Literal["checkpoints", "rollouts"] = "checkpoints",
        compare: tuple[str, str] | None = None,
    ) -> None:
        names = [{"label": row.label, "colour": row.style.colour} for row in items[0].rows] if items else []
        labels = [name["label"] for name in names]
        ends = compare if compare and set(compare) <= set(labels) else (labels[0], labels[-1]) if labels else None
        super().__init__(
            rows=[table_row(item, notes.get(item.sample.id)) for item in items],
            names=names,
            mode=mode,
            compare=[labels.index(name) for name in ends] if ends else [0, 0],
            visible=[item.key for item in items],
            selected=items[0].key if items else "",
        )

    def set_note(self, sample_id: str, note: Note | None) -> None:
        """Show a note's mark on every row of that sample."""
        label = note.label if note else ""
        self.rows = [row | {"note": label} if row["id"] == sample_id else row for row in self.rows]
