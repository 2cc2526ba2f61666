"""Parameters of the notebook grpo."""

from __future__ import annotations

from pydantic import Field

from timer1lib.params.base import Section


class GrpoParams(Section):
    pass
