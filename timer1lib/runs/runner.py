"""`timer1 run`: the seven notebooks in order, each once for its key, into a run folder that explains itself."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

import yaml

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, atomic_write_text, project_root, read_json
from timer1lib.params import SHARED_READ
from timer1lib.params.sections import Params
from timer1lib.progress import clock
from timer1lib.runfolder import RunFolder
from timer1lib.runs import stamps
from timer1lib.runs.display import Display
from timer1lib.runs.execute import execute
from timer1lib.runs.graph import STAGES, StageRef, find_stage, upstream
from timer1lib.runs.kernel import KERNEL_LOCK, Held, exclusive
from timer1lib.runs.keys import changed_parts, check_files, stage_key, stage_parameters
from timer1lib.runs.manifest import build_manifest, disk_line, finish_manifest
from timer1lib.runs.stamps import Store, damaged, parts_of, read_stamp
from timer1lib.workers.launch import start_server
from timer1lib.workers.nodes import Nodes

ASK_SECONDS = 600.0
"""A finished checkpoint that took longer is replaced only by a person who said so, where there is one to ask."""


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
    """What a run did. `stages` has each notebook's `how`: ran, resumed, unchanged, kept, reused or brought back."""

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
    nodes: Nodes | None = None,
    report: bool = True,
    yes: bool = False,
) -> RunResult:
    """Run the notebooks of a params file; a stage whose parameters, code and inputs are unchanged is skipped.

    Args:
        from_: first stage to look at (`04`, `grpo`); the results of earlier ones are taken as they stand.
        fresh: run stages anew even where nothing has changed.
        out: the run's folder in place of `outputs/<name>`.
        store: finished stages that a sweep shares between its rows.
        nodes: the machines that work on this run, of which this is the first; None: this one alone.
        report: write `report.html` at the end of a run that reaches the last stage.
        yes: replace finished checkpoints without asking.

    Raises:
        Timer1Error: no such stage or notebook, an earlier stage that never ran, a folder in use or of something else.
        NotebookFailed: a notebook's cell raised.
    """
    project = project or Project.find()
    stages = _stages(project, from_, until)
    last = stages[-1]
    check_files(params)
    root = _root(params, project, out, from_)
    folder = RunFolder(root)
    display = display or Display(len(STAGES), root / ".progress")
    result = RunResult(root)
    with exclusive(root) as held:
        runner = _Runner(params, folder, project, display, store, held)
        stamps.clean(folder)
        replaced = to_run_again(params, folder, project, stages, fresh)
        display.note(disk_line(params, root, [stage.name for stage in stages]))
        for line in replaced:
            display.note(f"to run again: {line}")
        if not yes:
            ask([line for line in replaced if line.precious])
        manifest = build_manifest(params, project.root)
        atomic_write_json(folder.manifest, manifest)
        atomic_write_text(folder.params, params_text(params))
        try:
            with nodes.open(root) if nodes is not None else contextlib.nullcontext():
                for stage in STAGES[: last.number]:
                    result.stages[stage.notebook] = runner.bring(stage, fresh) if stage in stages else runner.keep(stage)
        finally:
            runner.close()
            held.check()
            finish_manifest(folder, manifest, result.stages)
        if last is STAGES[-1] or store is not None:
            stamps.forget_previous(folder)
        if folder.metrics.is_file():
            result.metrics = read_json(folder.metrics)
        if report and last is STAGES[-1]:
            result.report = folder.report
            if not folder.report.is_file() or any(s["how"] not in ("unchanged", "kept") for s in result.stages.values()):
                from timer1lib.view.report import write_report

                write_report(folder)
    return result


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run will do with a stage."""

    notebook: str
    why: str
    """Why it runs: what changed, or that it never finished; empty where it is unchanged and skipped."""
    seconds: float | None
    """What it took last time; None where it never finished."""
    precious: bool = False
    """A finished checkpoint that took long would be replaced."""

    def __str__(self) -> str:
        return f"{self.notebook}, {self.why}; it took {clock(self.seconds or 0)}"


def planned(
    params: Params,
    *,
    from_: str | None = None,
    until: str | None = None,
    fresh: bool = False,
    out: str | Path | None = None,
    project: Project | None = None,
) -> list[Planned]:
    """What `run` would do, without doing any of it; errors as there."""
    project = project or Project.find()
    stages = _stages(project, from_, until)
    check_files(params)
    return plan_stages(params, RunFolder(_root(params, project, out, from_)), project, stages, fresh)


def plan_text(plan: Sequence[Planned]) -> str:
    """A line a stage."""
    lines = []
    for stage in plan:
        before = "" if stage.seconds is None else f" (took {clock(stage.seconds)})"
        lines.append(f"{stage.notebook}: {f'runs, {stage.why}' if stage.why else 'unchanged, skipped'}{before}")
    return "\n".join(lines)


def somebody_there() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(lines: Sequence[Planned | str]) -> None:
    """Ask whether finished checkpoints may be replaced, where there is somebody to ask; a Timer1Error where they may not."""
    if not lines or not somebody_there():
        return
    sys.stderr.write(f"{'; '.join(map(str, lines))}. Replace what is finished? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Timer1Error("nothing was run, and all stands as it was; --yes goes on without asking")


def to_run_again(
    params: Params, folder: RunFolder, project: Project, stages: Sequence[StageRef], fresh: bool = False
) -> list[Planned]:
    """The finished stages that will run again, or will if an earlier one leaves other bytes: why, and how long it took."""
    return [stage for stage in plan_stages(params, folder, project, stages, fresh) if stage.why and stage.seconds is not None]


def plan_stages(
    params: Params, folder: RunFolder, project: Project, stages: Sequence[StageRef], fresh: bool = False
) -> list[Planned]:
    """What would become of each stage of a run's folder."""
    found, changing = [], set()
    for stage in stages:
        stamp = read_stamp(folder, stage)
        if stamp is None:
            changing.add(stage.name)
            found.append(Planned(stage.notebook, "it has not finished", None))
            continue
        parts = parts_of(params, folder, project.notebooks, project.package, stage)
        why = "--fresh" if fresh else changed_parts(stamp.parts, parts) or damaged(folder, stamp) or ""
        earlier = [find_stage(name).notebook for name in upstream(stage.name, params) if name in changing]
        if not why and earlier:
            why = f"if {' or '.join(earlier)} changes what it reads"
        if why:
            changing.add(stage.name)
        precious = bool(why) and stamp.seconds > ASK_SECONDS and any(n.startswith("checkpoints/") for n in stamp.outputs)
        found.append(Planned(stage.notebook, why, stamp.seconds, precious))
    return found


def _stages(project: Project, from_: str | None, until: str | None) -> Sequence[StageRef]:
    first = find_stage(from_) if from_ else STAGES[0]
    last = find_stage(until) if until else STAGES[-1]
    if first.number > last.number:
        raise Timer1Error(f"--from {first.notebook} comes after --until {last.notebook}")
    stages = STAGES[first.number - 1 : last.number]
    for stage in stages:
        if not (notebook := project.notebooks / f"{stage.notebook}.ipynb").is_file():
            raise Timer1Error(f"{notebook}: no such notebook")
    return stages


def _root(params: Params, project: Project, out: str | Path | None, from_: str | None) -> Path:
    """The run's folder, which is free to be written into or a run already."""
    root = Path(out) if out else project.root / "outputs" / params.name
    stamps.refuse_foreign(root)
    if from_ and not root.is_dir():
        raise Timer1Error(f"{STAGES[0].notebook} has not finished in {root}: no such run; run without --from")
    return root


class _Runner:
    def __init__(
        self, params: Params, folder: RunFolder, project: Project, display: Display, store: Store | None, held: Held
    ) -> None:
        self.params, self.folder, self.project, self.display = params, folder, project, display
        self.store, self.held = store, held
        self._ranks: Popen[bytes] | None = None

    def close(self) -> None:
        """End the server of ranks."""
        if self._ranks is not None:
            self._ranks.kill()
            self._ranks.wait()

    def keep(self, stage: StageRef) -> dict[str, Any]:
        """Take an earlier stage's result as it stands; a Timer1Error where it never finished, or its files are gone."""
        stamp = read_stamp(self.folder, stage)
        if stamp is None:
            raise Timer1Error(f"{stage.notebook} has not finished in {self.folder.root}; run without --from, or from earlier on")
        if trouble := damaged(self.folder, stamp):
            raise Timer1Error(f"{stage.notebook} cannot be kept: {trouble} in {self.folder.root}; run without --from")
        changed = changed_parts(stamp.parts, self._parts(stage))
        self.display.note(f"{stage.notebook}: kept as it is{f', though changed: {changed}' if changed else ''}")
        return {"how": "kept", "seconds": stamp.seconds, "key": stamp.key}

    def bring(self, stage: StageRef, fresh: bool) -> dict[str, Any]:
        """Have the stage's result stand in the run folder: skip, take from the store, go on, or run."""
        parts = self._parts(stage)
        key = stage_key(parts)
        stamp, why = read_stamp(self.folder, stage), ""
        if stamp is not None and not fresh:
            why = changed_parts(stamp.parts, parts) or damaged(self.folder, stamp) or ""
            if not why:
                self.display.note(f"{stage.notebook}: unchanged, skipped")
                return {"how": "unchanged", "seconds": stamp.seconds, "key": key}
            why = f"runs again, {why}"
        if not fresh and (back := stamps.bring_back(self.folder, stage, key)):
            self.display.note(f"{stage.notebook}: the result from before is the one, and stands again")
            return {"how": "brought back", "seconds": back.seconds, "key": key}
        if why:
            self.display.note(f"{stage.notebook}: {why}")
        if self.store is None:
            return self._execute(stage, key, parts, fresh)
        with self.store.claim(stage, key):
            started = stamps.read_started(self.folder, stage)
            interrupted = started is not None and started.key == key
            if not fresh and not interrupted and (shared := self.store.find(stage, key)):
                taken = self.store.take(shared, self.folder, stage)
                self.display.note(f"{stage.notebook}: shared with {taken.reused_from}")
                return {"how": "reused", "seconds": taken.seconds, "key": key, "from": taken.reused_from}
            done = self._execute(stage, key, parts, fresh)
            self.store.put(self.folder, stage)
            return done

    def _parts(self, stage: StageRef) -> dict[str, Any]:
        return parts_of(self.params, self.folder, self.project.notebooks, self.project.package, stage)

    def _execute(self, stage: StageRef, key: str, parts: dict[str, Any], fresh: bool) -> dict[str, Any]:
        resumed, before = stamps.begin(self.folder, stage, key, fresh)
        root = self.folder.root.resolve()
        # relative paths were found from here, and have to be in the kernel too
        here = Path.cwd() if self.project.root == project_root() else self.project.root
        within = root.is_relative_to(self.project.root) and here == self.project.root
        run_dir = root.relative_to(self.project.root) if within else root
        parameters = {"run_dir": str(run_dir), **stage_parameters(self.params, stage)}
        source = self.project.notebooks / f"{stage.notebook}.ipynb"
        if "processes" in SHARED_READ[stage.name] and self._ranks is None:  # one for all stages: it imports torch once
            self._ranks = start_server(self.params.shared.threads)
        self.display.start(stage.notebook, stage.number, resumed)
        started, seconds = time.monotonic(), None
        try:
            target = stamps.work_folder(self.folder, stage) / "notebooks" / source.name
            failed = self.folder.notebook(f"{stage.notebook}.failed")
            execute(source, target, failed, parameters, here, self.folder.root / KERNEL_LOCK, self.display)
            seconds = time.monotonic() - started
        finally:
            self.display.finish(seconds)
        self.held.check()
        stamp = stamps.finish(self.folder, stage, key, parts, before, seconds)
        return {"how": "resumed" if resumed else "ran", "seconds": stamp.seconds, "key": key}


def params_text(params: Params) -> str:
    """The resolved parameters as YAML that reads back to the same."""
    return yaml.safe_dump(params.model_dump(), sort_keys=False, allow_unicode=True)


def summary_lines(result: RunResult) -> Sequence[str]:
    """What the command line prints at the end: the results table, then where things are."""
    from timer1lib.evaluation.tables import brief_table, text_table

    table = [] if result.metrics is None else [text_table(brief_table(result.metrics)), ""]
    report = [] if result.report is None else [f"report  {result.report}"]
    return [*table, f"run     {result.root}", *report]
