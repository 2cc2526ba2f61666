"""`timer1 run`: the seven notebooks in order, each once for its key, into a run folder that explains itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, atomic_write_text, project_root, read_json
from timer1lib.params.sections import Params
from timer1lib.runfolder import RunFolder
from timer1lib.runs.display import Display
from timer1lib.runs.execute import check_notebook, execute
from timer1lib.runs.graph import STAGES, StageRef, find_stage, upstream
from timer1lib.runs.kernel import KERNEL_LOCK, exclusive
from timer1lib.runs.keys import changed_parts, check_files, key_parts, stage_key, stage_parameters
from timer1lib.runs.manifest import build_manifest, finish_manifest, now
from timer1lib.runs.stamps import Stamp, Store, begin, bring_back, collect_outputs, damaged, read_stamp, read_started, write_stamp


@dataclass(frozen=True, slots=True)
class Project:
    """Where notebooks and the package's code are; the checkout, or a test's own folders."""

    root: Path
    notebooks: Path
    package: Path

    @classmethod
    def find(cls) -> Project:
        root = project_root()
        return cls(root, root / "notebooks", Path(__file__).resolve().parent.parent)


@dataclass(slots=True)
class RunResult:
    """What a run did. `stages` has, for each notebook, how it came about (ran, resumed, unchanged, kept, reused, brought
    back)."""

    root: Path
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    metrics: dict[str, Any] | None = None
    report: Path | None = None


def run(
    params: Params,
    *,
    from_: str | None = None,
    until: str | None = None,
    fresh: bool = False,
    out: str | Path | None = None,
    project: Project | None = None,
    store: Store | None = None,
    display: Display | None = None,
    report: bool = True,
) -> RunResult:
    """Run the notebooks of a params file; a stage whose parameters, code and inputs are unchanged is skipped.

    Args:
        from_: first stage to look at (`04`, `grpo`); the results of earlier ones are taken as they stand.
        until: last stage to run.
        fresh: run stages anew even where nothing has changed.
        out: the run's folder in place of `outputs/<name>`.
        store: finished stages that a sweep shares between its rows.
        report: write `report.html` at the end of a run that reaches the last stage.

    Raises:
        Timer1Error: no such stage or notebook, an earlier stage that never ran, a folder in use.
        NotebookFailed: a notebook's cell raised.
    """
    project = project or Project.find()
    first = find_stage(from_) if from_ else STAGES[0]
    last = find_stage(until) if until else STAGES[-1]
    if first.number > last.number:
        raise Timer1Error(f"--from {first.notebook} comes after --until {last.notebook}")
    for stage in STAGES[first.number - 1 : last.number]:
        check_notebook(project.notebooks / f"{stage.notebook}.ipynb")
    check_files(params)
    root = Path(out) if out else project.root / "outputs" / params.name
    folder = RunFolder(root)
    with exclusive(root):
        manifest = build_manifest(params, project.root)
        atomic_write_text(folder.params, params_text(params))
        atomic_write_json(folder.manifest, manifest)
        display = display or Display(len(STAGES), root / ".progress")
        result = RunResult(root)
        runner = _Runner(params, folder, project, display, store)
        try:
            for stage in STAGES[: last.number]:
                if stage.number < first.number:
                    result.stages[stage.notebook] = runner.keep(stage)
                else:
                    result.stages[stage.notebook] = runner.bring(stage, fresh)
        finally:
            finish_manifest(folder, manifest, result.stages)
        if folder.metrics.is_file():
            result.metrics = read_json(folder.metrics)
        if report and last is STAGES[-1]:
            result.report = _write_report(folder, any(s["how"] not in ("unchanged", "kept") for s in result.stages.values()))
    return result


class _Runner:
    def __init__(self, params: Params, folder: RunFolder, project: Project, display: Display, store: Store | None) -> None:
        self.params, self.folder, self.project, self.display, self.store = params, folder, project, display, store

    def keep(self, stage: StageRef) -> dict[str, Any]:
        """Take an earlier stage's result as it stands.

        Raises:
            Timer1Error: it never finished, or its files are gone.
        """
        stamp = read_stamp(self.folder, stage)
        if stamp is None:
            raise Timer1Error(f"{stage.notebook} has not finished in {self.folder.root}; run without --from, or from earlier on")
        trouble = damaged(self.folder, stamp)
        if trouble:
            raise Timer1Error(f"{stage.notebook} cannot be kept: {trouble} in {self.folder.root}; run without --from")
        changed = changed_parts(stamp.parts, self._parts(stage))
        self.display.note(f"{stage.notebook}: kept as it is{f', though changed: {changed}' if changed else ''}")
        return {"how": "kept", "seconds": stamp.seconds, "key": stamp.key}

    def bring(self, stage: StageRef, fresh: bool) -> dict[str, Any]:
        """Have the stage's result stand in the run folder: skip, take from the store, go on, or run."""
        parts = self._parts(stage)
        key = stage_key(parts)
        stamp = read_stamp(self.folder, stage)
        if stamp is not None and not fresh:
            why = changed_parts(stamp.parts, parts) or damaged(self.folder, stamp)
            if not why:
                self.display.note(f"{stage.notebook}: unchanged, skipped")
                return {"how": "unchanged", "seconds": stamp.seconds, "key": key}
            self.display.note(f"{stage.notebook}: runs again, {why}")
        elif not fresh and (back := bring_back(self.folder, stage, key)):
            self.display.note(f"{stage.notebook}: the result from before is the one, and stands again")
            return {"how": "brought back", "seconds": back.seconds, "key": key}
        if self.store is None:
            return self._execute(stage, key, parts, fresh)
        with self.store.claim(stage, key):
            started = read_started(self.folder, stage)
            interrupted = started is not None and started.key == key
            if not fresh and not interrupted and (shared := self.store.find(stage, key)):
                begin(self.folder, stage, key, fresh=True)
                taken = self.store.take(shared, self.folder, stage)
                self.display.note(f"{stage.notebook}: shared with {taken.reused_from}")
                return {"how": "reused", "seconds": taken.seconds, "key": key, "from": taken.reused_from}
            done = self._execute(stage, key, parts, fresh)
            self.store.put(self.folder, stage)
            return done

    def _parts(self, stage: StageRef) -> dict[str, Any]:
        read = {}
        for name in upstream(stage.name, self.params):
            stamp = read_stamp(self.folder, find_stage(name))
            read[name] = stamp.digests() if stamp else {}
        notebook = self.project.notebooks / f"{stage.notebook}.ipynb"
        return key_parts(self.params, stage, notebook, self.project.package, read, self.folder.notes)

    def _execute(self, stage: StageRef, key: str, parts: dict[str, Any], fresh: bool) -> dict[str, Any]:
        resumed, before = begin(self.folder, stage, key, fresh)
        parameters = {"run_dir": self._run_dir(), **stage_parameters(self.params, stage)}
        source = self.project.notebooks / f"{stage.notebook}.ipynb"
        self.display.start(stage.notebook, stage.number, resumed)
        started, seconds = time.monotonic(), None
        try:
            lock = self.folder.root / KERNEL_LOCK
            execute(source, self.folder.notebook(stage.notebook), parameters, self.project.root, lock, self.display)
            seconds = time.monotonic() - started
        finally:
            self.display.finish(seconds)
        outputs = collect_outputs(self.folder, stage, before)
        write_stamp(self.folder, stage, Stamp(key, parts, outputs, round(seconds, 3), now()))
        return {"how": "resumed" if resumed else "ran", "seconds": round(seconds, 3), "key": key}

    def _run_dir(self) -> str:
        """The run's folder as a notebook is told it: relative to the project where it lies inside."""
        root = self.folder.root.resolve()
        return str(root.relative_to(self.project.root)) if root.is_relative_to(self.project.root) else str(root)


def params_text(params: Params) -> str:
    """The resolved parameters as YAML that reads back to the same."""
    return yaml.safe_dump(params.model_dump(), sort_keys=False, allow_unicode=True)


def _write_report(folder: RunFolder, changed: bool) -> Path:
    if folder.report.is_file() and not changed:
        return folder.report
    from timer1lib.view.report import write_report

    path: Path = write_report(folder)
    return path


def summary_lines(result: RunResult) -> Sequence[str]:
    """What the command line prints at the end: the results table, then where things are."""
    from timer1lib.evaluation.tables import brief_table, text_table

    lines = []
    if result.metrics is not None:
        lines += [text_table(brief_table(result.metrics)), ""]
    lines.append(f"run     {result.root}")
    if result.report is not None:
        lines.append(f"report  {result.report}")
    return lines
