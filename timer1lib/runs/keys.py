"""A stage's key: one digest of everything that its result depends on."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from timer1lib import ideas
from timer1lib.data.readers import FORMATS
from timer1lib.errors import Timer1Error, shown
from timer1lib.extras import how_to_get
from timer1lib.files import read_json, resolve, sha256_file, sha256_sample
from timer1lib.models.config import base_name, model_source
from timer1lib.params import CANNOT_CHANGE_RESULTS, SHARED_READ, split_list
from timer1lib.params.sections import Params
from timer1lib.params.trainer import packages_needed
from timer1lib.runfolder import SWEEP, owner, run_files
from timer1lib.runs.closure import code_hash
from timer1lib.runs.graph import StageRef

CONTENT_LIMIT = 1 << 30
"""Folders up to this many bytes are known by all of their files' content, larger ones by a sample of it."""


def stage_parameters(params: Params, stage: StageRef) -> dict[str, Any]:
    """What a notebook is given, `run_dir` aside: the shared parameters that it reads and its own section's.

    Without GRPO nobody needs to know how hard a sample is, so 03 is told to leave it.
    """
    shared = {name: value for name, value in params.shared.model_dump().items() if name in SHARED_READ[stage.name]}
    own = getattr(params, stage.name).model_dump()
    if stage.name == "difficulty":
        own["enabled"] = params.difficulty.enabled and params.grpo.enabled
    return {**shared, **own}


def given_parameters(params: Params, stage: StageRef) -> dict[str, Any]:
    """The parameters of a stage that can change its result."""
    given = {k: v for k, v in stage_parameters(params, stage).items() if k not in CANNOT_CHANGE_RESULTS}
    return {"enabled": False} if given.get("enabled") is False else given  # nothing else is read then


def stage_key(parts: Mapping[str, Any]) -> str:
    """Digest of a key's parts, whatever their order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def key_parts(
    params: Params, stage: StageRef, notebook: Path, package: Path, upstream: Mapping[str, Mapping[str, str]], notes: Path
) -> dict[str, Any]:
    """Everything a stage depends on, readable, so that a stamp can say what changed.

    `upstream` has, for each stage that this one reads from, its outputs with their digests; `notes` a person saved for 01.
    """
    given = given_parameters(params, stage)
    inputs = input_files({name: value for name, value in given.items() if name != "sweep"})
    if stage.name == "curate" and params.curate.use_notes and notes.is_file():
        inputs["notes"] = [_mark(notes)]
    if stage.name == "compare" and params.compare.runs:
        inputs["runs"] = [_run_mark(text) for text in split_list(params.compare.runs)]
    if stage.name == "compare" and (sweep := params.compare.sweep):
        ends = [path / SWEEP for path in (resolve(sweep), resolve(f"outputs/sweeps/{sweep}"))]
        inputs["sweep"] = [next((_mark(path) for path in ends if path.is_file()), sweep)]
    return {
        "params": {name: value for name, value in given.items() if name not in inputs},
        "notebook": notebook_hash(notebook),
        "code": code_hash(package, f"stages.{stage.name}"),
        "inputs": inputs,
        "upstream": {name: stage_key(files) for name, files in upstream.items()},
    }


def check_files(params: Params) -> None:
    """Look whether everything that the parameters name is there, before anything starts; a Timer1Error names what is not.

    A hub id is not asked.
    """
    shares = {"sft.batch_size": (params.sft.enabled, params.sft.batch_size)}
    shares["grpo.prompts_per_step"] = (params.grpo.enabled, params.grpo.prompts_per_step)
    for name, (trains, whole) in shares.items():
        if trains and params.shared.processes and whole % params.shared.processes:
            count = params.shared.processes
            raise Timer1Error(f"shared.processes: {count} processes must divide {name} {whole}: ranks share each step evenly")
    if params.shared.parallel not in ("ddp", "fsdp2") and not resolve(params.shared.parallel).is_file():
        raise Timer1Error(f"shared.parallel {shown(params.shared.parallel)}: no such accelerate config file")
    p = params.curate
    try:
        model_source(base_name(params.shared))
    except Timer1Error as error:
        raise Timer1Error(f"shared.model {shown(params.shared.model)}: {error}") from error
    for part in (params.sft, params.grpo):
        for package, what in packages_needed(part.weights, part.optim, params.shared.report_to).items() if part.enabled else ():
            if importlib.util.find_spec(package) is None:
                raise Timer1Error(f"{what} needs {package}, which is not installed: {how_to_get(package)}")
    named = [("notes_file", p.notes_file)]
    if p.cold_start == "annotations":
        named.append(("cold_start_file", p.cold_start_file))
    if p.source == "files":
        if p.format != "auto" and p.format not in FORMATS:
            raise Timer1Error(f"curate.format {shown(p.format)}: auto, or one of {', '.join(FORMATS)}")
        named += [("train_files", entry) for entry in split_list("" if p.tests_only else p.train_files)]
        tests = split_list(p.test_files)
        named += [("test_files", entry if resolve(entry).exists() else entry.rpartition("=")[2].strip()) for entry in tests]
        if p.videos and not resolve(p.videos).is_dir():
            raise Timer1Error(f"curate.videos {shown(p.videos)}: no such folder")
    for parameter, name in named:
        if name and not resolve(name).exists():
            raise Timer1Error(f"curate.{parameter} {shown(name, 200)}: no such file")


def changed_parts(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """In words, what differs between two keys' parts: `params (sft.steps)`, `code`, `inputs`, ..."""
    words = []
    for part, value in new.items():
        before = old.get(part)
        if before != value and isinstance(before, Mapping) and isinstance(value, Mapping):
            none = object()
            names = [key for key in {**before, **value} if before.get(key, none) != value.get(key, none)]
            words.append(f"{part} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})")
        elif before != value:
            words.append(part)
    return ", ".join(words)


def notebook_hash(path: Path) -> str:
    """Digest of a notebook's code: outputs, counts, prose and metadata do not count.

    The parameters cell does not either: every value in it is replaced by the runner's.
    """
    sources = [
        "".join(cell["source"])
        for cell in notebook_cells(path)
        if cell["cell_type"] == "code" and "parameters" not in cell.get("metadata", {}).get("tags", [])
    ]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def notebook_cells(path: Path) -> list[dict[str, Any]]:
    try:
        return list(read_json(path)["cells"])
    except (KeyError, TypeError):
        raise Timer1Error(f"{path}: not a notebook") from None


def input_files(parameters: Mapping[str, Any]) -> dict[str, list[str]]:
    """For every parameter that names files or folders (alone or in a comma-separated list), what they hold.

    An entry is `name sha256:...` for a file (its name may become a split's), `sha256:...` for a folder, with what stood
    before it (`TVGBench=`); the text itself where there is no such file. Where a file lies does not count. A function in a
    file (`ideas/edges.py:edge_iou:1.0`) counts by what its source means.
    """
    found: dict[str, list[str]] = {}
    for parameter, value in parameters.items():
        texts = split_list(value) if isinstance(value, str) else []
        marks = [_entry(text) for text in texts]
        if any(mark is not None for mark in marks):
            found[parameter] = [mark or text for mark, text in zip(marks, texts, strict=True)]
    return found


def _entry(text: str) -> str | None:
    """What the file or folder holds that a text names; None where it names none."""
    if ideas.is_reference(text):
        place, _, rest = text.partition(".py:")
        name, _, weight = rest.partition(":")
        return f"{name}:{weight} {ideas.identity(f'{place}.py:{name}')}"
    if len(text) > 4096 or "\0" in text or ("/" not in text and "." not in text):
        return None
    path, label = resolve(text), ""
    if not path.exists() and "=" in text:  # test_files may give each file a name: `TVGBench=path`
        label, _, rest = text.partition("=")
        path, label = resolve(rest.strip()), f"{label.strip()}="
    return f"{label}{_mark(path)}" if path.is_file() or path.is_dir() else None


def _mark(path: Path) -> str:
    return f"sha256:{folder_hash(path)}" if path.is_dir() else f"{path.name} sha256:{_file_hash(path)}"


def _run_mark(text: str) -> str:
    """What 07 reads of another run, given as a folder or as a name under `outputs/`; the text itself where there is none."""
    root = next((r for r in (resolve(text), resolve(f"outputs/{text}")) if (r / "metrics.json").is_file()), None)
    if root is None:
        return text
    read = [name for name in run_files(root) if owner(name) in ("curate", "evaluate") or name.startswith("logs/")]
    return f"{root.name} sha256:{stage_key({name: _file_hash(root / name) for name in read})}"


def folder_hash(folder: Path) -> str:
    """Digest of a folder's files by name and content; of a large one (videos), by name, size and a sample of content.

    Times do not count, so that a copied folder is the same.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    small = sum(path.stat().st_size for path in files) <= CONTENT_LIMIT
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()}\0{_file_hash(path, whole=small)}\0".encode())
    return digest.hexdigest()


def _file_hash(path: Path, *, whole: bool = True) -> str:
    stat = path.stat()
    return _hash_once(path, stat.st_size, stat.st_mtime_ns, whole)


@lru_cache(maxsize=1 << 16)
def _hash_once(path: Path, size: int, mtime_ns: int, whole: bool) -> str:
    """A file's digest, worked out once a process: the same model and videos are in several stages' keys."""
    return sha256_file(path) if whole else sha256_sample(path)
