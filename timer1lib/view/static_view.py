"""The scrubber's view without a kernel: one SVG with thumbnails, truth, answers and named times, and the texts."""

from __future__ import annotations

import html
from collections.abc import Sequence

from timer1lib.schema import Window
from timer1lib.view.items import THINKING_COLOUR, TRUTH_COLOUR, Item, Pattern, Row, linked_text, named_ranges

WIDTH, LEFT, RIGHT = 960, 96, 118
STRIP_HEIGHT, LANE, GAP = 40, 20, 5
MAX_ROWS = 16
FONT = "system-ui,-apple-system,'Segoe UI',sans-serif"

_PATTERNS: dict[Pattern, str] = {
    "solid": "",
    "diagonal": '<path d="M-2 8L8 -2M4 14L14 4" stroke="#000" stroke-opacity=".32" stroke-width="2.4"/>',
    "back": '<path d="M2 -2L12 8M-4 4L6 14" stroke="#000" stroke-opacity=".32" stroke-width="2.4"/>',
    "dots": '<circle cx="5" cy="5" r="1.8" fill="#000" fill-opacity=".34"/>',
    "vertical": '<path d="M5 0V10" stroke="#000" stroke-opacity=".32" stroke-width="2.6"/>',
    "cross": '<path d="M-2 8L8 -2M4 14L14 4M2 -2L12 8M-4 4L6 14" stroke="#000" stroke-opacity=".26" stroke-width="1.8"/>',
}


def timeline_svg(item: Item, strip: str = "") -> str:
    """The timeline as SVG text. `strip` is an image address for the thumbnails, empty for none.

    Times run over `item.duration` seconds; what lies outside is cut at the border. Text has the page's colour.
    """
    rows = item.rows[:MAX_ROWS]
    thinking = [found for row in rows for found in named_ranges(row.completion) if found.kind == "thinking"][:40]
    top = STRIP_HEIGHT + 20 if strip else 18
    lanes = 1 + len(rows) + bool(thinking)
    height = top + lanes * (LANE + GAP) + 4
    patterns = sorted({row.style.pattern for row in rows if row.style.pattern != "solid"})
    label = f"{item.sample.query}: truth {_spans(item.sample.windows)}; " + "; ".join(
        f"{row.label} {_span(row.span)}" for row in rows
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="100%" '
        f'style="max-width:{WIDTH}px;display:block" '
        f'role="img" aria-label="{html.escape(label, quote=True)}" font-family="{FONT}" font-size="12" fill="currentColor">',
        "<defs>" + "".join(_pattern(name) for name in patterns) + "</defs>",
    ]
    if strip:
        parts.append(
            f'<image href="{strip}" x="{LEFT}" y="0" width="{_wide()}" height="{STRIP_HEIGHT}" preserveAspectRatio="none"/>'
        )
    parts += _axis(item.duration, top - 4, height)
    y = top
    parts += _lane("truth", y, TRUTH_COLOUR, "solid", item.sample.windows, item.duration, _spans(item.sample.windows), "")
    for row in rows:
        y += LANE + GAP
        overlap = f"IoU {item.iou(row):.3f}" + (f"  r {row.reward:.3f}" if row.reward is not None else "")
        absent = "" if row.span else (row.error or "no answer")
        parts += _lane(
            row.label, y, row.style.colour, row.style.pattern, [row.span] if row.span else [], item.duration, overlap, absent
        )
    if thinking:
        y += LANE + GAP
        spans = [(found.start, found.end) for found in thinking]
        parts += _lane("named in text", y, THINKING_COLOUR, "solid", spans, item.duration, "", "", opacity=0.35)
    return "".join(parts) + "</svg>"


def item_html(item: Item, strip: str = "", texts: bool = True) -> str:
    """Query, timeline and completions of an item as HTML; no script, nothing from the network."""
    sample = item.sample
    facts = " · ".join(html.escape(text) for text in (item.split, sample.type, sample.source, sample.id, *item.tags) if text)
    body = [
        '<figure style="margin:0 0 1.4em;max-width:960px">',
        f'<figcaption style="margin-bottom:.4em"><strong style="font-size:1.06em">“{html.escape(sample.query)}”</strong>'
        f'<br><span style="opacity:.68;font-size:.86em">{facts}</span></figcaption>',
        timeline_svg(item, strip),
    ]
    if texts:
        body += [_text(row) for row in item.rows[:MAX_ROWS] if row.completion]
    return "".join(body) + "</figure>"


def _text(row: Row) -> str:
    pieces = []
    for piece in linked_text(row.completion[:2000]):
        text = html.escape(str(piece["text"]))
        if "start" in piece:
            colour = THINKING_COLOUR if piece["kind"] == "thinking" else "#009e73"
            text = f'<span style="border-bottom:2px solid {colour}">{text}</span>'
        pieces.append(text)
    swatch = f'<span style="display:inline-block;width:.7em;height:.7em;border-radius:2px;background:{row.style.colour}"></span>'
    return (
        f'<div style="display:grid;grid-template-columns:{LEFT / WIDTH:.1%} 1fr;font-size:.84em;margin-top:.35em">'
        f"<span>{swatch} {html.escape(row.label)}</span>"
        '<code style="white-space:pre-wrap;overflow-wrap:anywhere;background:none;color:inherit;padding:0">'
        f"{''.join(pieces)}</code></div>"
    )


def _wide() -> int:
    return WIDTH - LEFT - RIGHT


def _x(time: float, duration: float) -> float:
    return LEFT + _wide() * min(1.0, max(0.0, time / duration))


def _lane(
    label: str,
    y: int,
    colour: str,
    pattern: Pattern,
    spans: Sequence[Window],
    duration: float,
    value: str,
    absent: str,
    opacity: float = 1.0,
) -> list[str]:
    name = html.escape(label if len(label) <= 15 else label[:14] + "…")
    parts = [
        f'<rect x="{LEFT}" y="{y}" width="{_wide()}" height="{LANE}" rx="3" fill="currentColor" fill-opacity=".07"/>',
        f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{name}</text>',
        f'<text x="{WIDTH - RIGHT + 8}" y="{y + 14}" fill-opacity=".75">{html.escape(value)}</text>',
    ]
    for start, end in spans:
        left, right = sorted((_x(start, duration), _x(end, duration)))
        box = f'x="{left:.1f}" y="{y + 2}" width="{max(2.5, right - left):.1f}" height="{LANE - 4}" rx="3"'
        tip = f"<title>{html.escape(label)}: {_span((start, end))}</title>"
        faint = opacity if end > start else 0.4
        parts.append(f'<rect {box} fill="{colour}" fill-opacity="{faint}">{tip}</rect>')
        if pattern != "solid":
            parts.append(f'<rect {box} fill="url(#t1-{pattern})" pointer-events="none"/>')
    if absent:
        parts.append(f'<text x="{LEFT + 8}" y="{y + 14}" font-style="italic" fill-opacity=".7">{html.escape(absent[:90])}</text>')
    return parts


def _pattern(name: Pattern) -> str:
    return f'<pattern id="t1-{name}" width="10" height="10" patternUnits="userSpaceOnUse">{_PATTERNS[name]}</pattern>'


def _axis(duration: float, baseline: float, height: int) -> list[str]:
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
    step = next((s for s in steps if duration / s <= 11), duration / 8)
    parts = []
    for i in range(int(duration / step + 1e-9) + 1):
        x = _x(i * step, duration)
        parts.append(f'<path d="M{x:.1f} {baseline - 2:.1f}V{height - 4}" stroke="currentColor" stroke-opacity=".16"/>')
        shown = f"{i * step:.1f}" if step < 1 else f"{i * step:.0f}"
        parts.append(
            f'<text x="{x:.1f}" y="{baseline - 4:.1f}" font-size="10" text-anchor="middle" fill-opacity=".65">'
            f"{shown}{' s' if i == 0 else ''}</text>"
        )
    return parts


def _span(span: Window | None) -> str:
    return f"{span[0]:.2f}–{span[1]:.2f} s" if span else "no answer"


def _spans(windows: Sequence[Window]) -> str:
    return _span(windows[0]) if len(windows) == 1 else f"{len(windows)} windows"
