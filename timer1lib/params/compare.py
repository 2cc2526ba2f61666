"""Parameters of the notebook compare."""

from __future__ import annotations

from pydantic import Field

from timer1lib.params.base import Section


class CompareParams(Section):
    pass
