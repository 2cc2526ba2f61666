"""Parameters of the notebook curate."""

from __future__ import annotations

from pydantic import Field

from timer1lib.params.base import Section


class CurateParams(Section):
    pass
