"""The pictures and tables of a sweep with a grid, for docs and README.

    python scripts/map.py SWEEP_FOLDER PICTURES_FOLDER [FROM:TO ...]

Writes `map-<to>-minus-<from>.svg` for each pair of listed rows (sft:rl, rl/base:rl and sft/base:sft where none are named), and
one along each axis of the grid, and prints the tables as Markdown: effects, seconds, memory, types of query, failure
signatures, samples to look at.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from timer1lib.evaluation import learned
from timer1lib.evaluation.maps import (
    NOVELTIES,
    Effect,
    Grid,
    effect_table,
    effects,
    marginals,
    point_name,
    read_answers,
    read_grid,
    seconds_table,
)
from timer1lib.evaluation.tables import markdown_table, table_of
from timer1lib.files import atomic_write_text

PAIRS = [("sft", "rl"), ("rl/base", "rl"), ("sft/base", "sft")]
NAMES = {"rl": "RL", "sft": "SFT", "base": "base", "rl_alone": "RL alone", "rl_lora": "RL after a LoRA cold start"}
CELL_WIDTH, CELL_HEIGHT, LEFT, TOP, GAP, ACROSS = 92, 48, 46, 74, 34, 3
STRONGEST = 10.0
"""The difference (points) with the fullest colour."""


def title_of(effect: Effect) -> str:
    return " minus ".join(NAMES.get(name.split("/")[-1], name) for name in (effect.second, effect.first))


def colour(difference: float) -> str:
    """Blue where the second way is above, orange where the first is."""
    share = min(1.0, abs(difference) / STRONGEST)
    full = (22, 104, 184) if difference > 0 else (201, 112, 16)
    return "#" + "".join(f"{round(255 - share * 0.75 * (255 - part)):02x}" for part in full)


def signed(value: float) -> str:
    return f"{round(value, 1) + 0.0:+.1f}"  # no -0.0


def picture(grid: Grid, found: Sequence[Effect]) -> str:
    """SVG of one pair's effects: a panel a split, pool size across, wording down; cells whose interval holds 0 are white."""
    splits = list(dict.fromkeys(effect.split for effect in found))
    kept = [i for i in range(len(grid.axes)) if any(effect.at and effect.at[i] is not None for effect in found)]
    columns, *more = ([*grid.axes.values()][i] for i in kept)
    rows = more[0] if more else [None]
    wide, high = LEFT + CELL_WIDTH * len(columns), 42 + CELL_HEIGHT * len(rows)
    lines = -(-len(splits) // ACROSS)
    width, height = GAP + min(ACROSS, len(splits)) * (wide + GAP), TOP + lines * (high + GAP) + 26
    keys = [[*grid.axes][i].rsplit(".", 1)[-1].replace("_", " ") for i in kept]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{GAP}" y="26" font-size="17" font-weight="bold">{escape(title_of(found[0]))}, mIoU in points</text>',
        f'<text x="{GAP}" y="46" fill="#555">{escape(" by ".join(keys))}; white: interval holds 0; dashed: not after correction '
        "for the number of comparisons</text>",
    ]
    for panel, split in enumerate(splits):
        x0, y0 = GAP + (panel % ACROSS) * (wide + GAP), TOP + (panel // ACROSS) * (high + GAP)
        new = f": new is {NOVELTIES[split]}" if NOVELTIES.get(split) not in (None, "nothing") else ""
        parts.append(f'<text x="{x0}" y="{y0 + 12}" font-weight="bold">{escape(split + new)}</text>')
        for i, value in enumerate(columns):
            x = x0 + LEFT + CELL_WIDTH * (i + 0.5)
            parts.append(f'<text x="{x}" y="{y0 + 34}" text-anchor="middle" fill="#555">{escape(str(value))}</text>')
        for j, value in enumerate(rows):
            y = y0 + 42 + CELL_HEIGHT * (j + 0.5) + 5
            label = "" if value is None else escape(str(value))
            parts.append(f'<text x="{x0 + LEFT - 10}" y="{y}" text-anchor="end" fill="#555">{label}</text>')
        for effect in (e for e in found if e.split == split and e.at is not None):
            assert effect.at is not None
            x = x0 + LEFT + CELL_WIDTH * columns.index(effect.at[kept[0]])
            y = y0 + 42 + CELL_HEIGHT * (rows.index(effect.at[kept[1]]) if more else 0)
            none, weak = effect.verdict == "holds 0", effect.verdict == "not after correction"
            fill, dash = "#ffffff" if none else colour(effect.difference), ' stroke-dasharray="4 3"' if weak else ""
            parts.append(
                f'<rect x="{x + 1.5}" y="{y + 1.5}" width="{CELL_WIDTH - 3}" height="{CELL_HEIGHT - 3}" fill="{fill}" '
                f'stroke="{"#cfcfcf" if none else "#666"}"{dash}/>'
            )
            ink, weight = ("#8a8a8a", "normal") if none else ("#111", "normal" if weak else "bold")
            middle, ends = x + CELL_WIDTH / 2, " to ".join(map(signed, effect.interval))
            parts.append(
                f'<text x="{middle}" y="{y + 22}" text-anchor="middle" fill="{ink}" font-weight="{weight}" font-size="15">'
                f"{signed(effect.difference)}</text>"
            )
            parts.append(f'<text x="{middle}" y="{y + 38}" text-anchor="middle" fill="{ink}" font-size="10.5">{ends}</text>')
    return "\n".join([*parts, "</svg>\n"])


def main() -> None:
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    grid, folder = read_grid(sys.argv[1]), Path(sys.argv[2])
    answers = read_answers(grid)
    sys.stdout.write("".join(f"note: {note}\n" for note in grid.notes))
    named = [(one, two) for one, _, two in (text.partition(":") for text in sys.argv[3:])]
    pairs = named or [pair for pair in PAIRS if all(any(name == way for way, _ in answers) for name in pair)]
    found = effects(grid, pairs, answers)
    for name in dict.fromkeys(effect.name for effect in found):
        part = [effect for effect in found if effect.name == name]
        path = folder / f"map-{part[0].second}-minus-{part[0].first.replace('/', '-')}.svg"
        atomic_write_text(path, picture(grid, part))
        tell(f"{title_of(part[0])} ({path})", markdown_table(effect_table(grid, part)))
    for key, along in zip(grid.axes, marginals(grid, pairs, answers), strict=False):
        for name in dict.fromkeys(effect.name for effect in along):
            part = [effect for effect in along if effect.name == name]
            way = f"{part[0].second}-minus-{part[0].first.replace('/', '-')}"
            path = folder / f"map-{way}-by-{key.rsplit('.', 1)[-1].replace('_', '-')}.svg"
            atomic_write_text(path, picture(grid, part))
            tell(f"{title_of(part[0])}, over all points along the other axis ({path})", markdown_table(effect_table(grid, part)))
    tell("seconds of training", markdown_table(seconds_table(grid)))
    tell("memory: mIoU on what was trained on, and on a test like it", markdown_table(learned.memory_table(grid, answers)))
    of = learned.type_of(grid)
    for pair in pairs:
        typed = effects(grid, [pair], answers, along=(), part_of=of)
        tell(f"{pair[1]} minus {pair[0]} by type of query, over all points", markdown_table(effect_table(grid, typed)))
        most = max(typed, key=lambda effect: abs(effect.difference)).part

        def alone_or_not(split: str, key: str, most: str = most) -> str:
            return most if of(split, key) == most else f"all but {most}"

        apart = effects(grid, [pair], answers, along=list(grid.axes)[:1], part_of=alone_or_not)
        tell(f"{pair[1]} minus {pair[0]}, its most different type apart", markdown_table(effect_table(grid, apart)))
    tell("failure signatures, runs that show them", markdown_table(learned.signature_counts(grid)))
    one, two = pairs[0]
    for at in (grid.points[0], grid.points[-1]):
        for split in ("test_id", "test_ood"):
            if all(split in answers.get((way, at), {}) for way in (one, two)):
                rows = learned.telling(grid, answers, one, two, at, split)
                shown = [{key: row[key] for key in ("better", "id", "type", "query", one, two)} for row in rows]
                tell(f"to look at: {split}, {point_name(grid, at)}", markdown_table(table_of(shown)))
                sys.stdout.write("".join(f"timer1 inspect {run}\n" for run in (rows[0]["runs"] if rows else ())))


def tell(title: str, text: str) -> None:
    sys.stdout.write(f"\n**{title}**\n\n{text or '(nothing)'}\n")


if __name__ == "__main__":
    main()
