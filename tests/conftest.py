"""Shared by all tests: in CI property tests draw the same examples every time, elsewhere new ones.

`make test` runs them in several processes (pytest-xdist): a file's tests stay together, for their fixtures' sake, and
those of `browser/` run one after another, since each opens a browser and a JupyterLab.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import settings

from timer1lib.stages import work

if "PYTEST_XDIST_WORKER" in os.environ:
    # Read when torch is first imported: threads of two processes that wait for each other cost more than they do.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(autouse=True)
def in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage's phases are done where the test runs, which can look at them and saves starting ranks.

    A module that says `RANKS = True` has them carried out as everywhere else.
    """
    if not getattr(request.module, "RANKS", False):
        monkeypatch.setattr("timer1lib.stages.work.carry_out", lambda job, folder, nodes, watch=None: work.perform(job))
        monkeypatch.setattr("timer1lib.stages.warm", lambda: None)


FIRST = ("test_engine_ray", "test_ranks", "browser", "test_rehearsal", "test_stage_training", "test_engines", "test_signals")
"""Files that take longest: begun last, one of them would keep one core waiting for minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: min(places.get(part, len(FIRST)) for part in (item.path.stem, item.path.parent.name)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Rooms(LoadScopeScheduling):
        """What may run at the same time: files, but all of `browser/` together."""

        def remove_node(self, node: Any) -> Any:
            """A process that died takes nothing along, and its finished files are not handed out again.

            They hold no test whose end would ask for the next file, and so the process that got one would wait for ever.
            """
            given = self.assigned_work[node]
            for scope in [scope for scope, tests in given.items() if all(tests.values())]:
                del given[scope]
            return super().remove_node(node)

        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.split("::", 1)[0]
            return "browser" if "browser/" in path else path

    config.option.loadscopereorder = False  # which puts files of many tests first, and long ones last
    return Rooms(config, log)
