"""The scrubber's view without a kernel: one SVG with thumbnails, truth, answers and named times, and the texts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from timer1lib.errors import Timer1Error
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Window
from timer1lib.view import templates
from timer1lib.view.items import THINKING_COLOUR, TRUTH_COLOUR, Item, Pattern, linked_text, named_ranges
from timer1lib.view.playable import pictures

WIDTH, LEFT, RIGHT = 960, 96, 118
WIDE = WIDTH - LEFT - RIGHT
STRIP_HEIGHT, LANE, GAP = 40, 20, 5
MAX_ROWS = 16
ANSWER_COLOUR = "#009e73"


def timeline_svg(item: Item, strip: str = "") -> Markup:
    """The timeline as SVG text. `strip` is an image address for the thumbnails, empty for none.

    Times run over `item.duration` seconds; what lies outside is cut at the border. Text has the page's colour.
    """
    rows = item.rows[:MAX_ROWS]
    thinking = [found for row in rows for found in named_ranges(row.completion) if found.kind == "thinking"][:40]
    top = STRIP_HEIGHT + 20 if strip else 18
    height = top + (1 + len(rows) + bool(thinking)) * (LANE + GAP) + 4
    truth, duration = item.sample.windows, item.duration
    lanes = [_lane("truth", top, TRUTH_COLOUR, "solid", truth, duration, _spans(truth))]
    for row in rows:
        overlap = f"IoU {item.iou(row):.3f}" + (f"  r {row.reward:.3f}" if row.reward is not None else "")
        spans, absent = ([row.span], "") if row.span else ([], row.error or "no answer")
        y = top + len(lanes) * (LANE + GAP)
        lanes.append(_lane(row.label, y, row.style.colour, row.style.pattern, spans, duration, overlap, absent))
    if thinking:
        y = top + len(lanes) * (LANE + GAP)
        named = [(found.start, found.end) for found in thinking]
        lanes.append(_lane("named in text", y, THINKING_COLOUR, "solid", named, duration, opacity=0.35))
    said = "; ".join(f"{row.label} {_span(row.span)}" for row in rows)
    label = f"{item.sample.query}: truth {_spans(truth)}; {said}"
    box = {"width": WIDTH, "height": height, "left": LEFT, "right": WIDTH - RIGHT, "wide": WIDE, "lane": LANE}
    box |= {"strip": STRIP_HEIGHT, "axis": top - 4}
    patterns = sorted({row.style.pattern for row in rows if row.style.pattern != "solid"})
    return Markup(_macros().timeline(label, strip, box, patterns, _marks(duration), lanes))


def item_html(item: Item, strip: str = "", texts: bool = True, without: str = "") -> Markup:
    """Query, timeline and completions of an item as HTML, no script; `without` says why there are no pictures."""
    sample = item.sample
    facts = " · ".join(text for text in (item.split, sample.type, sample.source, sample.id, *item.tags) if text)
    written = [
        {"label": row.label, "colour": row.style.colour, "pieces": _pieces(row.completion[:2000])}
        for row in item.rows[:MAX_ROWS]
        if texts and row.completion
    ]
    return Markup(_macros().item(sample.query, facts, without, timeline_svg(item, strip), written, f"{LEFT / WIDTH:.1%}"))


def static_item(run: RunFolder, entry: Item, cache: Path, max_bytes: int = 12_000_000) -> Markup:
    """An item as HTML with thumbnails; one line says why where its video cannot be shown."""
    try:
        _, picture = pictures(run, entry.sample, cache, entry.duration, max_bytes)
    except Timer1Error as error:
        return item_html(entry, without=str(error))
    return item_html(entry, "data:image/jpeg;base64," + base64.b64encode(picture.jpeg).decode())


def items_html(items: Sequence[Markup], more: int) -> str:
    """Several items, and how many more there are."""
    return str(_macros().items(items, more))


def _macros() -> Any:
    return templates().get_template("item.html").module


def _pieces(text: str) -> list[tuple[str, str]]:
    """The text in pieces, each with the colour that it is underlined in, "" for none."""
    colours = {"thinking": THINKING_COLOUR, "answer": ANSWER_COLOUR}
    return [(str(piece["text"]), colours[str(piece["kind"])] if "start" in piece else "") for piece in linked_text(text)]


def _x(time: float, duration: float) -> float:
    return LEFT + WIDE * min(1.0, max(0.0, time / duration))


def _lane(
    label: str,
    y: int,
    colour: str,
    pattern: Pattern,
    spans: Sequence[Window],
    duration: float,
    value: str = "",
    absent: str = "",
    opacity: float = 1.0,
) -> dict[str, Any]:
    """One row of the timeline: `spans` as bars `y` pixels down, `value` at the right, `absent` where there is no bar."""
    bars = []
    for start, end in spans:
        left, right = sorted((_x(start, duration), _x(end, duration)))
        faint = opacity if end > start else 0.4
        bars.append({"x": f"{left:.1f}", "width": f"{max(2.5, right - left):.1f}", "opacity": faint, "said": _span((start, end))})
    short = label if len(label) <= 15 else label[:14] + "…"
    names = {"label": label, "short": short, "value": value, "absent": absent[:90]}
    return {**names, "y": y, "colour": colour, "pattern": pattern, "bars": bars}


def _marks(duration: float) -> list[dict[str, str]]:
    """Times named along the axis, eleven at most."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
    step = next((s for s in steps if duration / s <= 11), duration / 8)
    return [
        {"x": f"{_x(i * step, duration):.1f}", "text": f"{i * step:.{1 if step < 1 else 0}f}{' s' if i == 0 else ''}"}
        for i in range(int(duration / step + 1e-9) + 1)
    ]


def _span(span: Window | None) -> str:
    return f"{span[0]:.2f}–{span[1]:.2f} s" if span else "no answer"


def _spans(windows: Sequence[Window]) -> str:
    return _span(windows[0]) if len(windows) == 1 else f"{len(windows)} windows"
