"""`timer1 sweep`: the rows of a sweep file as runs of their own, stages they share run once, one table at the end.

Rows are processes: one that fails, or is killed for memory, leaves the others running. A sweep that was killed goes
on where it stopped, as every row is an ordinary run and every finished stage is in the sweep's store.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, atomic_write_text, read_json
from timer1lib.params.sections import Params
from timer1lib.progress import clock
from timer1lib.runs.execute import NotebookFailed
from timer1lib.runs.graph import STAGES, find_stage
from timer1lib.runs.kernel import leave_with
from timer1lib.runs.manifest import machine, now
from timer1lib.runs.runner import Project, run
from timer1lib.runs.store import Store
from timer1lib.runs.sweep_file import Row, SweepSpec, read_sweep

_POLL_SECONDS = 0.3
_LOG_EVERY_SECONDS = 60.0


@dataclass(slots=True)
class SweepResult:
    """What a sweep came to. `rows` are {name, variant, seed, changes, seconds, error, stages, run}."""

    name: str
    root: Path
    seconds: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    comparison: dict[str, Any] | None = None
    comparison_text: str = ""
    pooled: dict[str, Any] | None = None
    """Over seeds, where there are several: `evaluation.pooled.pool`."""
    pooled_text: str = ""

    @property
    def failed(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["error"]]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "root": str(self.root),
            "date": now(),
            "machine": machine(),
            "seconds": round(self.seconds, 1),
            "rows": self.rows,
            "comparison": self.comparison,
            "pooled": self.pooled,
        }

    def text(self) -> str:
        """The table over seeds, the comparison with its intervals, what failed, and how long it took."""
        from timer1lib.evaluation.pooled import means_table

        seeds = len({row["seed"] for row in self.rows})
        parts = [means_table(self.rows)]
        for text in (self.pooled_text, self.comparison_text):
            if text:
                parts += ["", text]
        parts += [f"failed  {row['name']}: {row['error']}" for row in self.failed]
        shared = sum(stage["how"] == "reused" for row in self.rows for stage in row["stages"].values())
        parts += ["", f"{len(self.rows)} rows, {seeds} seed{'s' * (seeds > 1)}, {shared} stages shared, {clock(self.seconds)}"]
        parts.append(f"sweep   {self.root}")
        return "\n".join(parts)


def sweep(
    path: str | Path,
    overrides: Sequence[str] = (),
    jobs: int = 1,
    out: str | Path | None = None,
    seeds: Sequence[int] = (),
    project: Project | None = None,
    stream: TextIO | None = None,
) -> SweepResult:
    """Run every row of a sweep file, `jobs` at a time, and compare those that finished.

    With several jobs the machine's cores are divided between them, which may change the last bits of sums.

    Raises:
        Timer1Error: the file or a row is wrong; nothing has run then.
    """
    spec, rows = read_sweep(path, overrides, seeds)
    find_stage(spec.until)
    project = project or Project.find()
    root = Path(out) if out else project.root / "outputs" / "sweeps" / spec.name
    root.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    result = SweepResult(spec.name, root, 0.0)
    result.rows = _Rows(spec, rows, root, project, stream or sys.stderr).run(jobs)
    finished = [row for row in result.rows if not row["error"]]
    if finished and find_stage(spec.until).number >= find_stage("evaluate").number:
        result.comparison, result.comparison_text = _compare([row["run"] for row in finished])
        if len({row["seed"] for row in finished}) > 1:
            runs = [(row["variant"], row["seed"], row["run"]) for row in finished]
            result.pooled, result.pooled_text = _pool(runs, spec.pairs)
    result.seconds = time.monotonic() - started
    atomic_write_json(root / "sweep.json", result.to_json())
    atomic_write_text(root / "table.txt", result.text() + "\n")
    return result


@dataclass(slots=True)
class _Running:
    row: Row
    process: subprocess.Popen[bytes]
    started: float
    log: Path
    result: Path


class _Rows:
    """Starts rows, waits for them, says how far they are."""

    def __init__(self, spec: SweepSpec, rows: list[Row], root: Path, project: Project, stream: TextIO) -> None:
        self.spec, self.rows, self.root, self.project, self.stream = spec, rows, root, project, stream
        self.terminal = stream.isatty()
        self.last_log = time.monotonic()

    def run(self, jobs: int) -> list[dict[str, Any]]:
        waiting = list(self.rows)
        running: list[_Running] = []
        done: dict[str, dict[str, Any]] = {}
        began = time.monotonic()
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    running.append(self._start(waiting.pop(0), min(jobs, len(self.rows))))
                time.sleep(_POLL_SECONDS)
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    done[one.row.name] = self._finish(one, len(done) + 1)
                self._show(running, len(done), began)
        finally:
            for one in running:
                one.process.terminate()
        return [done[row.name] for row in self.rows]

    def _start(self, row: Row, jobs: int) -> _Running:
        folder = self.root / row.name
        folder.mkdir(parents=True, exist_ok=True)
        result = folder / ".row-result.json"
        result.unlink(missing_ok=True)
        spec = folder / ".row.json"
        places = {name: str(getattr(self.project, name)) for name in ("root", "notebooks", "package")}
        atomic_write_json(
            spec,
            {
                "params": row.params.model_dump(),
                "until": self.spec.until,
                "out": str(folder),
                "store": str(self.root / ".store"),
                "project": places,
                "result": str(result),
                "parent": os.getpid(),
                "report": find_stage(self.spec.until) is STAGES[-1],
            },
        )
        environment = dict(os.environ)
        if jobs > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
        log = folder / "run.log"
        with open(log, "wb") as stream:
            command = [sys.executable, "-m", "timer1lib.runs.sweep", str(spec)]
            process = subprocess.Popen(
                command, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
            )
        self._line(f"{row.name}: started")
        return _Running(row, process, time.monotonic(), log, result)

    def _finish(self, one: _Running, count: int) -> dict[str, Any]:
        seconds = time.monotonic() - one.started
        try:
            outcome = read_json(one.result)
        except Timer1Error:
            outcome = {"error": f"the row's process ended with status {one.process.returncode}; see {one.log}", "stages": {}}
        how = outcome["error"] or ", ".join(f"{name[:2]} {stage['how']}" for name, stage in outcome["stages"].items())
        verb = "failed" if outcome["error"] else "done"
        self._line(f"{one.row.name}: {verb} in {clock(seconds)} ({count}/{len(self.rows)}): {how}")
        return {
            "name": one.row.name,
            "variant": one.row.variant,
            "seed": one.row.seed,
            "changes": one.row.changes,
            "run": str(self.root / one.row.name),
            "seconds": round(seconds, 1),
            "error": outcome["error"],
            "stages": outcome["stages"],
        }

    def _show(self, running: list[_Running], done: int, began: float) -> None:
        if not running or not (self.terminal or time.monotonic() - self.last_log >= _LOG_EVERY_SECONDS):
            return
        elapsed = time.monotonic() - began
        left = f"about {clock(elapsed / done * (len(self.rows) - done))} left" if done else "time left not known yet"
        text = f"{done}/{len(self.rows)} rows, {clock(elapsed)} elapsed, {left}"
        for one in running:
            text += f" | {one.row.name}: {_last_line(one.log)}"
        if self.terminal:
            filled = int(16 * done / len(self.rows))
            width = shutil.get_terminal_size().columns - 1
            self.stream.write("\r\x1b[K" + f"[{'#' * filled}{'.' * (16 - filled)}] {text}"[:width])
            self.stream.flush()
        else:
            self.last_log = time.monotonic()
            self._line(text)

    def _line(self, text: str) -> None:
        self.stream.write(("\r\x1b[K" if self.terminal else "") + text + "\n")
        self.stream.flush()


def _compare(runs: list[str]) -> tuple[dict[str, Any], str]:
    from timer1lib.evaluation.compare import compare_runs, compare_text

    value = compare_runs(runs)
    return value, compare_text(value)


def _pool(runs: list[tuple[str, int, str]], pairs: Sequence[tuple[str, str]]) -> tuple[dict[str, Any], str]:
    from timer1lib.evaluation.pooled import pool, pooled_text

    value = pool(runs, pairs=pairs)
    return value, pooled_text(value)


def _last_line(log: Path) -> str:
    try:
        with open(log, "rb") as stream:
            stream.seek(max(0, log.stat().st_size - 2000))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""


def run_row(path: str) -> int:
    """One row in this process; what came of it is written to the spec's `result` file: {error, stages}."""
    spec = read_json(path)
    leave_with(int(spec["parent"]))
    outcome: dict[str, Any] = {"error": None, "stages": {}}
    project = Project(*(Path(spec["project"][name]) for name in ("root", "notebooks", "package")))
    try:
        params = Params.model_validate(spec["params"])
        store = Store(Path(spec["store"]))
        done = run(params, until=spec["until"], out=spec["out"], project=project, store=store, report=spec["report"])
        outcome["stages"] = done.stages
    except (Timer1Error, NotebookFailed) as error:
        outcome["error"] = str(error)
    except Exception as error:
        outcome["error"] = f"{type(error).__name__}: {error}"
    atomic_write_json(spec["result"], outcome)
    return 1 if outcome["error"] else 0


if __name__ == "__main__":  # `python -m timer1lib.runs.sweep SPEC.json`, a process for each row
    sys.exit(run_row(sys.argv[1]))
