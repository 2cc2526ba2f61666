"""A headless Chromium and a real JupyterLab for the tests of this folder; they skip where no Chromium is installed."""

from __future__ import annotations

import contextlib
import os
import re
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
        how: dict[str, Any] = {"executable_path": chromium, "args": ARGUMENTS, "viewport": {"width": 1360, "height": 1500}}
        for last in (False, True):  # the first start on a fresh machine once hung until the time was up
            try:
                profile = str(tmp_path_factory.mktemp("profile"))
                context = running.chromium.launch_persistent_context(profile, timeout=90_000, **how)
                break
            except playwright.TimeoutError:
                if last:
                    raise
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


@contextlib.contextmanager
def jupyterlab(notebook: Path, home: Path) -> Iterator[str]:
    """A JupyterLab of its own at a notebook's folder, as `timer1 lab` starts it; its address, without what is opened."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    project = Path(__file__).resolve().parents[2]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JUPYTER")}
    environment = {
        **kept,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(project),
        "OMP_NUM_THREADS": "1",
        "JUPYTER_CONFIG_DIR": str(home / "c"),
    }
    command = [*lab_command(notebook, port, open_browser=False), "--IdentityProvider.token=t", "--ServerApp.port_retries=0"]
    command.append("--LabApp.expose_app_in_browser=True")
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
        yield f"http://127.0.0.1:{port}/lab"
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()


@pytest.fixture(scope="session")
def lab(big_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of 06_inspect on `big_run` in a JupyterLab of its own."""
    notebook = write_copy(big_run)
    with jupyterlab(notebook, tmp_path_factory.mktemp("home")) as address:
        yield f"{address}/tree/notebooks/{notebook.name}?token=t"


TO_CELL = """async ([holds, below]) => {
  const notebook = jupyterapp.shell.currentWidget.content, sources = notebook.widgets.map((cell) => cell.model.sharedModel.getSource());
  notebook.activeCellIndex = holds === null ? sources.length - 1 : sources.findIndex((text) => text.includes(holds));
  if (below) await jupyterapp.commands.execute("notebook:insert-cell-below");
  await notebook.scrollToItem(notebook.activeCellIndex);
  await jupyterapp.commands.execute("notebook:enter-edit-mode");
  notebook.activeCell.editor.focus();
}"""
"""Where a person would click: into the first cell that holds a text, or into a new one at the end."""
SHOWN = """(holds) => {
  const cell = jupyterapp.shell.currentWidget.content.widgets.findLast((cell) => cell.model.type === "code" && cell.model.sharedModel.getSource().includes(holds));
  return [cell.model.executionCount, cell.model.outputs.toJSON()];
}"""
IDLE = """() => {
  const panel = jupyterapp.shell.currentWidget, running = panel.content.widgets.some((cell) => cell.promptNode?.textContent.includes("*"));
  return panel.sessionContext.session?.kernel?.status === "idle" && !running;
}"""


class Notebook:
    """A notebook that a person works in: types into cells, runs them, reads what they show."""

    def __init__(self, page: Any, address: str, name: str) -> None:
        self.page = page
        page.goto(f"{address}/tree/{name}?token=t&reset")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        page.wait_for_selector(".jp-NotebookPanel-toolbar >> text=Python 3 (ipykernel)")
        self.idle()

    def replace(self, holds: str, text: str) -> None:
        """Type another text into the cell that holds `holds`."""
        self.page.evaluate(TO_CELL, [holds, False])
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(text)

    def run_all(self) -> None:
        """Run All, until the last cell has run."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_text("Run All Cells", exact=True).click()
        self.idle()

    def run(self, text: str) -> str:
        """Type a cell at the notebook's end, run it, and read what it shows."""
        self.page.evaluate(TO_CELL, [None, True])
        self.page.keyboard.insert_text(text)
        self.page.keyboard.press("Shift+Enter")
        self.idle()
        return self.shown(text)

    def shown(self, holds: str) -> str:
        """What the last cell that holds `holds` shows, as text; an AssertionError where it has not run."""
        count, outputs = self.page.evaluate(SHOWN, holds)
        assert count is not None, f"{holds!r} has not run"
        found = []
        for output in outputs:
            data = output.get("data", {})
            found.append(data.get("text/html") or data.get("text/plain") or output.get("text") or output.get("evalue", ""))
        return re.sub(r"<[^>]+>", " ", "\n".join("".join(text) for text in found))

    def idle(self, seconds: float = 240) -> None:
        """Until the kernel has nothing to do."""
        self.page.wait_for_timeout(300)
        self.page.wait_for_function(IDLE, timeout=1000 * seconds, polling=200)
