"""A page that opens offline in one file: sections under their headings, and a line for each that could not be made."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from markupsafe import Markup

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_text
from timer1lib.view import templates
from timer1lib.view.figures import loader_html

T = TypeVar("T")
log = logging.getLogger(__name__)


def macro(name: str, *given: Any) -> Markup:
    """One macro of `sections.html`."""
    module: Any = templates().get_template("sections.html").module
    return Markup(getattr(module, name)(*given))


class Page:
    """Sections in the order in which they are added; what the page lacks is said on it, not passed over."""

    def __init__(self, name: str, kind: str) -> None:
        """`name` is the heading; `kind` says in a few words what the page is about."""
        self.name, self.kind = name, kind
        self.missing: list[str] = []
        self.sections: list[tuple[str, str, str]] = []

    def add(self, anchor: str, heading: str, make: Callable[[], str]) -> None:
        """A section, unless it is empty."""
        if body := self.attempt(heading, make):
            self.sections.append((anchor, heading, body))

    def attempt(self, heading: str, make: Callable[[], T]) -> T | None:
        """What `make` gives. A broken file must not take the whole page with it: it is said instead."""
        try:
            return make()
        except (Timer1Error, KeyError, TypeError, ValueError, IndexError, AttributeError, OSError) as error:
            log.warning("report: %s: %s", heading, error)
            self.missing.append(f"{heading}: {error}")
            return None

    def write(self, path: Path, lead: Sequence[str], origin: str, cards: str = "") -> Path:
        """Write the page. `lead`: what it says first, a paragraph each; `origin` a line on where it comes from."""
        drawn = any("t1-figure" in body for _, _, body in self.sections)
        page = templates().get_template("report.html").render(
            name=self.name, kind=self.kind, css=Markup(Path(__file__).with_name("report.css").read_text()),
            loader=loader_html() if drawn else "", lead=lead, origin=origin, cards=cards,
            missing=list(dict.fromkeys(self.missing)), sections=self.sections, folder=path.parent.name,
        )  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, page)
        return path
