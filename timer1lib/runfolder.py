"""Every path inside a run's folder, `outputs/<name>/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, atomic_write_jsonl, find_project, is_project, read_json, read_jsonl, safe_join
from timer1lib.schema import Prediction, Sample

OWNED: dict[str, tuple[str, ...]] = {
    "sft": ("checkpoints/sft/**/*", "work/sft/**/*", "logs/sft.jsonl", "logs/sft_shown_*.json", "logs/sft.tensorboard/**/*"),
    "difficulty": ("data/difficulty*", "data/selected.jsonl", "data/selection*"),
    "grpo": (
        *("checkpoints/grpo/**/*", "work/grpo/**/*", "logs/grpo.jsonl", "logs/grpo.tensorboard/**/*"),
        *("logs/rollouts.jsonl", "data/filter_epoch*.jsonl"),
    ),
    "evaluate": ("predictions/**/*", "metrics.json"),
    "inspect": (),
    "compare": (),
    "curate": ("data/**/*",),
}
"""Patterns of the files that a stage writes. The first stage that matches owns a file; 01 has what is left of data/."""

NEVER_OWNED = ("params.yaml", "manifest.json", "notes.jsonl", "views.json", "run.log", "report.html")
"""The runner's own files, and what a person wrote; so are the folders below, `ideas` with functions of notebooks' cells."""

_RUNNER_FOLDERS = ("notebooks", "stages", "ideas")

SWEEP = "sweep.json"
"""What a sweep's folder says of its rows."""

WORK = ".work"
"""Where unfinished stages write, each in a folder of its name."""


@dataclass(frozen=True, slots=True)
class Videos:
    """The videos of a run: their folder, and by path below it what 01_curate found wrong with damaged ones."""

    root: Path
    damaged: Mapping[str, str]

    def file(self, sample: Sample) -> Path:
        """The file of a sample's video; a Timer1Error where it lies outside the folder, or 01_curate found it damaged."""
        if wrong := self.damaged.get(sample.video):
            raise Timer1Error(f"damaged video (01_curate): {wrong}")
        return safe_join(self.root, sample.video)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run on disk. Stages talk to each other through these files only.

    Where a `stage` is open, what it owns is written and read in its work folder, until it is finished and published.
    """

    root: Path
    stage: str = ""

    def at(self, relative: str) -> Path:
        """Where a file or folder of the run lies: in the open stage's work folder if it owns it."""
        return (self.staging if self.stage and owner(relative) == self.stage else self.root) / relative

    @property
    def staging(self) -> Path:
        """The open stage's work folder, laid out as the run is."""
        return self.root / WORK / self.stage

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def metrics(self) -> Path:
        return self.at("metrics.json")

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def notes(self) -> Path:
        return self.root / "notes.jsonl"

    @property
    def views(self) -> Path:
        """Views that a person kept in 06: {name: the part of its link after #}."""
        return self.root / "views.json"

    def notebook(self, name: str) -> Path:
        return self.root / "notebooks" / f"{name}.ipynb"

    def stamp(self, name: str) -> Path:
        return self.root / "stages" / f"{name}.json"

    def data(self, name: str) -> Path:
        """`data/<name>`, with `.jsonl` where the name has no ending."""
        return self.at(f"data/{name}" if "." in name else f"data/{name}.jsonl")

    def log(self, name: str) -> Path:
        return self.at(f"logs/{name}.jsonl")

    def checkpoint(self, name: str) -> Path:
        return self.at(f"checkpoints/{name}")

    def predictions(self, checkpoint: str, split: str, kind: str = "") -> Path:
        """Answers to a split; those of a `kind` of their own (swap, shuffle, grounded) lie in a folder of that name."""
        return self.at("predictions") / kind / f"{checkpoint}.{split}.jsonl"

    def read_samples(self, name: str) -> list[Sample]:
        path = self.data(name)
        return [Sample.from_json(row, f"{path}, row {i}") for i, row in enumerate(read_jsonl(path), 1)]

    def write_samples(self, name: str, samples: list[Sample]) -> None:
        atomic_write_jsonl(self.data(name), (sample.to_json() for sample in samples))

    def read_predictions(self, checkpoint: str, split: str, kind: str = "") -> list[Prediction]:
        path = self.predictions(checkpoint, split, kind)
        return [Prediction.from_json(row, f"{path}, row {i}") for i, row in enumerate(read_jsonl(path), 1)]

    @property
    def video_root(self) -> Path:
        """The folder that `Sample.video` is relative to (written by 01_curate).

        Where it is no longer there, as in a run that came from elsewhere, the one that the run's own params.yaml names.
        """
        path = self.data("videos.json")
        if not path.is_file():
            raise Timer1Error(f"{path}: not there yet; run 01_curate first")
        kept = Path(read_json(path)["root"])
        found = [base / kept for base in self._projects()]
        if not any(folder.is_dir() for folder in found):
            found += [base / named for named in self._named_folders(kept.name) for base in self._projects()]
        return next((folder for folder in found if folder.is_dir()), found[0])

    def set_video_root(self, folder: Path, damaged: Mapping[str, str] | None = None) -> None:
        """Keep the folder of the videos, relative to the project where it lies inside, so that both may be moved.

        `damaged`: what is wrong, by path below the folder, with videos that nothing may be read from.
        """
        whole = folder.resolve()
        base = next((base for base in self._projects() if whole.is_relative_to(base)), None)
        text = whole.relative_to(base).as_posix() if base is not None else str(whole)
        atomic_write_json(self.data("videos.json"), {"root": text} | ({"damaged": dict(damaged)} if damaged else {}))

    def _projects(self) -> list[Path]:
        """Folders that relative paths may start from: the project that this run lies in, then the one we are in."""
        above = self.root.resolve().parents
        found = [folder for folder in above if is_project(folder)][:1]
        if (root := find_project()) is not None:
            found.append(root.resolve())
        return found or [Path.cwd()]

    def _named_folders(self, world: str) -> list[Path]:
        """Where the run's parameters say that videos are: `curate.videos`, or the world in the cache."""
        try:
            tree = yaml.safe_load(self.params.read_text())
            named = [tree["curate"]["videos"], f"{tree['shared']['cache_dir']}/{world}"]
        except (OSError, yaml.YAMLError, KeyError, TypeError):
            return []
        return [Path(text).expanduser() for text in named if text]

    def video(self, sample: Sample) -> Path:
        """The file of a sample's video; a Timer1Error where it lies outside the folder, or 01_curate found it damaged."""
        return self.videos().file(sample)

    def videos(self) -> Videos:
        """Where the videos of this run lie, looked up once for many samples."""
        return Videos(self.video_root, read_json(self.data("videos.json")).get("damaged", {}))

    def splits(self) -> dict[str, Any]:
        """`data/splits.json`: {split name: {"kind": "grounding" | "questions", "n": rows}}."""
        path = self.data("splits.json")
        if not path.is_file():
            raise Timer1Error(f"{path}: not there yet; run 01_curate first")
        value = read_json(path)
        assert isinstance(value, dict)
        return value


def owner(relative: str) -> str | None:
    """The stage that owns a file of a run, by its path inside the run folder; None for the runner's own files."""
    path = Path(relative)
    if _is_runners(path):
        return None
    return next((stage for stage, patterns in OWNED.items() if any(_matches(path, pattern) for pattern in patterns)), None)


def run_files(root: Path) -> list[str]:
    """Every file of a run folder that a stage wrote or may have written, sorted."""
    found = ((path, path.relative_to(root)) for path in root.rglob("*"))
    return sorted(relative.as_posix() for path, relative in found if not _is_runners(relative) and path.is_file())


def _is_runners(path: Path) -> bool:
    own = path.as_posix() in NEVER_OWNED or path.parts[0] in _RUNNER_FOLDERS
    return own or any(part.startswith(".") for part in path.parts)


def _matches(path: Path, pattern: str) -> bool:
    if pattern.endswith("/**/*"):
        return path.is_relative_to(pattern.removesuffix("/**/*"))
    return path.match(pattern) and len(path.parts) == len(Path(pattern).parts)
