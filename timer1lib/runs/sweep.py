"""`timer1 sweep`: the rows of a sweep file as runs of their own, stages they share run once, one table at the end.

Rows are processes: one that fails, or is killed for memory, leaves the others running. A sweep that was killed goes
on where it stopped, as every row is an ordinary run and every finished stage is in the sweep's store.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from pydantic import Field, ValidationError

from timer1lib.errors import Timer1Error, shown
from timer1lib.files import atomic_write_json, atomic_write_text, read_json, read_yaml, resolve
from timer1lib.params import Section
from timer1lib.params.load import explain, load_params, set_value, validated
from timer1lib.params.sections import Params
from timer1lib.processes import leave_with
from timer1lib.progress import clock
from timer1lib.runfolder import RunFolder
from timer1lib.runs.execute import NotebookFailed
from timer1lib.runs.graph import STAGES, find_stage
from timer1lib.runs.kernel import RUNNER_LOCK, exclusive
from timer1lib.runs.keys import check_files
from timer1lib.runs.manifest import machine, now
from timer1lib.runs.runner import Project, ask, run, to_run_again
from timer1lib.runs.stamps import Store, refuse_foreign

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
            "date": now(),
            "machine": machine(),
            "seconds": round(self.seconds, 1),
            "rows": [{**row, "run": row["name"]} for row in self.rows],
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
    yes: bool = False,
) -> SweepResult:
    """Run every row of a sweep file, `jobs` at a time, and compare those that finished.

    With several jobs the machine's cores are divided between them, which may change the last bits of sums.

    Raises:
        Timer1Error: the file or a row is wrong; nothing has run then.
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
    if not yes:
        stages = STAGES[: find_stage(spec.until).number]
        again = [(row.name, to_run_again(row.params, RunFolder(root / row.name), project, stages)) for row in rows]
        ask([f"{name}: {line}" for name, lines in again for line in lines if line.precious])
    started = time.monotonic()
    result = SweepResult(spec.name, root, 0.0)
    with exclusive(root, "timer1 sweep") as held:
        for left in (root / ".store").glob(".new-*"):
            shutil.rmtree(left, ignore_errors=True)
        result.rows = _Rows(spec, rows, root, project, stream or sys.stderr).run(jobs)
        held.check()
    finished = [row for row in result.rows if not row["error"]]
    if finished and find_stage(spec.until).number >= find_stage("evaluate").number:
        result.comparison, result.comparison_text = _compare([row["run"] for row in finished])
        if len({row["seed"] for row in finished}) > 1:
            runs = [(row["variant"], row["seed"], row["run"]) for row in finished]
            from timer1lib.evaluation.pooled import pool, pooled_text

            result.pooled = pool(runs, pairs=spec.pairs)
            result.pooled_text = pooled_text(result.pooled)
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
        (folder / ".row-result.json").unlink(missing_ok=True)
        spec = folder / ".row.json"
        places = {name: str(getattr(self.project, name)) for name in ("root", "notebooks", "package")}
        told = {"params": row.params.model_dump(), "until": self.spec.until, "project": places, "parent": os.getpid()}
        atomic_write_json(spec, told)
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
        return _Running(row, process, time.monotonic(), log)

    def _finish(self, one: _Running, count: int) -> dict[str, Any]:
        seconds = time.monotonic() - one.started
        try:
            outcome = read_json(one.log.with_name(".row-result.json"))
        except Timer1Error:
            outcome = {"error": f"the row's process ended with status {one.process.returncode}; see {one.log}", "stages": {}}
        how = outcome["error"] or ", ".join(f"{name[:2]} {stage['how']}" for name, stage in outcome["stages"].items())
        verb, row = "failed" if outcome["error"] else "done", one.row
        self._line(f"{row.name}: {verb} in {clock(seconds)} ({count}/{len(self.rows)}): {how}")
        known = {"name": row.name, "variant": row.variant, "seed": row.seed, "changes": row.changes}
        return {**known, "run": str(self.root / row.name), "seconds": round(seconds, 1), **outcome}

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


def _last_line(log: Path) -> str:
    try:
        with open(log, "rb") as stream:
            stream.seek(max(0, log.stat().st_size - 2000))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""


def run_row(path: str) -> int:
    """One row in this process; what came of it is written to `.row-result.json` beside its spec: {error, stages}."""
    spec, out = read_json(path), Path(path).parent
    leave_with(int(spec["parent"]))
    outcome: dict[str, Any] = {"error": None, "stages": {}}
    project = Project(*(Path(spec["project"][name]) for name in ("root", "notebooks", "package")))
    try:
        params, store = Params.model_validate(spec["params"]), Store(out.parent / ".store")
        outcome["stages"] = run(params, until=spec["until"], out=out, project=project, store=store, yes=True).stages
    except (Timer1Error, NotebookFailed) as error:
        outcome["error"] = str(error)
    except Exception as error:
        outcome["error"] = f"{type(error).__name__}: {error}"
    atomic_write_json(out / ".row-result.json", outcome)
    return 1 if outcome["error"] else 0


if __name__ == "__main__":  # `python -m timer1lib.runs.sweep SPEC.json`, a process for each row
    sys.exit(run_row(sys.argv[1]))


_NAME = r"^[A-Za-z0-9][A-Za-z0-9._=+-]{0,99}$"


class RowSpec(Section):
    """A listed row."""

    name: str = Field(pattern=_NAME, description="the row's name, and its folder's")
    set: dict[str, Any] = Field(default_factory=dict, description="parameters of this row: section.key: value")


class SweepSpec(Section):
    """A sweep file. Rows are `rows` times `grid` times `seeds`; what is left out counts once."""

    name: str = Field(pattern=_NAME, description="the sweep is outputs/sweeps/<name>")
    about: str = Field("", description="what is asked, in a sentence or two")
    base: str = Field("params/tiny.yaml", description="params file that every row starts from")
    until: str = Field("05", description="last stage of every row")
    set: dict[str, Any] = Field(default_factory=dict, description="parameters of every row: section.key: value")
    rows: list[RowSpec] = Field(default_factory=list, description="listed rows")
    grid: dict[str, list[Any]] = Field(default_factory=dict, description="section.key: values; all combinations")
    seeds: list[int] = Field(default_factory=list, description="run everything once for each of these seeds")
    pairs: list[tuple[str, str]] = Field(
        default_factory=list, description="rows (or row/checkpoint) to compare over seeds, [from, to]; empty: all with the first"
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One run of a sweep. `variant` is its name without the seed."""

    name: str
    variant: str
    seed: int
    params: Params
    changes: dict[str, Any]


def read_sweep(path: str | Path, overrides: Sequence[str] = (), seeds: Sequence[int] = ()) -> tuple[SweepSpec, list[Row]]:
    """A sweep file with every row's parameters resolved and checked; a Timer1Error names file, row and parameter.

    Args:
        overrides: `section.key=value`, applied to the base before any row's own.
        seeds: in place of the file's.
    """
    path = resolve(path)
    tree = read_yaml(path, "sweep file")
    if not isinstance(tree, dict):
        raise Timer1Error(f"{path}: a sweep file is a mapping with name, base, rows or grid")
    try:
        spec = SweepSpec.model_validate(tree)
    except ValidationError as error:
        raise Timer1Error(f"{path}: {explain(SweepSpec, error)}") from error
    if "rows" in tree and not (spec.rows or spec.grid or spec.seeds or seeds):
        raise Timer1Error(f"{path}: rows is empty, and there is neither a grid nor seeds: nothing to run")
    if empty := [key for key, values in spec.grid.items() if not values]:
        raise Timer1Error(f"{path}: grid {shown(empty[0])} has no value")
    base_path = path.parent / spec.base if (path.parent / spec.base).is_file() else resolve(spec.base)
    base = load_params(base_path, overrides)
    rows = list(_rows(path, spec, base, list(seeds) or spec.seeds))
    if unknown := sorted({end.split("/")[0] for pair in spec.pairs for end in pair} - {row.variant for row in rows}):
        raise Timer1Error(f"{path}: pairs name the row {unknown[0]!r}, which there is not")
    if repeated := [row.name for i, row in enumerate(rows) if any(row.name == other.name for other in rows[:i])]:
        raise Timer1Error(f"{path}: two rows are named {repeated[0]!r}")
    return spec, rows


def _rows(path: Path, spec: SweepSpec, base: Params, seeds: Sequence[int]) -> Sequence[Row]:
    rows = []
    listed = spec.rows or [RowSpec(name="all")]
    keys = list(spec.grid)
    for row, values in itertools.product(listed, itertools.product(*spec.grid.values())):
        chosen = dict(zip(keys, values, strict=True))
        parts = [row.name] if spec.rows or not chosen else []
        variant = ".".join([*parts, *(f"{key.rsplit('.', 1)[-1]}={_plain(value)}" for key, value in chosen.items())])
        changes = {**spec.set, **row.set, **chosen}
        for reserved in ("name", *(["shared.seed"] if seeds else [])):
            if reserved in changes:
                raise Timer1Error(f"{path}, row {variant!r}: {reserved} cannot be set; a row has the name and seed of its own")
        for seed in seeds or [changes.get("shared.seed", base.shared.seed)]:
            name = variant if len(seeds) <= 1 else f"{variant}.s{shown(seed)}"
            if len(name) > 200:
                raise Timer1Error(f"{path}: the row's name {shown(name)} is too long for a folder")
            tree = base.model_dump()
            try:
                for key, value in {"shared.seed": seed, **changes, "name": "row"}.items():
                    set_value(tree, key.split("."), value)
            except Timer1Error as error:
                raise Timer1Error(f"{path}, row {name!r}: {error}") from error
            tree["name"] = re.sub("[=+]", "-", name)[:100]
            params = validated(Params, tree, f"{path}, row {name!r}")
            rows.append(Row(name, variant, params.shared.seed, params, changes))
    return rows


def _plain(value: Any) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", str(value)).strip("-") or "none"
