"""`python scripts/screenshots.py RUN [FOLDER]`: the pictures of docs/, taken from a run in a real JupyterLab.

Opens 06_inspect on the run in headless Chromium, chooses samples that show something, and writes
inspect-table.png, inspect-scrubber.png, inspect-wrong.png, inspect-rollouts.png, inspect-dark.png and report.png.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from timer1lib.runfolder import RunFolder
from timer1lib.view.items import Item, load_items
from timer1lib.view.open import find_run, lab_command, write_copy
from timer1lib.view.report import write_report

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def main() -> int:
    run = RunFolder(find_run(sys.argv[1]))
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "docs/images")
    folder.mkdir(parents=True, exist_ok=True)
    from playwright.sync_api import sync_playwright

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    notebook = write_copy(run)
    home = tempfile.mkdtemp()
    project = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "HOME": home, "JUPYTER_CONFIG_DIR": f"{home}/c", "PYTHONPATH": project}
    command = [*lab_command(notebook, port, open_browser=False), "--IdentityProvider.token=t"]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/api/status?token=t")
        with sync_playwright() as playwright:
            chromium = shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            page = browser.new_page(viewport={"width": 1440, "height": 1500}, device_scale_factor=1.5)
            page.set_default_timeout(180_000)
            lab(page, f"http://127.0.0.1:{port}/lab/tree/notebooks/{notebook.name}?token=t", run, folder)
            page = browser.new_page(viewport={"width": 1120, "height": 1000})
            page.goto(f"file://{write_report(run)}")
            page.wait_for_timeout(4000)
            page.screenshot(path=str(folder / "report.png"))
    finally:
        server.terminate()
        server.wait(30)
    return 0


def wait_for(address: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(address, timeout=2).read()
            return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("JupyterLab did not start")


def lab(page: Any, address: str, run: RunFolder, folder: Path) -> None:
    page.goto(address)
    page.wait_for_selector(".jp-NotebookPanel-toolbar >> text=Python 3 (ipykernel)")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    many = 2 if run.log("rollouts").is_file() else 1
    page.wait_for_function("(many) => document.querySelectorAll('.t1-root[data-media]').length === many", arg=many)
    page.add_style_tag(content=".Toastify, .jp-toast-button, .Toastify__toast-container { display: none !important; }")
    table, scrubber = page.locator(".t1t-root").first, page.locator(".t1-root").first
    gained, wrong = telling(load_items(run))
    if page.locator('.t1t-head [data-sort="difference"]').count():
        table.locator('[data-sort="difference"]').click()
    choose(page, table, gained)
    page.evaluate("() => document.activeElement.blur()")
    table.screenshot(path=str(folder / "inspect-table.png"))
    page.locator(".t1-root").first.focus()
    page.keyboard.press("s")
    page.wait_for_timeout(700)
    scrubber.screenshot(path=str(folder / "inspect-scrubber.png"))
    choose(page, table, wrong)
    scrubber.focus()
    page.keyboard.press("s")
    page.wait_for_timeout(700)
    scrubber.screenshot(path=str(folder / "inspect-wrong.png"))
    if many == 2:
        second = page.locator(".t1-root").nth(1)
        second.scroll_into_view_if_needed()
        second.focus()
        page.keyboard.press("s")
        page.wait_for_timeout(700)
        second.screenshot(path=str(folder / "inspect-rollouts.png"))
    scrubber.scroll_into_view_if_needed()
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.get_by_text("Theme", exact=True).hover()
    page.get_by_text("JupyterLab Dark", exact=True).click()
    page.wait_for_timeout(1500)
    scrubber.screenshot(path=str(folder / "inspect-dark.png"))


def choose(page: Any, table: Any, item: Item) -> None:
    table.locator('[data-filter="text"]').fill(item.sample.id)
    table.locator(f'.t1t-row[data-key="{item.key}"]').click()
    page.wait_for_function("(key) => document.querySelector('.t1-root').dataset.media === key", arg=item.key)
    table.locator('[data-filter="text"]').fill("")
    page.wait_for_timeout(500)


def telling(items: list[Item]) -> tuple[Item, Item]:
    """The sample that gained most from the first checkpoint to the last, and the confident answer that is farthest off."""

    def ends(item: Item) -> tuple[float, float]:
        ious = list(item.ious().values())
        return ious[0], ious[-1]

    def distance(item: Item) -> float:
        span, truth = item.rows[-1].span, item.sample.windows[0]
        return 0.0 if span is None else abs(span[0] + span[1] - truth[0] - truth[1]) / item.duration

    gained = max(items, key=lambda item: ends(item)[1] - ends(item)[0])
    wrong = max((item for item in items if ends(item)[1] == 0.0 and item.rows[-1].span), key=distance, default=items[-1])
    return gained, wrong


if __name__ == "__main__":
    raise SystemExit(main())
