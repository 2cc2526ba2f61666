"""A headless Chromium and a real JupyterLab for the tests of this folder; they skip where no Chromium is installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from view_run import make_run

from timer1lib.params.load import load_params
from timer1lib.runfolder import RunFolder
from timer1lib.view.open import lab_command, write_copy

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync", "--force-color-profile=srgb"]
SAMPLES = 800


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium installed (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as running:
        profile = tmp_path_factory.mktemp("profile")
        shown = {"width": 1360, "height": 1500}
        context = running.chromium.launch_persistent_context(
            str(profile), executable_path=chromium, args=ARGUMENTS, viewport=shown
        )
        context.set_default_timeout(60_000)
        yield context
        context.close()


class Watched:
    """A page that remembers what went wrong on it."""

    def __init__(self, context: Any) -> None:
        self.page = context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("request", lambda r: self.requests.append(r.url))


@pytest.fixture
def watched(browser: Any) -> Iterator[Watched]:
    made = Watched(browser)
    yield made
    made.page.close()


@pytest.fixture(scope="session")
def shots() -> Path:
    """Where screenshots are kept: `$TIMER1_SCREENSHOTS`, else a folder of the system's temporary one."""
    import tempfile

    folder = Path(os.environ.get("TIMER1_SCREENSHOTS") or Path(tempfile.gettempdir()) / "timer1-screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def big_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("runs") / "looked-at"
    run = make_run(root, samples=SAMPLES)
    params = load_params(run.params, [f"shared.cache_dir={root / 'cache'}"])
    import yaml

    run.params.write_text(yaml.safe_dump(params.model_dump()))
    return run


@pytest.fixture(scope="session")
def lab(big_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of 06_inspect on `big_run` in a JupyterLab of its own."""
    notebook = write_copy(big_run)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("home")
    project = Path(__file__).resolve().parents[2]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JUPYTER")}
    environment = {
        **kept,
        "HOME": str(home),
        "PYTHONPATH": str(project),
        "OMP_NUM_THREADS": "1",
        "JUPYTER_CONFIG_DIR": str(home / "c"),
    }
    command = [*lab_command(notebook, port, open_browser=False), "--IdentityProvider.token=t", "--ServerApp.port_retries=0"]
    with open(home / "lab.log", "wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status?token=t", timeout=2).read()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail("JupyterLab did not start: " + (home / "lab.log").read_text()[-2000:])
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/lab/tree/notebooks/{notebook.name}?token=t"
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
