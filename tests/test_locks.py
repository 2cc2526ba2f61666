"""What is installed, on every machine and Python that is supported: Linux on x86-64 and aarch64, macOS on arm64."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from test_house import PROJECT, declared, extras, name_of, needed

ROOT = Path(__file__).resolve().parent.parent
UV = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-extras.lock")
MACHINES = {
    "x86_64-unknown-linux-gnu": {"sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux"},
    "aarch64-unknown-linux-gnu": {"sys_platform": "linux", "platform_machine": "aarch64", "platform_system": "Linux"},
    "aarch64-apple-darwin": {"sys_platform": "darwin", "platform_machine": "arm64", "platform_system": "Darwin"},
}
"""What uv calls a platform, and the markers that tell it."""
PYTHONS = ("3.11", "3.12", "3.13")


def pins(lock: str, machine: str, python: str) -> dict[str, str]:
    """{distribution: version} that a lock installs on a machine."""
    where = default_environment() | MACHINES[machine] | {"python_version": python, "python_full_version": f"{python}.9"}
    found: dict[str, str] = {}
    for line in (ROOT / lock).read_text().splitlines():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(where | {"os_name": "posix"}):
            assert name_of(requirement.name) not in found, f"{lock}: {requirement.name} twice on {machine}, Python {python}"
            found[name_of(requirement.name)] = str(requirement.specifier).removeprefix("==")
    return found


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("machine", MACHINES)
def test_every_dependency_is_pinned_on_every_machine_and_python(machine: str, python: str) -> None:
    run, develop, everything = (pins(lock, machine, python) for lock in LOCKS)
    linux = machine.endswith("linux-gnu")
    assert needed() - set(run) == (set() if machine.startswith("x86_64") else {"decord"})
    assert declared("dev") | declared("docs") <= set(develop)
    assert extras() <= set(everything)
    assert "hatchling" in run
    assert ("triton" in run, any(name.startswith(("nvidia-", "cuda-")) for name in run)) == (linux, linux)
    tools = {"pytest", "hypothesis", "mypy", "ruff", "playwright", "pre-commit", "mkdocs", "selenium", "moto", "ray"}
    assert not tools & set(run), "test tools in the users' lock"
    assert run.items() <= develop.items()
    # botocore, below s3fs, wants an older one than the others have; nothing of ours does
    assert {name for name, version in develop.items() if everything[name] != version} <= {"python-dateutil"}


@pytest.mark.skipif(UV is None, reason="uv resolves the locks (make install brings it)")
def test_the_users_lock_resolves_on_every_machine_with_wheels_alone(tmp_path: Path) -> None:
    """All at once: nearly all of it is waiting for the registry."""

    def resolve(machine: str, python: str) -> str:
        target = tmp_path / f"{machine}-{python}.txt"
        given = f"--quiet --no-build --no-header --no-annotate --python-platform {machine} --python-version {python}.9".split()
        command = [str(UV), "pip", "compile", *given, "-o", str(target), "requirements.lock"]
        environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{machine}, Python {python}: {done.stderr}"
        got = {name_of(name): version for name, version in (line.split("==") for line in target.read_text().splitlines())}
        return "" if got == pins("requirements.lock", machine, python) else f"{machine}, Python {python}: other versions"

    each = [(machine, python) for machine in MACHINES for python in (PYTHONS[0], PYTHONS[-1])]
    with ThreadPoolExecutor(len(each)) as pool:
        wrong = list(filter(None, pool.map(lambda pair: resolve(*pair), each)))
    if wrong and all(re.search("(?i)could ?not connect|dns|timed out|network|failed to fetch", text) for text in wrong):
        pytest.skip(f"no package registry in reach: {wrong[0].strip().splitlines()[-1]}")
    assert not wrong, "\n".join(wrong)


def test_conda_takes_the_users_lock_and_a_python_that_is_supported() -> None:
    text = (ROOT / "environment.yml").read_text()
    environment = yaml.safe_load(text)
    python, pip, inner = environment["dependencies"]
    assert (python.removeprefix("python=") in PYTHONS, pip) == (True, "pip")
    assert inner == {"pip": ["-r requirements.lock"]}
    assert f"conda activate {environment['name']}" in text
    supported = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert supported == list(PYTHONS)


def test_no_registry_is_named() -> None:
    """Where packages come from is a machine's own matter."""
    for name in (*LOCKS, "pyproject.toml", "Makefile", "environment.yml", "Dockerfile", ".devcontainer/cuda/devcontainer.json"):
        text = (ROOT / name).read_text()
        assert not re.search(r"(?i)index-url|pypi|https?://", text), name
