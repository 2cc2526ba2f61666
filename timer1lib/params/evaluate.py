"""Parameters of the notebook evaluate."""

from __future__ import annotations

from pydantic import Field

from timer1lib.params.base import Section


class EvaluateParams(Section):
    pass
