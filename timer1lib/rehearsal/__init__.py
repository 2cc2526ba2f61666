"""`timer1 rehearse`: a whole recipe in minutes, on any machine, before a card is rented.

The ordinary runner runs the ordinary notebooks, 01 to 07, on the user's own params file, with a handful of rows (the
user's own where they are here), a stand-in of the model, and a few optimizer steps. A hub id stays a hub id: the
stand-in lies in a hub cache of the rehearsal's own, and the hub is not asked.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timer1lib import forms
from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, atomic_write_jsonl, project_root, read_json, read_jsonl, resolve
from timer1lib.params import split_list
from timer1lib.params.sections import Params
from timer1lib.rehearsal.scale import Changed, scaled
from timer1lib.schema import Sample

FREE_GB = 1.0
"""Disk that a rehearsal may need: the stand-in's checkpoints, a few videos, executed notebooks."""

MARK = "rehearsal.json"


@dataclass(slots=True)
class Rehearsal:
    """What was rehearsed, with what in place of what, and what the real thing takes (`real`)."""

    root: Path
    changed: list[Changed]
    stand_in: list[str]
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    real: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        changed = {c.key: {"recipe": c.before, "rehearsal": c.after, "why": c.why} for c in self.changed}
        return {"run": str(self.root), "changed": changed, "stand_in": self.stand_in, "stages": self.stages, "real": self.real}

    def lines(self) -> list[str]:
        """For a terminal: what was changed, the stand-in, the stages, and the real thing."""
        from timer1lib.progress import clock
        from timer1lib.rehearsal.real import real_lines

        stages = [f"{name}: {stage['how']} in {clock(stage['seconds'])}" for name, stage in self.stages.items()]
        parts = {
            "In the rehearsal": [str(change) for change in self.changed],
            "The stand-in": self.stand_in,
            "Rehearsed": [*stages, f"run: {self.root}"],
            "The real thing": real_lines(self.real),
        }
        return [line for title, lines in parts.items() for line in (title, *(f"  {line}" for line in lines), "")][:-1]


def rehearse(params: Params, *, out: str | Path | None = None, rows: int = 6, card: str = "H100") -> Rehearsal:
    """Rehearse a recipe into `outputs/rehearsal/<name>`; what it was given and what it made lies in `<name>.inputs` beside it.

    Args:
        rows: rows that are taken of each annotation file, about.
        out: another folder in place of the first.
        card: the card that memory and hours are told for (`training.estimate`).

    Raises:
        Timer1Error: the folder is no rehearsal's, no space, a broken file or model.
        NotebookFailed: a notebook's cell raised, as it would on the real thing.
    """
    from timer1lib.models.config import pixel_factor
    from timer1lib.rehearsal.real import real_thing
    from timer1lib.rehearsal.standin import build_stand_in, into_hub_cache
    from timer1lib.runs.keys import folder_hash
    from timer1lib.runs.runner import run

    root = Path(out) if out else project_root() / "outputs" / "rehearsal" / params.name
    inputs = root.with_name(f"{root.name}.inputs")
    _check_place(root, inputs)
    form = forms.load(params.shared.form)
    given, samples = _rows(params, inputs, rows)
    model = build_stand_in(inputs / "model", params.shared, form, samples, params.shared.seed)
    digest, hub = folder_hash(model.folder), inputs / "hub"
    if resolve(params.shared.model).is_dir():
        given["shared.model"] = (str(model.folder), "the stand-in")
    else:
        into_hub_cache(model.folder, hub, params.shared.model, params.shared.revision, digest)
    given["shared.cache_dir"] = (str(inputs / "cache"), "its own cache")
    small, changed = scaled(params, given, model.answer_tokens, pixel_factor(str(model.folder)))
    if not (inputs / MARK).is_file() or read_json(inputs / MARK).get("stand_in") != digest:
        shutil.rmtree(root, ignore_errors=True)
        atomic_write_json(inputs / MARK, {"stand_in": digest})
    rehearsal = Rehearsal(root, changed, model.told)
    with _offline(hub):
        rehearsal.stages = run(small, out=root, yes=True).stages
    rehearsal.real = real_thing(params, project_root() / "outputs" / params.name, card)
    atomic_write_json(inputs / "report.json", rehearsal.to_json())
    return rehearsal


def _check_place(root: Path, inputs: Path) -> None:
    """Refuse a folder that is somebody's, and a disk that is full, before anything is written."""
    if (root.exists() and not (inputs / MARK).is_file()) or (
        inputs.exists() and not (inputs / MARK).is_file() and any(inputs.iterdir())
    ):
        raise Timer1Error(f"{root}: there is something that no rehearsal left; name another folder with --out")
    there = next(parent for parent in root.resolve().parents if parent.exists())
    free = shutil.disk_usage(there).free / 1e9
    if free < FREE_GB:
        raise Timer1Error(f"{there}: {free:.2f} GB free, and a rehearsal may need {FREE_GB:g}; free some, or name another --out")
    atomic_write_json(inputs / MARK, read_json(inputs / MARK) if (inputs / MARK).is_file() else {})


def _rows(params: Params, inputs: Path, number: int) -> tuple[dict[str, tuple[Any, str]], list[Sample]]:
    """The files of a rehearsal as parameters with their reasons, and the samples that the stand-in is taught on."""
    from timer1lib.data.video_checks import VideoFolder
    from timer1lib.rehearsal.real import named_files, training_files
    from timer1lib.rehearsal.rows import Rows

    curate = params.curate
    if curate.source == "world":
        words = "the person waves", "the red circle is there", "the light is out"
        return {}, [Sample(f"w{i}", "", text, 10.0 + 7 * i, [(2.0, 5.0)]) for i, text in enumerate(words)]
    for name in ("data", "videos"):
        shutil.rmtree(inputs / name, ignore_errors=True)
    (inputs / "videos").mkdir(parents=True)
    kept = Rows(inputs, number)
    folder = VideoFolder(resolve(curate.videos)) if curate.videos and resolve(curate.videos).is_dir() else None
    cold = _ColdStart(resolve(curate.cold_start_file)) if curate.cold_start == "annotations" else None
    published = params.difficulty.enabled and params.grpo.enabled and params.difficulty.difficulty_model == "published"
    named = named_files(params)
    train = training_files(params)
    hub = {entry: entry.rpartition(":")[0].split("/")[-1] for entry in split_list(curate.hub_test)}
    pool: list[Sample] = []
    for entry in train:
        wanted = cold.has if cold else lambda sample: True
        pool += kept.add(entry, named[entry][1], curate.format, folder, prefer=wanted, published=published)
    if curate.hub_train:
        name = f"{curate.hub_train.rpartition(':')[0].split('/')[-1]}.jsonl"
        pool += kept.add("hub", Path(name), curate.format, None, published=published)
    samples = list(pool)
    for entry in (entry for entry in named if entry not in train):
        samples += kept.add(entry, named[entry][1], curate.format, folder, name=named[entry][0])
    for entry, name in hub.items():
        samples += kept.add(entry, Path(f"{name}.json"), "auto", None, name=name)
    own = f"{number} rows of each, {len(kept.own_files)} of {len(kept.files)} files and {kept.own_videos} videos are yours"
    tests = [f"{named[e][0]}={kept.files[e]}" if named[e][0] else str(kept.files[e]) for e in named if e not in train]
    tests += [f"{name}={kept.files[entry]}" for entry, name in hub.items()]
    trains = [str(kept.files[e]) for e in (*train, *(["hub"] if curate.hub_train else []))]
    given: dict[str, tuple[Any, str]] = {
        "curate.train_files": ("none" if curate.tests_only else ", ".join(trains), own),
        "curate.test_files": (", ".join(tests), own),
        "curate.videos": (str(kept.videos), f"{kept.drawn_videos} videos were drawn"),
        "curate.hub_train": ("", "the hub is not asked: drawn rows"),
        "curate.hub_test": ("", "the hub is not asked: drawn rows"),
    }
    if cold:
        given["curate.cold_start_file"] = cold.few(pool, inputs / "data" / "cold_start.jsonl", params)
    return given, samples


class _ColdStart:
    """A stronger model's completions: the user's where the file is here, else such as the form takes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = list(read_jsonl(path)) if path.is_file() else []
        self._ids = {str(row.get("id", row.get("qid", ""))) for row in self._rows}
        self._asked = {(str(row.get("video")), str(row.get("query")).strip()) for row in self._rows}

    def has(self, sample: Sample) -> bool:
        return sample.id in self._ids or (sample.video, sample.query.strip()) in self._asked

    def few(self, pool: list[Sample], target: Path, params: Params) -> tuple[str, str]:
        from timer1lib.rehearsal.standin import short_answer

        form, ids = forms.load(params.shared.form), {sample.id for sample in pool}
        asked = {(sample.video, sample.query.strip()) for sample in pool}
        own = [
            row for row in self._rows
            if str(row.get("id", row.get("qid", ""))) in ids or (str(row.get("video")), str(row.get("query")).strip()) in asked
        ]  # fmt: skip
        if own:
            atomic_write_jsonl(target, own)
            return str(target), f"{len(own)} rows of yours"
        texts = [form.write(s, s.window) if form.written else short_answer(form, s, s.window) for s in pool]
        atomic_write_jsonl(target, ({"id": s.id, "completion": text} for s, text in zip(pool, texts, strict=True)))
        return str(target), f"{self._path} is not here, or about other rows: written by the form"


@contextlib.contextmanager
def _offline(hub: Path) -> Iterator[None]:
    """Have what is started meanwhile look for models in `hub` alone."""
    wanted = {"HF_HUB_CACHE": str(hub.resolve()), "HF_HUB_OFFLINE": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
