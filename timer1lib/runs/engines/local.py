"""Rows as processes of this machine, spread over its cards."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from typing import Any

from timer1lib.runs.engines.seam import Outcome, Resources, no_room
from timer1lib.runs.row import RowProcess

CARDS_VARIABLE = "CUDA_VISIBLE_DEVICES"
_POLL_SECONDS = 0.1


def cards() -> list[str]:
    """The cards that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    if CARDS_VARIABLE in os.environ:
        return [name.strip() for name in os.environ[CARDS_VARIABLE].split(",") if name.strip() not in ("", "-1")]
    try:
        asked = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.split() if done.returncode == 0 else []


class LocalEngine:
    """See `Engine`. A row sees the cards that it was given and no other."""

    def __init__(self, resources: Resources, jobs: int | None) -> None:
        """`resources.gpus` None: one where there are cards. Raises a Timer1Error where a row has no room here."""
        there, cores = cards(), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.gpus = (1.0 if there else 0.0) if resources.gpus is None else resources.gpus
        if self.gpus > len(there):
            raise no_room(resources, f"this machine has {len(there)} cards")
        if (resources.cpus or 1) > cores:
            raise no_room(resources, f"this machine has {cores} cores")
        self._free = dict.fromkeys(there, 1.0)
        room = int(len(there) // self.gpus) if self.gpus >= 1 else len(there) * int(1 / self.gpus) if self.gpus else None
        self._places = jobs or room or 1
        if room is not None:
            self._places = min(self._places, room)
        if resources.cpus:
            self._places = min(self._places, cores // resources.cpus)
        # with several rows at a time each has its share of the cores
        share = max(1, cores // self._places) if self._places > 1 and "OMP_NUM_THREADS" not in os.environ else None
        self.cpus = resources.cpus or share
        self._running: dict[str, tuple[RowProcess, dict[str, float]]] = {}

    def places(self) -> int:
        return self._places

    def start(self, name: str, job: Mapping[str, Any]) -> None:
        most = sorted(self._free, key=lambda card: -self._free[card])  # stable: the first of equally free ones
        taken = dict.fromkeys(most[: max(1, int(self.gpus))] if self.gpus else [], min(self.gpus, 1.0))
        for card, share in taken.items():
            self._free[card] -= share
        seen = {CARDS_VARIABLE: ",".join(sorted(taken, key=list(self._free).index))} if self._free else {}
        self._running[name] = RowProcess({**job, "cpus": self.cpus}, seen), taken

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        deadline = time.monotonic() + seconds
        while True:
            ended = [(name, outcome) for name, (process, _) in self._running.items() if (outcome := process.poll()) is not None]
            if ended or time.monotonic() >= deadline:
                break
            time.sleep(_POLL_SECONDS)
        for name, _ in ended:
            for card, share in self._running.pop(name)[1].items():
                self._free[card] += share
        return ended

    def close(self) -> None:
        for process, _ in self._running.values():
            process.end()
