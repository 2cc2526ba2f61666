"""`timer1 lab` and `timer1 inspect`: JupyterLab on copies of the notebooks, so that no file of the project changes by it."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
import re
import runpy
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from timer1lib.data.readers import read_annotations
from timer1lib.data.video_checks import VideoFolder
from timer1lib.errors import Timer1Error, shown
from timer1lib.evaluation.answers import find_run, match, read_answers
from timer1lib.files import atomic_write_json, atomic_write_jsonl, atomic_write_text, project_root, read_json, read_yaml, resolve
from timer1lib.params.cells import cell_source, current_source, with_cell
from timer1lib.params.load import validated
from timer1lib.params.sections import Params
from timer1lib.processes import leave_with
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Sample
from timer1lib.view.items import grounding_splits

log = logging.getLogger(__name__)

SPLIT = "given"
Given = str | Path | None


def run_from_predictions(
    predictions: Path | Sequence[Path], annotations: Path, videos: Path, root: Path, format: str | None = None
) -> RunFolder:
    """Write a run with the annotations as its only split and every file of predictions as a checkpoint named after it.

    Args:
        predictions, annotations: as `timer1 score` reads them.
        videos: folder of the video files; names without ending or with the publisher's folders are found in it.
        root: where the run goes; notes that are there already stay.

    Raises:
        Timer1Error: an unreadable file, no such folder, or a file without a prediction about any of the samples.
    """
    files = [predictions] if isinstance(predictions, Path) else list(predictions)
    given = [read_answers(file) for file in files]
    read = read_annotations(annotations, format)
    samples = [sample for sample in read.samples if sample.windows]
    if not samples:
        raise Timer1Error(f"{annotations}: no sample with a window to look at")
    matches = [match(samples, answers) for answers in given]
    for file, answers, matched in zip(files, given, matches, strict=True):
        if len(matched.unknown) == len(answers):
            raise Timer1Error(f"{file}: none of its {len(answers)} predictions is about a sample of {annotations}")
    folder = VideoFolder(videos)
    unseen = 0
    for sample in samples:
        found = folder.find(sample.video)
        unseen += found is None
        sample.video = str(found) if found is not None else sample.video
    if unseen:
        log.warning("%d of %d samples have no file below %s: they are shown without video", unseen, len(samples), videos)
    _unique_ids(samples)
    _durations(samples, videos)
    run = RunFolder(root)
    run.set_video_root(videos)
    run.write_samples(SPLIT, samples)
    atomic_write_json(run.data("splits.json"), {SPLIT: {"kind": "grounding", "n": len(samples)}})
    for old in (root / "predictions").glob("*.jsonl"):
        old.unlink()
    for file, name, matched in zip(files, model_names(files), matches, strict=True):
        rows = [replace(row, id=s.id).to_json() for s, row in zip(samples, matched.rows, strict=True) if row is not None]
        atomic_write_jsonl(run.predictions(name, SPLIT), rows)
        log.info(
            "%s: %d samples, %d answered, %d predictions about no sample", file, len(samples), len(rows), len(matched.unknown)
        )
    return run


def model_names(files: Sequence[Path]) -> list[str]:
    """What each file of predictions is called: its name, with its folder's before it where two have the same one."""
    names = [_plain(file, "model") for file in files]
    long = [
        f"{_plain(file.resolve().parent, 'folder')}-{name}" if names.count(name) > 1 else name
        for file, name in zip(files, names, strict=True)
    ]
    return [name if long.count(name) == 1 else f"{name}-{long[:i].count(name) + 1}" for i, name in enumerate(long)]


def _plain(path: Path, otherwise: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-") or otherwise


def _durations(samples: list[Sample], videos: Path) -> None:
    """Fill in the lengths (seconds) that the annotations do not give, from the files."""
    from timer1lib.video.probe import timeline

    for sample in (sample for sample in samples if sample.duration is None):
        if sample.video_start is not None and sample.video_end is not None:
            sample.duration = sample.video_end - sample.video_start
        elif (videos / sample.video).exists():
            try:
                sample.duration = timeline(videos / sample.video).duration_s - (sample.video_start or 0.0)
            except Timer1Error as error:
                log.warning("%s", error)


def _unique_ids(samples: list[Sample]) -> None:
    """Published ids are not always unique; predictions are already matched, so a suffix does no harm."""
    seen: Counter[str] = Counter()
    for sample in samples:
        seen[sample.id] += 1
        if seen[sample.id] > 1:
            sample.id = f"{sample.id}#{seen[sample.id]}"


NOTEBOOK = "06_inspect"
COPY = "06_inspect_open"
"""Name of the copy in the run's `notebooks/`; the executed 06_inspect beside it is left alone."""


def inspect(
    runs: Given | Sequence[Given] = None,
    predictions: Given | Sequence[Given] = None,
    annotations: Given = None,
    videos: Given = None,
    port: int = 8888,
    open_browser: bool = True,
) -> int:
    """Open 06_inspect in JupyterLab and stay until it ends (Ctrl-C); returns its exit status.

    Args:
        runs: a run's folder, or its name under `outputs/`; of several, all checkpoints are shown side by side.
        predictions, annotations, videos: instead of runs, one or more files of predictions made elsewhere.
        port: the first port to try.

    Raises:
        Timer1Error: neither a run nor the three others; nothing to look at there.
    """
    return _serve(prepare(runs, predictions, annotations, videos), port, open_browser)


def _serve(notebook: Path, port: int, open_browser: bool) -> int:
    package = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))}
    try:
        return subprocess.run(lab_command(notebook, port, open_browser), env=environment, check=False).returncode
    except KeyboardInterrupt:
        return 0


def lab_command(notebook: Path, port: int, open_browser: bool = True) -> list[str]:
    """The command that serves the notebook's folder, or its run's, to this machine alone, with a token, as long as this process
    lives.
    """
    root = notebook.parent if notebook.parent.name == LAB else notebook.parent.parent
    command = [sys.executable, "-m", "timer1lib.view.open", str(os.getpid())]
    command += [f"--ServerApp.root_dir={root}", f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1"]
    command.append(f"--LabApp.default_url=/lab/tree/{notebook.relative_to(root).as_posix()}")
    if not open_browser:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    return command


def prepare(
    runs: Given | Sequence[Given] = None,
    predictions: Given | Sequence[Given] = None,
    annotations: Given = None,
    videos: Given = None,
) -> Path:
    """Write the copy of 06_inspect that belongs to the first of the runs; arguments and errors as in `inspect`. Its path."""
    folders = runs_to_inspect(runs, predictions, annotations, videos)
    return write_copy(folders[0], folders[1:])


def runs_to_inspect(
    runs: Given | Sequence[Given] = None,
    predictions: Given | Sequence[Given] = None,
    annotations: Given = None,
    videos: Given = None,
) -> list[RunFolder]:
    """The runs that are looked at, made first for predictions from elsewhere; arguments and errors as in `inspect`."""
    named, given = _listed(runs), _listed(predictions)
    if named and not given and annotations is None and videos is None:
        folders = [RunFolder(find_run(run).resolve()) for run in named]
        for folder in folders:
            if not grounding_splits(folder):
                raise Timer1Error(f"{folder.root}: no predictions to look at yet; run it until 05_evaluate first")
        if len({folder.root for folder in folders}) < len(folders):
            raise Timer1Error("inspect: a run is named twice")
        return folders
    if given and not named and annotations is not None and videos is not None:
        files = [resolve(path) for path in given]
        digest = hashlib.sha256(
            json.dumps([str(path.resolve()) for path in (*files, resolve(annotations))]).encode()
        ).hexdigest()[:8]
        root = project_root() / "outputs" / f"inspect-{_plain(files[0], 'predictions')}-{digest}"
        return [run_from_predictions(files, resolve(annotations), resolve(videos), root)]
    raise Timer1Error("inspect what? Give runs, or --predictions with --annotations and --videos")


def _listed(given: Given | Sequence[Given]) -> list[str | Path]:
    return [one for one in ([given] if given is None or isinstance(given, str | Path) else given) if one is not None]


def write_copy(run: RunFolder, others: Sequence[RunFolder] = ()) -> Path:
    """06_inspect with this run's parameters, beside `others` where there are some; a copy that already has them keeps what a
    person added to it.
    """
    params = _params(run)
    if others:
        beside = {"runs": ", ".join(str(other.root.resolve()) for other in others)}
        params = params.model_copy(update={"inspect": params.inspect.model_copy(update=beside)})
    lines = cell_source(params, "inspect").splitlines()
    lines[0] = f"run_dir: str = {json.dumps(str(run.root.resolve()))}  # the run that this notebook belongs to"
    source = project_root() / "notebooks" / f"{NOTEBOOK}.ipynb"
    names = "_".join(_plain(other.root, "run") for other in others)[:80]
    target = run.notebook(f"{COPY}_{names}" if names else COPY)
    wanted = with_cell(read_json(source), "\n".join(lines))
    if target.is_file() and target.stat().st_mtime >= source.stat().st_mtime:
        kept = read_json(target)
        if with_cell(kept, "\n".join(lines)) == kept:
            return target.resolve()
    atomic_write_text(target, json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")
    return target.resolve()


def _params(run: RunFolder) -> Params:
    """What 06_inspect reads of the run's parameters; the other sections may be of an older version."""
    if not run.params.is_file():
        return Params()
    tree = read_yaml(run.params)
    kept = {key: tree[key] for key in ("name", "shared", "inspect") if isinstance(tree, dict) and key in tree}
    return validated(Params, kept, str(run.params))


LAB = "lab"
"""Folder of the copies, under `outputs/`."""
MADE_FROM = "timer1_made_from"
"""In a copy's metadata: the digest of the cells that it was made from; by it a copy that nobody touched is known."""


def lab(port: int = 8888, open_browser: bool = True) -> int:
    """Open copies of the notebooks in JupyterLab and stay until it ends (Ctrl-C); returns its exit status."""
    folder, kept = copy_notebooks()
    for name in kept:
        sys.stderr.write(f"{name}: your copy is kept; the project's has changed since (timer1 lab --new {name} makes it anew)\n")
    return _serve(folder / "01_curate.ipynb", port, open_browser)


def copy_notebooks(anew: str = "") -> tuple[Path, list[str]]:
    """Bring the copies in `outputs/lab/` up to date, but those that a person has changed; `anew` names one to be replaced.

    Returns:
        The folder, and the names of copies that were kept though the project's notebook is another one by now.
    """
    folder, kept = project_root() / "outputs" / LAB, []
    sources = sorted((project_root() / "notebooks").glob("0*.ipynb"))
    if anew and anew not in [source.stem for source in sources]:
        raise Timer1Error(f"{shown(anew)}: no such notebook; there are {', '.join(source.stem for source in sources)}")
    for source in sources:
        notebook, target = read_json(source), folder / source.name
        if target.is_file() and source.stem != anew:
            copy = read_json(target)
            made_from = copy.get("metadata", {}).get(MADE_FROM)
            if _cells(copy) != made_from:
                if made_from != _cells(notebook):
                    kept.append(source.stem)
                continue
            if made_from == _cells(notebook):
                continue
        elif target.is_file():
            os.replace(target, target.with_suffix(f".{int(target.stat().st_mtime)}.ipynb"))
        notebook["metadata"] = {**notebook.get("metadata", {}), MADE_FROM: _cells(notebook)}
        atomic_write_text(target, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    return folder, kept


def _cells(notebook: dict[str, Any]) -> str:
    """A digest of what is written in a notebook's cells; outputs and counts do not matter."""
    texts = [[cell["cell_type"], "".join(cell["source"])] for cell in notebook["cells"]]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def bring_back(name: str, yes: bool = False) -> str:
    """Take a copy's cells into the project's notebook, without outputs; its parameters cell stays. What changed, as a diff.

    Without `yes` nothing is written.
    """
    source, target = (project_root() / place / f"{name}.ipynb" for place in ("notebooks", f"outputs/{LAB}"))
    for path in (source, target):
        if not path.is_file():
            raise Timer1Error(f"{path}: no such notebook")
    before, copy = read_json(source), read_json(target)
    own = current_source(before)
    after = {**before, "cells": [{**cell, **_bare(cell)} for cell in copy["cells"]]}
    after = with_cell(after, own) if own is not None else after
    old, new = ("\n\n".join("".join(cell["source"]) for cell in each["cells"]).splitlines() for each in (before, after))
    changed = "\n".join(difflib.unified_diff(old, new, f"notebooks/{name}", f"outputs/{LAB}/{name}", lineterm=""))
    if changed and yes:
        atomic_write_text(source, json.dumps(after, indent=1, ensure_ascii=False) + "\n")
        copy["metadata"] = {**copy.get("metadata", {}), MADE_FROM: _cells(copy)}
        atomic_write_text(target, json.dumps(copy, indent=1, ensure_ascii=False) + "\n")
    return changed


def _bare(cell: dict[str, Any]) -> dict[str, Any]:
    return {"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {}


def main() -> None:
    """JupyterLab that ends with its starter, whose process id is the first argument; its kernels watch it in turn."""
    leave_with(int(sys.argv.pop(1)))
    runpy.run_module("jupyterlab", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
