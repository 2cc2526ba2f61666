"""A whole params file: one section a notebook, plus what they share."""

from __future__ import annotations

from pydantic import Field

from timer1lib.params.base import Section
from timer1lib.params.compare import CompareParams
from timer1lib.params.curate import CurateParams
from timer1lib.params.difficulty import DifficultyParams
from timer1lib.params.evaluate import EvaluateParams
from timer1lib.params.grpo import GrpoParams
from timer1lib.params.inspect import InspectParams
from timer1lib.params.sft import SftParams
from timer1lib.params.shared import SharedParams


class Params(Section):
    """`params/<name>.yaml`."""

    name: str = Field("tiny", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="the run is outputs/<name>")
    shared: SharedParams = SharedParams()
    curate: CurateParams = CurateParams()
    sft: SftParams = SftParams()
    difficulty: DifficultyParams = DifficultyParams()
    grpo: GrpoParams = GrpoParams()
    evaluate: EvaluateParams = EvaluateParams()
    inspect: InspectParams = InspectParams()
    compare: CompareParams = CompareParams()


SECTIONS: dict[str, type[Section]] = {
    "curate": CurateParams,
    "sft": SftParams,
    "difficulty": DifficultyParams,
    "grpo": GrpoParams,
    "evaluate": EvaluateParams,
    "inspect": InspectParams,
    "compare": CompareParams,
}
"""Section of each notebook, in the order in which they run: 01_curate, 02_sft, ..."""

NOTEBOOKS: tuple[str, ...] = tuple(f"{i:02d}_{name}" for i, name in enumerate(SECTIONS, 1))
