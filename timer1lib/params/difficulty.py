"""Parameters of the notebook difficulty."""

from __future__ import annotations

from pydantic import Field

from timer1lib.params.base import Section


class DifficultyParams(Section):
    pass
