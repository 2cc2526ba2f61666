"""`timer1 sweep`: the rows of a sweep file as runs of their own, stages they share run once, one table at the end.

Rows are processes, here or on a cluster: one that fails, or is killed for memory, leaves the others running. A sweep that
was killed goes on where it stopped, as every row is an ordinary run and every finished stage is in the sweep's store.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, atomic_write_text, read_json
from timer1lib.progress import clock
from timer1lib.runfolder import SWEEP, RunFolder
from timer1lib.runs.engines import EngineName, open_engine
from timer1lib.runs.engines.seam import Engine, Outcome, Resources
from timer1lib.runs.forecast import Forecast
from timer1lib.runs.graph import STAGES, StageRef, find_stage
from timer1lib.runs.kernel import RUNNER_LOCK, exclusive
from timer1lib.runs.keys import check_files
from timer1lib.runs.manifest import machine, now
from timer1lib.runs.row import LOG, last_line
from timer1lib.runs.runner import Project, ask, plan_stages, somebody_there
from timer1lib.runs.schedule import Scheduler, Unit, identities
from timer1lib.runs.stamps import refuse_foreign
from timer1lib.runs.storage import Storage, StoredStages
from timer1lib.runs.sweepfile import Row, read_sweep, variant_pairs

if TYPE_CHECKING:
    from timer1lib.evaluation.tables import Format

_TABLES: dict[Format, str] = {"csv": "csv", "latex": "tex", "markdown": "md"}
"""Beside table.txt: the tables in other formats, by their files' endings."""
_POLL_SECONDS = 0.3
_LOG_EVERY_SECONDS = 60.0
_SHOWN = 8
"""Running rows that the live line names."""


@dataclass(slots=True)
class SweepResult:
    """What a sweep came to. `rows` are {name, variant, way, at, seed, changes, seconds, error, stages, run}."""

    name: str
    root: Path
    seconds: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    comparison: dict[str, Any] | None = None
    pooled: dict[str, Any] | None = None
    """Over seeds, where there are several: `evaluation.pooled.pool`."""
    about: str = ""
    pairs: list[tuple[str, str]] = field(default_factory=list)
    """As the sweep's file names them."""

    @property
    def failed(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["error"]]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "about": self.about,
            "pairs": self.pairs,
            "date": now(),
            "machine": machine(),
            "seconds": round(self.seconds, 1),
            "rows": [{**row, "run": row["name"]} for row in self.rows],
            "comparison": self.comparison,
            "pooled": self.pooled,
        }

    def document(self, format: Format) -> str:
        """The tables in one format: means over seeds, paired differences over seeds, and the comparison with its intervals."""
        from timer1lib.evaluation.compare import compare_document
        from timer1lib.evaluation.pooled import means_table, pooled_tables
        from timer1lib.evaluation.tables import document

        tables = document([means_table(self.rows), *pooled_tables(self.pooled or {})], format) if format != "csv" else ""
        parts = [tables, compare_document(self.comparison, format) if self.comparison else ""]
        return "\n\n".join(filter(None, parts))

    def text(self) -> str:
        """The tables, what failed, and how long it took."""
        seeds = len({row["seed"] for row in self.rows})
        failed = [f"failed  {row['name']}: {row['error']}" for row in self.failed]
        shared = sum(stage["how"] == "reused" for row in self.rows for stage in row["stages"].values())
        parts = [self.document("text"), *failed, ""]
        parts.append(f"{len(self.rows)} rows, {seeds} seed{'s' * (seeds > 1)}, {shared} stages shared, {clock(self.seconds)}")
        parts.append(f"sweep   {self.root}")
        if self.comparison:
            parts.append(f"page    {self.root / 'report.html'}")
        return "\n".join(parts)


def sweep(
    path: str | Path,
    overrides: Sequence[str] = (),
    jobs: int | None = None,
    out: str | Path | None = None,
    seeds: Sequence[int] = (),
    project: Project | None = None,
    stream: TextIO | None = None,
    yes: bool = False,
    engine: EngineName = "local",
    address: str = "",
    storage: str = "",
) -> SweepResult:
    """Run every row of a sweep file, `jobs` at a time, and compare those that finished.

    With several jobs the machine's cores are divided between them, which may change the last bits of sums.

    Args:
        jobs: None: as many rows at a time as `engine` has room for; one on a machine without cards.
        engine: where rows run, and `address` which (see `runs.engines.open_engine`).
        storage: URL that artefacts are brought to and from where machines share no disk; the rows stand here in the end.

    Raises:
        Timer1Error: the file or a row is wrong, or the engine cannot be had; nothing has run then.
    """
    spec, rows = read_sweep(path, overrides, seeds)
    find_stage(spec.until)
    for row in rows:
        check_files(row.params)
    project = project or Project.find()
    root = Path(out) if out else project.root / "outputs" / "sweeps" / spec.name
    refuse_foreign(root, "*/.row.json", RUNNER_LOCK)
    for row in rows:
        refuse_foreign(root / row.name)
    stages = STAGES[: find_stage(spec.until).number]
    plans = [plan_stages(row.params, RunFolder(root / row.name), project, stages) for row in rows]
    if not yes and somebody_there():
        ask([f"{row.name}: {stage}" for row, plan in zip(rows, plans, strict=True) for stage in plan if stage.precious])
    no_card = all(row.params.shared.device == "cpu" for row in rows)
    resources = Resources(0.0 if no_card and spec.gpus is None else spec.gpus, spec.cpus)
    if storage:
        Storage(storage).check()
    started = time.monotonic()
    result = SweepResult(spec.name, root, 0.0, about=spec.about, pairs=spec.pairs)
    with _signals_end_it(), exclusive(root, "timer1 sweep") as held:
        for left in (root / ".store").glob(".new-*"):
            shutil.rmtree(left, ignore_errors=True)
        machines = open_engine(engine, resources, jobs and min(jobs, len(rows)), address, spec.slurm, root)
        store = StoredStages(root / ".store", storage, spec.name) if storage else None
        forecast = Forecast(rows, plans, spec.minutes)
        (stream or sys.stderr).write(f"{forecast.first(machines.places())}\n")
        told = partial(job_of, root=root, project=project, sweep=spec.name, storage=storage)
        written = root / SWEEP
        stands = written.is_file() and not read_json(written).get("unfinished")  # a finished sweep's, until this one is
        note = None if stands else partial(_note, result)
        try:
            result.rows = Rows(rows, stages, machines, root, stream or sys.stderr, told, store, note, forecast).run()
        finally:
            machines.close()
        held.check()
    finished = [row for row in result.rows if not row["error"]]
    if finished and find_stage(spec.until).number >= find_stage("evaluate").number:
        from timer1lib.evaluation.compare import compare_runs

        (stream or sys.stderr).write(f"comparing {len(finished)} rows\n")
        result.comparison = compare_runs([row["run"] for row in finished])
        if len({row["seed"] for row in finished}) > 1:
            runs = [(row["variant"], row["seed"], row["run"]) for row in finished]
            from timer1lib.evaluation.pooled import pool

            result.pooled = pool(runs, pairs=variant_pairs(spec.pairs, rows))
    result.seconds = time.monotonic() - started
    atomic_write_json(root / SWEEP, result.to_json())
    atomic_write_text(root / "table.txt", result.text() + "\n")
    if result.comparison:
        from timer1lib.view.comparison import write_sweep

        for format, ending in _TABLES.items():
            atomic_write_text(root / f"table.{ending}", result.document(format) + "\n")
        try:
            write_sweep(root)
        except (Timer1Error, OSError) as error:  # the rows stand, and `timer1 report` tries again
            (stream or sys.stderr).write(f"the sweep's page could not be written: {error}\n")
    return result


@contextlib.contextmanager
def _signals_end_it() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end the sweep in order, as jobs of a cluster outlive it otherwise; nohup's SIGHUP is not heard."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:
            signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _note(result: SweepResult, rows: list[dict[str, Any]], unfinished: int) -> None:
    """Have `sweep.json` hold what has ended so far."""
    atomic_write_json(result.root / SWEEP, {**replace(result, rows=rows).to_json(), "unfinished": unfinished})


def job_of(row: Row, until: StageRef, *, root: Path, project: Project, sweep: str, storage: str) -> dict[str, Any]:
    """What a node must know to run a row up to a stage: see `runs.row`."""
    places = {name: str(getattr(project, name).resolve()) for name in ("root", "notebooks", "package")}
    return {
        "row": row.name,
        "folder": str((root / row.name).resolve()),
        "store": str((root / ".store").resolve()),
        "params": row.params.model_dump(),
        "until": until.notebook,
        "project": places,
        "cwd": os.getcwd(),
        "cpus": None,
        "storage": storage,
        "sweep": sweep,
    }


class Rows:
    """Drives an engine by the scheduler's word, and says how far the rows are."""

    def __init__(
        self,
        rows: Sequence[Row],
        stages: Sequence[StageRef],
        engine: Engine,
        root: Path,
        stream: TextIO,
        job_of: Callable[[Row, StageRef], dict[str, Any]],
        store: StoredStages | None = None,
        note: Callable[[list[dict[str, Any]], int], None] | None = None,
        forecast: Forecast | None = None,
    ) -> None:
        """`note` is told the rows that have ended, and how many have not, whenever one does."""
        self.note = note
        self.rows, self.stages, self.engine, self.root, self.stream = rows, stages, engine, root, stream
        self.job_of, self.forecast, self.store = job_of, forecast, store
        self.names = {row.name: i for i, row in enumerate(rows)}
        self.scheduler = Scheduler([identities(row.params, stages) for row in rows], list(self.names))
        self.fetching = ThreadPoolExecutor(4, "fetch") if store else None
        self.fetched: dict[int, Future[None]] = {}
        self.started: set[int] = set()
        self.seconds = [0.0] * len(rows)
        self.found: list[dict[str, Mapping[str, Any]]] = [{} for _ in rows]
        self.done: dict[int, dict[str, Any]] = {}
        self.terminal = stream.isatty()
        self.last_log = self.began = time.monotonic()

    def run(self) -> list[dict[str, Any]]:
        """Each row's {name, variant, way, at, seed, changes, run, seconds, error, stages}, in the file's order."""
        running: dict[str, tuple[Unit, float]] = {}
        if (whole := len(self.rows) * len(self.stages)) > self.scheduler.distinct:
            self._line(f"{len(self.rows)} rows, {whole} stages, of which {self.scheduler.distinct} differ and run")
        while not self.scheduler.over:
            places = self.engine.places()
            while len(running) < places and (unit := self.scheduler.next()):
                row = self.rows[unit.row]
                if unit.row not in self.started:
                    self.started.add(unit.row)
                    (self.root / row.name / LOG).unlink(missing_ok=True)
                    self._line(f"{row.name}: started")
                running[row.name] = unit, time.monotonic()
                self.engine.start(row.name, self.job_of(row, self.stages[unit.last]))
            for i in self.scheduler.take_dropped():
                self._over(i, self.scheduler.failed[i])
            for name, outcome in self.engine.wait(_POLL_SECONDS) if not self.scheduler.over else ():
                unit, started = running.pop(name)
                self._ended(unit, outcome, time.monotonic() - started)
            self._show(running)
        for i, fetched in self.fetched.items():
            try:
                fetched.result()
            except Timer1Error as error:
                self.done[i]["error"] = str(error)
        if self.fetching:
            self.fetching.shutdown()
        return [self.done[i] for i in range(len(self.rows))]

    def _ended(self, unit: Unit, outcome: Outcome, seconds: float) -> None:
        name, found = self.rows[unit.row].name, self.found[unit.row]
        self.seconds[unit.row] += seconds
        for notebook, stage in outcome.stages.items():  # what came of a stage when it was first brought in this sweep
            found.setdefault(notebook, {**stage, "how": "unchanged"} if stage.get("from") == name else stage)
        if self.forecast:
            self.forecast.ended(unit.row, outcome.stages)
        reached = 0
        while reached < len(self.stages) and self.stages[reached].notebook in outcome.stages:
            reached += 1
        error = outcome.error
        if error is None and not outcome.claimed and reached <= unit.last:
            error = f"the row ended before {self.stages[unit.last].notebook} stood"  # never, unless a node's code differs
        became = self.scheduler.ended(unit, reached, error, lost=outcome.lost, claimed=outcome.claimed)
        if became == "again":
            self._line(f"{name}: {error}; it is tried again")
        elif became in ("done", "failed"):
            self._over(unit.row, error)

    def _over(self, i: int, error: str | None) -> None:
        row, found, seconds = self.rows[i], self.found[i], self.seconds[i]
        known = {"name": row.name, "variant": row.variant, "seed": row.seed, "changes": row.changes}
        known |= {"way": row.way, "at": row.at}
        folder = RunFolder(self.root / row.name)
        self.done[i] = {**known, "run": str(folder.root), "seconds": round(seconds, 1), "error": error, "stages": dict(found)}
        if self.store and self.fetching:
            self.fetched[i] = self.fetching.submit(self.store.fetch_row, folder, dict(found))
        how = error or ", ".join(f"{name[:2]} {stage['how']}" for name, stage in found.items())
        verb = "failed" if error else "done"
        self._line(f"{row.name}: {verb} in {clock(seconds)} ({len(self.done)}/{len(self.rows)}): {how}")
        if self.note:
            self.note([self.done[n] for n in sorted(self.done)], len(self.rows) - len(self.done))

    def _show(self, running: Mapping[str, tuple[Unit, float]]) -> None:
        if not (self.terminal or time.monotonic() - self.last_log >= _LOG_EVERY_SECONDS):
            return
        self.last_log = time.monotonic()
        done, elapsed = len(self.done), self.last_log - self.began
        left = self._left(running)
        told = "time left not known yet" if left is None else f"about {clock(left)} left"
        text = f"{done}/{len(self.rows)} rows, {clock(elapsed)} elapsed, {told}"
        for name in list(running)[:_SHOWN]:
            text += f" | {name}: {self._newest(name)}"
        if len(running) > _SHOWN:
            text += f" | and {len(running) - _SHOWN} more"
        elif not running:
            text += " | no place for a row now"
        if self.terminal:
            filled = int(16 * done / len(self.rows))
            width = shutil.get_terminal_size().columns - 1
            self.stream.write("\r\x1b[K" + f"[{'#' * filled}{'.' * (16 - filled)}] {text}"[:width])
            self.stream.flush()
        else:
            self._line(text)

    def _left(self, running: Mapping[str, tuple[Unit, float]]) -> float | None:
        """Seconds until all rows have ended: what is left, shared out, and no less than a running row needs."""
        if self.forecast is None or (work := self.forecast.work(i for i in self.forecast.open if i not in self.done)) is None:
            return None
        longest = 0.0
        for unit, started in running.values():
            own, unit_s = self.forecast.work([unit.row]), self.forecast.work([unit.row], slice(unit.first, unit.last + 1))
            spent = min(time.monotonic() - started, unit_s or 0.0)
            work -= spent
            longest = max(longest, (own or 0.0) - spent)
        return max(longest, work / max(1, self.engine.places()))

    def _newest(self, name: str) -> str:
        if self.store is None:
            return last_line(self.root / name / LOG)
        return self.store.line(name)

    def _line(self, text: str) -> None:
        self.stream.write(("\r\x1b[K" if self.terminal else "") + text + "\n")
        self.stream.flush()
