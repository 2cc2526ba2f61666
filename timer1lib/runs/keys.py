"""A stage's key: one digest of everything that its result depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timer1lib.errors import Timer1Error
from timer1lib.files import read_json, resolve, sha256_file
from timer1lib.params.base import split_list
from timer1lib.params.sections import Params
from timer1lib.runs.closure import code_hash
from timer1lib.runs.graph import StageRef

NOT_INPUTS = frozenset({"cache_dir"})
"""Parameters that name folders which a stage only writes to."""

CONTENT_LIMIT = 1 << 30
"""Folders up to this many bytes are known by their files' content, larger ones by names, sizes and times."""


def stage_parameters(params: Params, stage: StageRef) -> dict[str, Any]:
    """What a notebook is given, `run_dir` aside: the shared parameters and its own section's."""
    return {**params.shared.model_dump(), **getattr(params, stage.name).model_dump()}


def stage_key(parts: Mapping[str, Any]) -> str:
    """Digest of a key's parts, whatever their order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def key_parts(
    params: Params, stage: StageRef, notebook: Path, package: Path, upstream: Mapping[str, Mapping[str, str]], notes: Path
) -> dict[str, Any]:
    """Everything a stage depends on, readable, so that a stamp can say what changed.

    Args:
        upstream: for each stage that this one reads from, its outputs with their digests.
        notes: the notes that a person saved, which 01 reads.
    """
    parameters = stage_parameters(params, stage)
    inputs = input_files(parameters)
    if stage.name == "curate" and notes.is_file():
        inputs["notes.jsonl"] = sha256_file(notes)
    return {
        "params": parameters,
        "notebook": notebook_hash(notebook),
        "code": code_hash(package, f"stages.{stage.name}"),
        "inputs": inputs,
        "upstream": {name: stage_key(files) for name, files in upstream.items()},
    }


def changed_parts(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """In words, what differs between two keys' parts: `params (sft.steps)`, `code`, `inputs`, ..."""
    words = []
    for part, value in new.items():
        before = old.get(part)
        if before == value:
            continue
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            names = [key for key in {**before, **value} if before.get(key) != value.get(key)]
            words.append(f"{part} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})")
        else:
            words.append(part)
    return ", ".join(words)


def notebook_hash(path: Path) -> str:
    """Digest of a notebook's code: outputs, counts, prose and metadata do not count.

    The parameters cell does not either: every value in it is replaced by the runner's.
    """
    try:
        cells = read_json(path)["cells"]
    except (KeyError, TypeError):
        raise Timer1Error(f"{path}: not a notebook") from None
    sources = [
        "".join(cell["source"])
        for cell in cells
        if cell["cell_type"] == "code" and "parameters" not in cell.get("metadata", {}).get("tags", [])
    ]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def input_files(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Digest of every file or folder that a parameter names (alone or in a comma-separated list), by its name."""
    found: dict[str, str] = {}
    for name, value in parameters.items():
        if name in NOT_INPUTS or not isinstance(value, str):
            continue
        for text in split_list(value):
            if len(text) > 4096 or "\0" in text or ("/" not in text and "." not in text):
                continue
            path = resolve(text)
            if not path.exists() and "=" in text:  # test_files may give each file a name: `TVGBench=path`
                path = resolve(text.partition("=")[2].strip())
            if path.is_file():
                found[text] = sha256_file(path)
            elif path.is_dir():
                found[text] = folder_hash(path)
    return found


def folder_hash(folder: Path) -> str:
    """Digest of a folder: content where it is small (a model, an annotation folder), else names, sizes and times."""
    files = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    small = sum(stat.st_size for _, stat in files) <= CONTENT_LIMIT
    digest = hashlib.sha256()
    for path, stat in files:
        mark = sha256_file(path) if small else f"{stat.st_size}:{stat.st_mtime_ns}"
        digest.update(f"{path.relative_to(folder).as_posix()}\0{mark}\0".encode())
    return digest.hexdigest()
