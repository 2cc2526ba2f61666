"""Between a stage and its ranks: a phase is written down as a job, and read back where a rank does it.

The notebook's kernel calls `do`; every rank of the job calls `perform`, which opens the same stage and calls the function
that the stage's module names for the phase. What a phase leaves is what stands on disk afterwards.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

from timer1lib.errors import Timer1Error
from timer1lib.files import resolve
from timer1lib.models.config import architecture_of
from timer1lib.params.load import validated
from timer1lib.params.sections import SECTIONS, SharedParams
from timer1lib.runfolder import WORK, RunFolder
from timer1lib.runs.kernel import RANKS_LOCK
from timer1lib.runs.manifest import cards
from timer1lib.stages import Stage
from timer1lib.workers.launch import carry_out
from timer1lib.workers.nodes import CORES_VARIABLE, here

SMALL = 50e6
"""A model with fewer parameters takes every core of a CPU, a rank each: larger ones want the cores' threads together."""


def do(
    stage: Stage[Any],
    phase: str,
    whole: tuple[str, int] | None = None,
    watch: Callable[[], None] | None = None,
    **given: Any,
) -> None:
    """Have ranks do a phase of a stage.

    Args:
        phase: a name in the stage module's `PHASES`.
        whole: name and value of the parameter that a step of training has and ranks share evenly; None where ranks only
            ask, each on its own and on one machine.
        watch: called several times a second meanwhile, in this process.
        given: the phase's arguments, as JSON holds them.

    Raises:
        Timer1Error: what a rank raised, or a number of processes that does not fit.
        RankFailed: a rank was killed, or failed otherwise.
    """
    shared = stage.shared
    trains = whole is not None
    own_config = shared.parallel not in ("ddp", "fsdp2")
    config = str(resolve(shared.parallel)) if own_config and trains else ""
    if config and not os.path.isfile(config):
        raise Timer1Error(f"shared.parallel {shared.parallel!r}: no such accelerate config file")
    nodes = here()
    job = {
        "package": __name__,
        "stage": stage.name,
        "phase": phase,
        "run": str(stage.run.root.resolve()),
        "opened": stage.run.stage,
        "shared": stage.shared.model_dump(),
        "params": stage.params.model_dump(),
        "given": given,
        "processes": processes(shared, whole, nodes.count if trains else 1),
        "device": shared.device,
        "threads": shared.threads,
        "config": config,
        "lock": str(stage.run.root.resolve() / RANKS_LOCK),
    }
    carry_out(job, stage.run.root / WORK / f"{stage.name}.job", nodes if trains else type(nodes)(), watch)


def perform(job: dict[str, Any]) -> None:
    """Do a job's phase, as one of its ranks."""
    name, where = job["stage"], f"job of {job['stage']}"
    if name not in SECTIONS:
        raise Timer1Error(f"{where}: no such stage")
    shared, params = validated(SharedParams, job["shared"], where), validated(SECTIONS[name], job["params"], where)
    phases = importlib.import_module(f"timer1lib.stages.{name}").PHASES
    phases[job["phase"]](Stage(name, RunFolder(resolve(job["run"]), job["opened"]), shared, params), **job["given"])


def processes(shared: SharedParams, whole: tuple[str, int] | None, machines: int = 1) -> int:
    """Ranks of one machine: as `shared.processes` says, or for 0 as many as there are to use and share a step evenly."""
    count = shared.processes or _all_there_are(shared)
    if whole is None:
        return count
    name, value = whole
    if not shared.processes:
        count = next((n for n in range(min(count, value), 0, -1) if value % (n * machines) == 0), count)
    if value % (count * machines):
        ranks = f"{count} processes" + (f" on each of {machines} machines" if machines > 1 else "")
        raise Timer1Error(f"shared.processes: {ranks} must divide {name} {value}: ranks share each step evenly")
    return count


def _all_there_are(shared: SharedParams) -> int:
    if shared.device != "cpu" and (found := cards()):
        return found
    try:
        small = architecture_of(shared.model).parameters() < SMALL
    except Timer1Error:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = int(os.environ.get(CORES_VARIABLE, cores))
    return max(1, cores // shared.threads) if small and shared.threads else 1
