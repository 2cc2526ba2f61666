"""The scrubber's view without a kernel: one SVG with thumbnails, truth, answers and named times, and the texts."""

from __future__ import annotations

import base64
import math
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
LONG = 120
"""Seconds from which on times are written as on a clock."""
ANSWER_COLOUR = "#009e73"


def timeline_svg(item: Item, strip: str = "", shown: Window | None = None) -> Markup:
    """The timeline as SVG text. `strip` is an image address for the thumbnails, empty for none.

    Times run over `shown`, or over `item.duration` seconds; what lies outside is cut at the border. Text has the page's colour.
    """
    rows = item.rows[:MAX_ROWS]
    thinking = [found for row in rows for found in named_ranges(row.completion) if found.kind == "thinking"][:40]
    top = STRIP_HEIGHT + 20 if strip else 18
    height = top + (1 + len(rows) + bool(thinking)) * (LANE + GAP) + 4
    truth, (first, last) = item.sample.windows, shown or (0.0, item.duration)
    part = (first, last)
    lanes = [_lane("truth", top, TRUTH_COLOUR, "solid", truth, part, _spans(truth))]
    for row in rows:
        overlap = f"IoU {item.iou(row):.3f}" + (f"  r {row.reward:.3f}" if row.reward is not None else "")
        spans, absent = row.spans, "" if row.spans else row.error or "no answer"
        y = top + len(lanes) * (LANE + GAP)
        lanes.append(_lane(row.label, y, row.style.colour, row.style.pattern, spans, part, overlap, absent))
    if thinking:
        y = top + len(lanes) * (LANE + GAP)
        named = [(found.start, found.end) for found in thinking]
        lanes.append(_lane("named in text", y, THINKING_COLOUR, "solid", named, part, opacity=0.35))
    said = "; ".join(f"{row.label} {_span(row.span)}" for row in rows)
    label = f"{item.sample.query}: truth {_spans(truth)}; {said}"
    box: dict[str, float] = {"width": WIDTH, "height": height, "left": LEFT, "right": WIDTH - RIGHT, "wide": WIDE, "lane": LANE}
    box |= {"strip": STRIP_HEIGHT, "axis": top - 4}
    scale = WIDE / (last - first)
    box |= {"strip_x": round(LEFT - scale * first, 1), "strip_wide": round(scale * item.duration, 1)}
    patterns = sorted({row.style.pattern for row in rows if row.style.pattern != "solid"})
    return Markup(_macros().timeline(label, strip, box, patterns, _marks(part, item.duration), lanes))


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


def _x(time: float, part: Window) -> float:
    return LEFT + WIDE * min(1.0, max(0.0, (time - part[0]) / (part[1] - part[0])))


def _lane(
    label: str,
    y: int,
    colour: str,
    pattern: Pattern,
    spans: Sequence[Window],
    part: Window,
    value: str = "",
    absent: str = "",
    opacity: float = 1.0,
) -> dict[str, Any]:
    """One row of the timeline: `spans` as bars `y` pixels down, `value` at the right, `absent` where there is no bar."""
    bars = []
    for start, end in spans:
        if max(start, end) < part[0] or min(start, end) > part[1]:
            continue
        left, right = sorted((_x(start, part), _x(end, part)))
        faint = opacity if end > start else 0.4
        bars.append({"x": f"{left:.1f}", "width": f"{max(2.5, right - left):.1f}", "opacity": faint, "said": _span((start, end))})
    short = label if len(label) <= 15 else label[:14] + "…"
    names = {"label": label, "short": short, "value": value, "absent": absent[:90]}
    return {**names, "y": y, "colour": colour, "pattern": pattern, "bars": bars}


def _marks(part: Window, duration: float) -> list[dict[str, str]]:
    """Times named along the axis, eleven at most: in seconds, or as on a clock from two minutes on."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200)
    length = part[1] - part[0]
    step = next((s for s in steps if length / s <= 11), length / 8)
    first, last = math.ceil(part[0] / step - 1e-9), math.floor(part[1] / step + 1e-9)
    return [{"x": f"{_x(i * step, part):.1f}", "text": clock_text(i * step, duration, step)} for i in range(first, last + 1)]


def clock_text(time: float, duration: float, step: float = 1.0) -> str:
    """A time within `duration` seconds as the scrubber writes it: 7, 12:07, 1:02:07; with a digit where steps are shorter."""
    digits = 1 if step < 1 else 0
    if duration < LONG:
        return f"{time:.{digits}f}{' s' if time == 0 else ''}"
    minutes, seconds = divmod(round(time, digits), 60)
    hours, minutes = divmod(int(minutes), 60)
    rest = f"{seconds:0{3 + digits if digits else 2}.{digits}f}"
    return f"{hours}:{minutes:02d}:{rest}" if duration >= 3600 else f"{minutes:02d}:{rest}"


def _span(span: Window | None) -> str:
    return f"{span[0]:.2f}–{span[1]:.2f} s" if span else "no answer"


def _spans(windows: Sequence[Window]) -> str:
    return _span(windows[0]) if len(windows) == 1 else f"{len(windows)} windows"
