"""Parameters of the notebook sft."""

from __future__ import annotations

from pydantic import Field

from timer1lib.params.base import Section


class SftParams(Section):
    pass
