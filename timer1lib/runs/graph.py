"""Which stage reads from which, and which files of a run each stage owns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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


OWNED: dict[str, tuple[str, ...]] = {
    "sft": ("checkpoints/sft/**/*", "work/sft/**/*", "logs/sft.jsonl"),
    "difficulty": ("data/difficulty*", "data/selected.jsonl", "data/selection*"),
    "grpo": (
        "checkpoints/grpo/**/*",
        "work/grpo/**/*",
        "logs/grpo.jsonl",
        "logs/rollouts.jsonl",
        "data/filter_epoch*.jsonl",
    ),
    "evaluate": ("predictions/**/*", "metrics.json"),
    "inspect": (),
    "compare": (),
    "curate": ("data/**/*",),
}
"""Patterns of the files that a stage writes. The first stage that matches owns a file; 01 has what is left of data/."""

NEVER_OWNED = ("params.yaml", "manifest.json", "notes.jsonl", "run.log", "report.html")
"""The runner's own files, and what a person wrote."""

_RUNNER_FOLDERS = ("notebooks", "stages")


@dataclass(frozen=True, slots=True)
class StageRef:
    """A stage by its place: `number` 4, `name` grpo, `notebook` 04_grpo."""

    number: int
    name: str
    notebook: str


STAGES: tuple[StageRef, ...] = tuple(StageRef(i, name, NOTEBOOKS[i - 1]) for i, name in enumerate(SECTIONS, 1))


def find_stage(text: str) -> StageRef:
    """The stage that `4`, `04`, `grpo` or `04_grpo` means.

    Raises:
        Timer1Error: none of these.
    """
    for stage in STAGES:
        if text in (stage.name, stage.notebook, str(stage.number), f"{stage.number:02d}"):
            return stage
    raise Timer1Error(f"no stage {text!r}; stages are {', '.join(stage.notebook for stage in STAGES)}")


def owner(relative: str) -> str | None:
    """The stage that owns a file of a run, by its path inside the run folder; None for the runner's own files."""
    path = Path(relative)
    if relative in NEVER_OWNED or path.parts[0] in _RUNNER_FOLDERS or any(part.startswith(".") for part in path.parts):
        return None
    for stage, patterns in OWNED.items():
        if any(_matches(path, pattern) for pattern in patterns):
            return stage
    return None


def run_files(root: Path) -> list[str]:
    """Every file of a run folder that a stage wrote or may have written, sorted."""
    found = []
    for path in root.rglob("*"):
        relative = path.relative_to(root)
        if relative.parts[0] in _RUNNER_FOLDERS or any(part.startswith(".") for part in relative.parts):
            continue
        if path.is_file() and str(relative) not in NEVER_OWNED:
            found.append(relative.as_posix())
    return sorted(found)


def _matches(path: Path, pattern: str) -> bool:
    if pattern.endswith("/**/*"):
        return path.is_relative_to(pattern.removesuffix("/**/*"))
    return path.match(pattern) and len(path.parts) == len(Path(pattern).parts)
