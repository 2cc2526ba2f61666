"""`report.html`: what a run did and reached, in one file that opens offline."""

from __future__ import annotations

import html
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_text, read_json, read_jsonl, resolve
from timer1lib.runfolder import RunFolder
from timer1lib.view import report_parts as parts
from timer1lib.view import report_tables as tables
from timer1lib.view.figures import loader_html

log = logging.getLogger(__name__)

Section = tuple[str, str, str]
"""Anchor, heading, HTML."""

_THEME = """<script>
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const recolour = () => document.querySelectorAll(".js-plotly-plot").forEach((plot) => window.Plotly.relayout(plot, {
  "font.color": dark.matches ? "#a9b0bc" : "#4e5560", "hoverlabel.bgcolor": dark.matches ? "#242932" : "#ffffff" }));
window.addEventListener("load", async () => { if (await window.timer1Plotly) setTimeout(recolour, 50); });
dark.addEventListener("change", recolour);
</script>"""


def write_report(run: RunFolder, cache: Path | None = None, samples: int = 10) -> Path:
    """Write `report.html` for whatever the run has so far; what is missing is said, not passed over.

    Args:
        cache: folder for browser copies, from which thumbnails are taken; the run's `shared.cache_dir` where not given.
        samples: how many predictions are drawn against the truth.

    Returns:
        The path of the report.

    Raises:
        Timer1Error: the run's folder does not exist.
    """
    if not run.root.is_dir():
        raise Timer1Error(f"{run.root}: no such run")
    missing: list[str] = []
    metrics = _read(run.metrics, dict, missing, "scores of the checkpoints: run 05_evaluate") or {}
    manifest = _read(run.manifest, dict, [], "") or {}
    sections: list[Section] = []

    def add(anchor: str, heading: str, make: Callable[[], str]) -> None:
        """A broken file must not take the whole report with it: the section says what is wrong instead."""
        try:
            body = make()
        except (Timer1Error, KeyError, TypeError, ValueError, IndexError, AttributeError, OSError) as error:
            log.warning("report: %s: %s", heading, error)
            missing.append(f"{heading}: {error}")
            return
        if body:
            sections.append((anchor, heading, body))

    add("results", "Results", lambda: tables.results(metrics))
    add("training", "Training", lambda: parts.training(run, missing))
    add("data", "Data", lambda: parts.data(run))
    add("errors", "Where it is right and wrong", lambda: parts.errors(run, metrics))
    add("samples", "Predictions against the truth", lambda: parts.examples(run, cache or cache_of(run), samples, missing))
    add("signatures", "Failure signatures", lambda: tables.signatures(metrics))
    add("questions", "Does it hurt or help general understanding?", lambda: tables.questions(metrics))
    add("failed", "Samples that failed", lambda: tables.failed(metrics))
    add("made", "How this was made", lambda: parts.provenance(run, manifest))
    page = _page(run, manifest, metrics, sections, missing)
    atomic_write_text(run.report, page)
    return run.report


def cache_of(run: RunFolder) -> Path:
    """The cache that the run's parameters name, or a folder inside the run where it has none."""
    import yaml

    try:
        return resolve(str(yaml.safe_load(run.params.read_text())["shared"]["cache_dir"]))
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return run.root / "cache"


def _read(path: Path, kind: type, missing: list[str], what: str) -> Any:
    if not path.is_file():
        if what:
            missing.append(f"{path.name}: {what}")
        return None
    try:
        value = read_json(path) if path.suffix == ".json" else list(read_jsonl(path, torn_tail=True))
    except Timer1Error as error:
        missing.append(str(error))
        return None
    if not isinstance(value, kind):
        missing.append(f"{path.name}: not what was expected there")
        return None
    return value


def _page(run: RunFolder, manifest: dict[str, Any], metrics: dict[str, Any], sections: list[Section], missing: list[str]) -> str:
    name = html.escape(str(manifest.get("name") or run.root.name))
    figures = any("t1-figure" in body for _, _, body in sections)
    nav = "".join(f'<a href="#{anchor}">{html.escape(heading)}</a>' for anchor, heading, _ in sections)
    body = "".join(
        f'<section id="{anchor}"><h2><span class="no">{i}</span>{html.escape(heading)}</h2>{text}</section>'
        for i, (anchor, heading, text) in enumerate(sections, 1)
    )
    absent = ""
    if missing:
        entries = "".join(f"<li>{html.escape(text)}</li>" for text in dict.fromkeys(missing))
        absent = f'<div class="missing" role="note"><strong>Not in this report yet</strong><ul>{entries}</ul></div>'
    css = (Path(__file__).parent / "report.css").read_text()
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{name} · timer1 report</title><link rel="icon" href="data:,"><style>{css}</style>'
        f"{loader_html() if figures else ''}</head><body><main><header>"
        f'<p class="kicker">timer1 · temporal video grounding</p><h1>{name}</h1>'
        f'<p class="lead">{parts.lead(metrics)}</p><p class="note">{html.escape(parts.origin(manifest))}</p>'
        f'<nav aria-label="sections">{nav}</nav></header>'
        f"{parts.cards(metrics)}{absent}{body}"
        f"<footer>Written by timer1 from the files in {html.escape(run.root.name)}/. "
        "Everything on this page is in this file; nothing is loaded.</footer>"
        f"</main>{_THEME if figures else ''}</body></html>"
    )
