"""Runs the tests of `on_ray.py` in a process of their own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra [ray] is not installed (make extras)")
def test_the_ray_engine_on_a_real_cluster() -> None:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(TESTS / "on_ray.py")]
    done = subprocess.run(command, cwd=TESTS.parent, env=outside, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "5 passed" in done.stdout, done.stdout
