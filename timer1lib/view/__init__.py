"""What is looked at: figures, the report, and the widgets of 06_inspect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def templates() -> Environment:
    """This folder's page templates and those of the results tables, with autoescape on."""
    from timer1lib.evaluation import tables

    return tables.environment(Path(__file__).parent / "templates", tables.TEMPLATES)
