"""Rows as tasks of a Ray cluster: Ray finds the node and gives the card, the row runs there in a process of its own."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timer1lib.errors import Timer1Error, shown
from timer1lib.runs.engines.seam import Outcome, Resources, no_room

_ANSWER_SECONDS = 5.0
_LOOK_SECONDS = 2.0


def on_node(job: dict[str, Any]) -> dict[str, Any]:
    """The task: Ray has set `CUDA_VISIBLE_DEVICES` to this row's cards, and where it gave none, none may be seen."""
    import ray

    from timer1lib.runs.row import NODE_VARIABLE, run_here

    context = ray.get_runtime_context()
    given = context.get_accelerator_ids().get("GPU", [])
    return run_here(job, {"CUDA_VISIBLE_DEVICES": ",".join(given), NODE_VARIABLE: context.get_node_id()})


class RayEngine:
    """See `Engine`."""

    def __init__(self, resources: Resources, jobs: int | None, address: str) -> None:
        """Join the cluster at `address`; `resources.gpus` None: one where it has cards.

        Raises:
            Timer1Error: nobody answers there, or no node has room for a row.
        """
        import ray

        self._ray, self._jobs = ray, jobs
        _someone_there(address)
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
        except Exception as error:
            raise Timer1Error(f"--address {shown(address)}: no Ray cluster: {' '.join(str(error).split())[:200]}") from None
        nodes = self._nodes()
        cards = sum(node.get("GPU", 0) for node in nodes)
        self._gpus = (1.0 if cards else 0.0) if resources.gpus is None else resources.gpus
        self._cpus = resources.cpus or 1
        self._looked, self._room = time.monotonic(), self._count(nodes)
        if not self._room and not jobs:  # who names --jobs may know of nodes that are to come
            ray.shutdown()
            wanted = Resources(self._gpus, self._cpus)
            raise no_room(wanted, f"no node of the cluster at {address} has that ({cards:g} cards in {len(nodes)} nodes)")
        options: Any = {"num_gpus": self._gpus, "num_cpus": self._cpus, "max_retries": 0}
        self._task: Any = ray.remote(**options)(on_node)
        self._running: dict[Any, str] = {}

    def places(self) -> int:
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked, self._room = time.monotonic(), self._count(self._nodes())
        return min(self._room, self._jobs or self._room)

    def start(self, name: str, job: Mapping[str, Any]) -> None:
        self._running[self._task.remote({**job, "cpus": self._cpus})] = name

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        if not self._running:
            time.sleep(seconds)
            return []
        ready, rest = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        if ready and rest:
            ready += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return [(self._running.pop(ref), self._outcome(ref)) for ref in ready]

    def close(self) -> None:
        for ref in self._running:
            self._ray.cancel(ref, force=True)
        self._ray.shutdown()

    def _outcome(self, ref: Any) -> Outcome:
        errors = self._ray.exceptions
        try:
            return Outcome(**self._ray.get(ref))
        except errors.OutOfMemoryError:
            return Outcome("Ray ended the row: its node was short of memory", {})
        except errors.RayTaskError as error:  # a fault of the task's own, such as a node without timer1lib
            return Outcome(f"on its node: {' '.join(str(error).split())[-300:]}", {})
        except errors.RayError as error:
            return Outcome(f"its node was lost ({type(error).__name__})", {}, lost=True)

    def _nodes(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _count(self, nodes: list[dict[str, float]]) -> int:
        """Rows that fit on the living nodes at the same time; none spans two."""
        room = 0
        for node in nodes:
            by_card = node.get("GPU", 0) / self._gpus if self._gpus >= 1 else node.get("GPU", 0) * int(1 / (self._gpus or 1))
            room += int(min(node.get("CPU", 0) // self._cpus, by_card if self._gpus else float("inf")))
        return room


def _someone_there(address: str) -> None:
    """Ray itself would try for a minute, also for `auto` where a cluster on this machine has died."""
    asked = address
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
    left = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    if address == "auto" and left.is_file():
        address = left.read_text().strip()
    if address == "auto":
        return  # Ray finds at once that there is none
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        why = "write it as host:port" if isinstance(error, ValueError) and not port.isdecimal() else error
        raise Timer1Error(f"--address {shown(asked)}: nobody answers at {address}: {why}") from None
