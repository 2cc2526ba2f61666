"""The manifest of a run: what code, packages, files and machine its numbers came from."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from timer1lib import __version__
from timer1lib.files import atomic_write_json, read_json, resolve
from timer1lib.params import result_parameters, split_list
from timer1lib.params.sections import SECTIONS, Params
from timer1lib.runfolder import RunFolder
from timer1lib.runs.keys import input_files

PACKAGES = (
    "torch", "torchvision", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "safetensors",
    "numpy", "pandas", "decord", "av", "pillow", "pydantic", "plotly", "papermill", "nbclient", "ipykernel", "anywidget",
)  # fmt: skip


def build_manifest(params: Params, project: Path) -> dict[str, Any]:
    """Everything about a run that is known before it starts."""
    inputs: dict[str, list[str]] = {}
    for section in ("shared", *SECTIONS):
        inputs |= {f"{section}.{name}": marks for name, marks in input_files(result_parameters(getattr(params, section))).items()}
    return {
        "name": params.name,
        "created": now(),
        "timer1": __version__,
        "git": git_state(project),
        "seed": params.shared.seed,
        "packages": package_versions(),
        "machine": machine(),
        "inputs": inputs,
    }


def finish_manifest(run: RunFolder, manifest: Mapping[str, Any], stages: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the manifest with what is known at the end: the stages, and the clock's largest error where 01 measured it."""
    full = {**manifest, "finished": now(), "stages": dict(stages)}
    if (clock := run.data("clock.json")).is_file():
        full["clock"] = read_json(clock)
    atomic_write_json(run.manifest, full)


def disk_line(params: Params, root: Path, stages: Collection[str]) -> str:
    """How much disk stages may need at most, roughly, and how much is free.

    A training with float32 masters keeps models twice as wide as a checkpoint in 16 bits.
    A training leaves one model (an epoch of RL each one more until it is finished), and saves two states of it
    meanwhile, counted as three times the model: weights and both moments of the optimizer.
    """
    shared, grpo = params.shared, params.grpo
    wide = 2 if shared.dtype == "bfloat16" else 1
    models = 7 * wide * ("sft" in stages and params.sft.enabled) + (7 + grpo.epochs) * wide * ("grpo" in stages and grpo.enabled)
    size = sum(path.stat().st_size for path in resolve(shared.model).glob("*.safetensors")) * models
    parts = []
    if models:
        need = f"up to {size / 1e9:.2f} GB" if size else f"{models} times the size of {shared.model}"
        parts.append(f"{need} for checkpoints in {root} ({_free(root):.2f} GB free)")
    if set(stages) - {"inspect", "compare"}:
        cache = resolve(shared.cache_dir)
        need = f"up to {shared.cache_gb:.2f} GB each"
        parts.append(f"{need} for frames and features in {cache} ({_free(cache):.2f} GB free)")
    return f"disk: {', '.join(parts) or 'next to nothing'}"


def _free(folder: Path) -> float:
    """Free disk in GB where a folder is, or will be."""
    there = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    return shutil.disk_usage(there).free / 1e9


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def git_state(project: Path) -> dict[str, Any]:
    """Commit and whether files differ from it; both None outside a git checkout."""
    commit = _output(["git", "rev-parse", "HEAD"], project)
    if commit is None:
        return {"commit": None, "modified": None}
    return {"commit": commit, "modified": bool(_output(["git", "status", "--porcelain", "--untracked-files=no"], project))}


def package_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def machine() -> dict[str, Any]:
    """System, processor, memory in GB and the accelerators that the driver's tool lists."""
    here = psutil.Process()
    listed = _output(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"], Path.cwd())
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(here.cpu_affinity()) if hasattr(here, "cpu_affinity") else psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "accelerators": listed.splitlines() if listed else [],
    }


def cards() -> int:
    """Graphics cards that this process may use, asked of the driver's tool: the libraries would take memory on each."""
    listed = _output(["nvidia-smi", "-L"], Path.cwd()) or ""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    here = len(listed.splitlines())
    return here if given is None else min(here, len(split_list(given)))


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _output(command: list[str], cwd: Path) -> str | None:
    """What a command printed, or None where it is not installed or fails."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
