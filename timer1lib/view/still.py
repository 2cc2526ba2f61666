"""06_inspect without JupyterLab: a page of a run's samples, drawn and not played."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from timer1lib.evaluation.answers import form_of
from timer1lib.files import atomic_write_text, read_json
from timer1lib.runfolder import RunFolder
from timer1lib.view import templates
from timer1lib.view.items import load_items
from timer1lib.view.report import cache_of, choose, examples

SAMPLES = 60
"""Drawn on a page at most: each brings a strip of thumbnails, 20 kB or so."""


def write_page(run: RunFolder) -> Path:
    """Write `inspect.html` into a run: what was gained and lost, and what went wrong. A Timer1Error without predictions."""
    form = form_of(read_json(run.metrics) if run.metrics.is_file() else {})
    items = load_items(run, form=form)
    groups = choose(items, SAMPLES)
    shown = len({item.key for _, chosen in groups for item in chosen})
    page = (
        templates()
        .get_template("still.html")
        .render(
            name=run.root.name,
            css=Markup((Path(__file__).parent / "report.css").read_text()),
            shown=shown,
            of=len(items),
            body=Markup(examples(run, cache_of(run), groups)),
        )
    )
    path = run.root / "inspect.html"
    atomic_write_text(path, page)
    return path
