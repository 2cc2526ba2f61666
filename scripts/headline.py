"""The tables and the picture of a sweep over seeds, for docs and README.

    python scripts/headline.py SWEEP_FOLDER PICTURE.svg

Prints the pooled tables; the picture shows each row's mIoU: a small dot a seed, a bar at their mean.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from timer1lib.evaluation.pooled import pooled_tables
from timer1lib.evaluation.tables import document
from timer1lib.files import atomic_write_text, read_json

LABELS = {
    "rl/base": "base",
    "rl/sft": "SFT",
    "rl": "SFT + GRPO",
    "more_sft": "SFT, GRPO's samples and compute",
}
TITLES = {"test_id": "in distribution", "test_ood": "out of distribution"}
COLOURS = ("#8a8a8a", "#c97b1a", "#1668b8", "#b23a48", "#3a7d44")
WIDTH, ROW, LEFT, RIGHT = 860, 30, 250, 60


def picture(value: dict[str, Any]) -> str:
    """SVG of mIoU (percent) by row and seed, a panel a grounding split."""
    panels = [split for split in TITLES if split in value]
    rows = [name for name in LABELS if any(name in value[split]["variants"] for split in panels)]
    height = len(panels) * (ROW * len(rows) + 62)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="14">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for index, split in enumerate(panels):
        top = index * (ROW * len(rows) + 62)
        variants = value[split]["variants"]
        points = [p for name in rows if name in variants for p in variants[name]["by_seed"].values()]
        low, high = 2 * (min(points) // 2), 2 * (max(points) // 2 + 1)

        def x(mean: float, low: float = low, high: float = high) -> float:
            return LEFT + (WIDTH - LEFT - RIGHT) * (mean - low) / (high - low)

        queries = max(v["queries"] // v["seeds"] for v in variants.values())
        title = f"mIoU {TITLES[split]} ({queries} queries a seed)"
        parts.append(f'<text x="{LEFT}" y="{top + 20}" font-weight="bold">{title}</text>')
        bottom = top + 34 + ROW * len(rows)
        step = 2 if high - low <= 20 else 5
        for mark in range(int(low), int(high) + 1, step):
            parts.append(f'<line x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{top + 28}" y2="{bottom - 4}" stroke="#e4e4e4"/>')
            parts.append(
                f'<text x="{x(mark):.1f}" y="{bottom + 12}" text-anchor="middle" fill="#555" font-size="12">{mark}</text>'
            )
        for place, (name, colour) in enumerate(zip(rows, COLOURS, strict=False)):
            if name not in variants:
                continue
            y, row = top + 44 + ROW * place, variants[name]
            parts.append(f'<text x="{LEFT - 12}" y="{y + 5}" text-anchor="end">{escape(LABELS[name])}</text>')
            parts += [
                f'<circle cx="{x(p):.1f}" cy="{y}" r="4" fill="{colour}" fill-opacity="0.45"/>' for p in row["by_seed"].values()
            ]
            mean = x(row["mIoU"])
            parts.append(
                f'<line x1="{mean:.1f}" x2="{mean:.1f}" y1="{y - 10}" y2="{y + 10}" stroke="{colour}" stroke-width="4"/>'
            )
            parts.append(
                f'<text x="{WIDTH - 8}" y="{y + 5}" text-anchor="end" font-weight="bold" fill="{colour}">{row["mIoU"]:.1f}</text>'
            )
    return "\n".join([*parts, "</svg>\n"])


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    value = read_json(Path(sys.argv[1]) / "sweep.json")["pooled"]
    if not value:
        raise SystemExit(f"{sys.argv[1]}: a sweep of one seed has nothing pooled")
    print(document(pooled_tables(value)))
    atomic_write_text(Path(sys.argv[2]), picture(value))


if __name__ == "__main__":
    main()
