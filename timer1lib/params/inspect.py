"""Parameters of the notebook inspect."""

from __future__ import annotations

from pydantic import Field

from timer1lib.params.base import Section


class InspectParams(Section):
    pass
