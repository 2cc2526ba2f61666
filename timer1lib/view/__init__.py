"""What is looked at: figures, the report, and the widgets of 06_inspect."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment

from timer1lib.evaluation import tables


def templates() -> Environment:
    """This folder's page templates and those of the results tables, with autoescape on."""
    return tables.environment(Path(__file__).parent / "templates", tables.TEMPLATES)
