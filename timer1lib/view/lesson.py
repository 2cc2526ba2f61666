"""What notebooks show of single samples, and of a training while it runs."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from timer1lib.errors import Timer1Error
from timer1lib.files import read_jsonl, resolve, safe_join
from timer1lib.progress import RUNNER_VARIABLE, in_kernel
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Prediction, Sample
from timer1lib.view import templates
from timer1lib.view.items import Item, Lane, styles
from timer1lib.view.scrubber import SegmentScrubber
from timer1lib.view.static_view import static_item

if TYPE_CHECKING:
    from timer1lib.evaluation.tables import Table

LIVE_SECONDS = 1.0
_TIMES = re.compile(r"(\d+\.\d+(?: seconds?)?|\d+ seconds?)")


class _Videos(RunFolder):
    """A run whose videos are not written down yet: they lie in a known folder."""

    __slots__ = ()

    def video(self, sample: Sample) -> Path:
        return safe_join(self.root, sample.video)


def item_of(sample: Sample, answers: Mapping[str, Prediction] | None = None) -> Item:
    """A sample with some answers to it, by who gave them."""
    given = dict(answers or {})
    looks = styles(list(given))
    lanes = [Lane(name, name, a.span, a.completion, looks[name], True, None, a.error) for name, a in given.items()]
    return Item(sample.id, sample, lanes, sample.split)


class Html:
    """A piece of a page, shown as such by a notebook; `text` where there is no page."""

    def __init__(self, html: str, text: str = "") -> None:
        self._html, self._text = html, text

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return self._html


def picture(
    run: RunFolder, sample: Sample, cache: str, answers: Mapping[str, Prediction] | None = None, *, videos: Path | None = None
) -> Html:
    """A sample as it stands: frame strip, query, true window, and answers where given.

    `videos` is the folder of the videos where the run does not know it yet (01).
    """
    return still(run if videos is None else _Videos(videos), item_of(sample, answers), cache)


def say(text: str) -> None:
    """Show a sentence below the cell, or lines as they stand."""
    from IPython.display import display

    shown: Any = display
    shown(Html(str(_macros().said(text)), text))


def still(run: RunFolder, item: Item, cache: str) -> Html:
    """An item as 06 has it, without a widget."""
    return Html(str(static_item(run, item, resolve(cache))), f"{item.sample.query} {item.sample.windows}")


def player(run: RunFolder, shown: Sequence[tuple[Sample, Mapping[str, Prediction]]], cache: str) -> SegmentScrubber:
    """Samples to play, one after the other (keys n and p); without a kernel, pictures of all of them."""
    return Player(run, [item_of(sample, answers) for sample, answers in shown], resolve(cache))


class Player(SegmentScrubber):
    """A scrubber whose static form holds every item: there are few."""

    def static_html(self) -> str:
        return "".join(static_item(self.run, item, self.cache, self.max_bytes) for item in self.items)


def written(title: str, text: str) -> Html:
    """A text as the model sees or writes it, with the times in it highlighted."""
    pieces = [(piece, i % 2 == 1) for i, piece in enumerate(_TIMES.split(text)) if piece]
    return Html(str(_macros().written(title, pieces)), f"{title}: {text}")


def group_table(rows: Sequence[Mapping[str, Any]], title: str = "") -> Table:
    """A table of numbers with two digits and of words, for a group of rollouts."""
    from timer1lib.evaluation.tables import Cell, table_of

    return table_of([{k: Cell(v, form="+.2f" if k == "advantage" else ".2f") for k, v in row.items()} for row in rows], title)


def live_curve(log: Path, name: str = "reward", steps: int = 0) -> Callable[[], None] | None:
    """What `grpo.train` calls while it trains, as `watch`: the curve of one logged number, drawn below the cell as it grows.

    None under a runner, whose notebooks nobody watches, and outside a notebook: the figure after the training is enough there.
    """
    if RUNNER_VARIABLE in os.environ or not in_kernel():
        return None
    from IPython.display import display

    handle: Any = None
    seen, due = -1, 0.0

    def draw() -> None:
        nonlocal handle, seen, due
        if time.monotonic() < due or not log.is_file() or log.stat().st_size == seen:
            return
        seen, due = log.stat().st_size, time.monotonic() + LIVE_SECONDS
        rows = [row for row in read_jsonl(log, torn_tail=True) if isinstance(row.get(name), int | float)]
        if len(rows) < 2:
            return
        shown = Html(str(curve_svg([(row["step"], row[name]) for row in rows], name)), f"{name}, step {rows[-1]['step']}")
        handle = handle or display(display_id=True)
        handle.update(shown)

    return draw


def curve_svg(points: Sequence[tuple[float, float]], name: str, smooth: int = 5) -> Markup:
    """One value over steps as SVG in the page's colours: thin as logged, thick its running mean; at least two points."""
    if len(points) < 2:
        raise Timer1Error("a curve needs two points")
    steps, values = [float(step) for step, _ in points], [float(value) for _, value in points]
    mean = [sum(part) / len(part) for i in range(len(values)) if (part := values[max(0, i - smooth + 1) : i + 1])]
    low, high = min(values), max(values)
    wide, tall, left, top = 640.0, 120.0, 54.0, 22.0

    def path(line: Sequence[float]) -> str:
        across, up = wide / max(1e-9, steps[-1] - steps[0]), tall / max(1e-9, high - low)
        return " ".join(
            f"{left + (s - steps[0]) * across:.1f},{top + tall - (v - low) * up:.1f}" for s, v in zip(steps, line, strict=True)
        )

    ends = {"low": f"{low:.2f}", "high": f"{high:.2f}", "first": f"{steps[0]:.0f}", "last": f"{steps[-1]:.0f}"}
    return Markup(_macros().curve(name, f"{mean[-1]:.3f}", path(values), path(mean), ends))


def _macros() -> Any:
    return templates().get_template("lesson.html").module
