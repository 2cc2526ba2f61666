"""A large sweep on 1 to 64 simulated workers: the real rows, scheduler and driver, a clock and workers of made-up speed.

`python benchmarks/sweep_scale.py` prints the table in docs/scale.md: makespan beside the bounds that no schedule beats
(the longest row; all distinct work over the workers), and what the sweep's own process computes for a row.
"""

from __future__ import annotations

import argparse
import heapq
import io
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timer1lib.params.sections import Params
from timer1lib.runs.engines.seam import Outcome
from timer1lib.runs.graph import STAGES, find_stage
from timer1lib.runs.runner import Project
from timer1lib.runs.schedule import identities, least_time
from timer1lib.runs.sweep import Rows, job_of
from timer1lib.runs.sweepfile import Row

COSTS = {"curate": 60.0, "sft": 300.0, "difficulty": 120.0, "grpo": 900.0, "evaluate": 180.0}
"""Seconds of a stage. With them each start of a process costs START seconds besides."""
START = 2.0
STAGES_RUN = STAGES[:5]


def spread(name: str, identity: str) -> float:
    """A stage's seconds: its cost, 0.75 to 1.25 times, always the same for the same stage."""
    return COSTS[name] * (0.75 + int(identity[:4], 16) / 0x1FFFF)


class Simulated:
    """An engine whose workers take the time that a stage costs, on a clock that jumps from event to event."""

    def __init__(self, workers: int, paths: Mapping[str, list[str]]) -> None:
        self.workers, self.paths = workers, paths
        self.now, self.started, self.worked = 0.0, 0, 0.0
        self.store: set[str] = set()
        self.reached = dict.fromkeys(paths, 0)
        self._events: list[tuple[float, str, int]] = []

    def places(self) -> int:
        return self.workers

    def start(self, name: str, job: Mapping[str, Any]) -> None:
        last, seconds = find_stage(str(job["until"])).number, START
        for i in range(self.reached[name], last):
            identity = self.paths[name][i]
            if identity not in self.store:
                seconds += spread(STAGES_RUN[i].name, identity)
        self.started, self.worked = self.started + 1, self.worked + seconds
        heapq.heappush(self._events, (self.now + seconds, name, last))

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        self.now, name, last = heapq.heappop(self._events)
        ended = [(name, last)]
        while self._events and self._events[0][0] == self.now:
            ended.append(heapq.heappop(self._events)[1:])
        for name, last in ended:
            self.reached[name] = last
            self.store.update(self.paths[name][:last])
        stage = {"how": "ran", "seconds": 0.0, "key": "k"}
        return [(name, Outcome(None, {s.notebook: stage for s in STAGES_RUN[:last]})) for name, last in ended]

    def close(self) -> None:
        pass


def rows_of(variants: int, seeds: int) -> list[Row]:
    """Variants of RL; each ten share an SFT and its difficulty, and all of a seed share 01."""
    rows = []
    for variant in range(variants):
        for seed in range(seeds):
            name = f"v{variant}.s{seed}"
            sft, grpo = {"steps": 100 + variant // 10}, {"beta": variant % 10 / 100}
            params = Params.model_validate({"shared": {"seed": seed}, "sft": sft, "grpo": grpo})
            rows.append(Row(name, f"v{variant}", seed, params, {}))
    return rows


def measure(rows: list[Row], workers: int, folder: Path) -> dict[str, float]:
    paths = {row.name: identities(row.params, STAGES_RUN) for row in rows}
    costs = [[(k, spread(s.name, k)) for k, s in zip(path, STAGES_RUN, strict=True)] for path in paths.values()]
    longest, share = least_time(costs, workers)
    engine = Simulated(workers, paths)
    project = Project(folder, folder / "notebooks", folder / "timer1lib")

    def told(row: Row, until: Any) -> dict[str, Any]:
        return job_of(row, until, root=folder, project=project, sweep="scale", storage="")

    began = time.process_time()
    result = Rows(rows, STAGES_RUN, engine, folder, io.StringIO(), told).run()
    own = time.process_time() - began
    assert len(result) == len(rows)
    assert not any(row["error"] for row in result)
    assert len(engine.store) == len({k for path in paths.values() for k in path})
    bound = max(longest, share)
    return {
        "workers": workers,
        "makespan_h": engine.now / 3600,
        "longest_row_h": longest / 3600,
        "work_over_workers_h": share / 3600,
        "over_bound_percent": 100 * (engine.now / bound - 1),
        "busy_percent": 100 * engine.worked / workers / engine.now,
        "starts": engine.started,
        "own_ms_a_row": 1000 * own / len(rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", default="1,2,4,8,16,32,64")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = rows_of(given.variants, given.seeds)
    distinct = len({k for row in rows for k in identities(row.params, STAGES_RUN)})
    print(f"{len(rows)} rows, {len(rows) * len(STAGES_RUN)} stages, {distinct} distinct")
    print("workers | makespan h | longest row h | work / workers h | over the bound | busy | starts | own ms a row")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for workers in map(int, given.workers.split(",")):
            row = measure(rows, workers, Path(folder))
            found.append(row)
            hours = f"{row['makespan_h']:10.2f} | {row['longest_row_h']:13.2f} | {row['work_over_workers_h']:16.2f}"
            rest = f"{row['over_bound_percent']:13.2f}% | {row['busy_percent']:3.0f}% | {row['starts']:6.0f}"
            print(f"{workers:7} | {hours} | {rest} | {row['own_ms_a_row']:.2f}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
