"""Which stage reads from which."""

from __future__ import annotations

from dataclasses import dataclass

from timer1lib.errors import Timer1Error
from timer1lib.params.sections import NOTEBOOKS, SECTIONS, Params

UPSTREAM: dict[str, tuple[str, ...]] = {
    "curate": (),
    "sft": ("curate",),
    "difficulty": ("curate", "sft"),
    "grpo": ("curate", "sft", "difficulty"),
    "evaluate": ("curate", "sft", "grpo"),
    "inspect": ("curate", "sft", "difficulty", "grpo", "evaluate"),
    "compare": ("curate", "sft", "difficulty", "grpo", "evaluate"),
}
"""Stages whose outputs are inputs of a stage."""


def upstream(stage: str, params: Params) -> tuple[str, ...]:
    """Stages whose outputs a stage reads under these parameters: difficulty judged by the base knows nothing of SFT."""
    if stage == "difficulty" and not (params.difficulty.enabled and params.grpo.enabled):
        return ()
    if stage == "difficulty" and params.difficulty.difficulty_model in ("base", "published"):
        return ("curate",)
    return UPSTREAM[stage]


@dataclass(frozen=True, slots=True)
class StageRef:
    """A stage by its place: `number` 4, `name` grpo, `notebook` 04_grpo."""

    number: int
    name: str
    notebook: str


STAGES: tuple[StageRef, ...] = tuple(StageRef(i, name, NOTEBOOKS[i - 1]) for i, name in enumerate(SECTIONS, 1))


def find_stage(text: str) -> StageRef:
    """The stage that `4`, `04`, `grpo` or `04_grpo` means; anything else is a Timer1Error."""
    for stage in STAGES:
        if text in (stage.name, stage.notebook, str(stage.number), f"{stage.number:02d}"):
            return stage
    raise Timer1Error(f"no stage {text!r}; stages are {', '.join(stage.notebook for stage in STAGES)}")
