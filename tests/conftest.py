"""Shared by all tests: in CI property tests draw the same examples every time, elsewhere new ones.

`make test` runs them in several processes (pytest-xdist): a file's tests stay together, for their fixtures' sake, and
those of `browser/` run one after another, since each opens a browser and a JupyterLab.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # Read when torch is first imported: threads of two processes that wait for each other cost more than they do.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = Path(item.path).parent
        item.add_marker(pytest.mark.xdist_group("browser" if folder.name == "browser" else item.path.name))
