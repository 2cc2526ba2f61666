"""Shared by all tests: in CI property tests draw the same examples every time, elsewhere new ones.

`make test` runs them in several processes (pytest-xdist): a file's tests stay together, for their fixtures' sake, and
those of `browser/` run one after another, since each opens a browser and a JupyterLab.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # Read when torch is first imported: threads of two processes that wait for each other cost more than they do.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Rooms(LoadScopeScheduling):
        """What may run at the same time: files, but all of `browser/` together."""

        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.split("::", 1)[0]
            return "browser" if "browser/" in path else path

    return Rooms(config, log)
