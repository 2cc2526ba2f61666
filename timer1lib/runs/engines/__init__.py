"""Where the parts of a sweep's rows run: on this machine, on a Ray cluster, under Slurm. One seam, `Engine`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from timer1lib.errors import Timer1Error, shown
from timer1lib.extras import need
from timer1lib.runs.engines.seam import Engine, Resources

EngineName = Literal["local", "ray", "slurm"]


def open_engine(
    name: str, resources: Resources, jobs: int | None, address: str, options: Mapping[str, Any], root: Path
) -> Engine:
    """The engine of a name, ready to start rows.

    Args:
        jobs: at most so many rows at a time; None: as many as there is room for (one on a machine without cards).
        address: of a Ray cluster (`auto`, `host:port`, `ray://host:port`); for Slurm `local` stands for this machine.
        options: of sbatch.
        root: the sweep's folder.

    Raises:
        Timer1Error: its package is not installed, nobody answers at the address, no place has such resources.
    """
    if name == "local":
        from timer1lib.runs.engines.local import LocalEngine

        if address:
            raise Timer1Error(f"--address {shown(address)}: the local engine has none; name --engine ray or slurm")
        return LocalEngine(resources, jobs)
    if name == "ray":
        need("ray", "--engine ray")
        from timer1lib.runs.engines.on_ray import RayEngine

        return RayEngine(resources, jobs, address or "auto")
    if name == "slurm":
        need("slurm", "--engine slurm")
        from timer1lib.runs.engines.slurm import SlurmEngine

        return SlurmEngine(resources, jobs, address, options, root)
    raise Timer1Error(f"engine {shown(name)}: there are local, ray and slurm")
