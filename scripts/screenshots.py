"""`python scripts/screenshots.py RUN [FOLDER] [--wrong ID]`: the pictures of docs/, taken from a run in a real JupyterLab.

Opens 06_inspect on the run in headless Chromium, chooses samples that show something, and writes inspect.png, inspect-700.png,
inspect-1920.png, inspect-dark.png, inspect-scrubber.png, inspect-wrong.png, inspect-cards.png, inspect-rollouts.png and
report.png.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("folder", nargs="?", default="docs/images")
    parser.add_argument("--wrong", default="", help="id of the sample that inspect-wrong.png shows")
    given = parser.parse_args()
    run, folder = RunFolder(find_run(given.run)), Path(given.folder)
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
            page = browser.new_page(viewport={"width": 1280, "height": 860})
            page.set_default_timeout(180_000)
            lab(page, f"http://127.0.0.1:{port}/lab/tree/notebooks/{notebook.name}?token=t", run, folder, given.wrong)
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


def lab(page: Any, address: str, run: RunFolder, folder: Path, named: str) -> None:
    page.goto(address)
    page.wait_for_selector(".jp-NotebookPanel-toolbar >> text=Python 3 (ipykernel)")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    many = 2 if run.log("rollouts").is_file() else 1
    page.wait_for_function("(many) => document.querySelectorAll('.t1-root[data-media]').length === many", arg=many)
    page.add_style_tag(content=".Toastify, .jp-toast-button, .Toastify__toast-container { display: none !important; }")
    page.keyboard.press("Control+b")  # without the list of files
    table, scrubber, box = page.locator(".t1t-root").first, page.locator(".t1-root").first, page.locator(".t1-inspector").first
    items = load_items(run)
    gained, wrong = telling(items)
    wrong = next((item for item in items if item.sample.id == named), wrong)
    if page.locator('.t1t-head [data-sort="difference"]').count():
        table.locator('[data-sort="difference"]').click()
    choose(page, table, gained)
    for width, height, name in ((700, 900, "inspect-700"), (1920, 1000, "inspect-1920"), (1280, 860, "inspect")):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(700)
        shot(page, box, folder / f"{name}.png")
    scrubber.screenshot(path=str(folder / "inspect-scrubber.png"))
    choose(page, table, wrong)
    shot(page, box, folder / "inspect-wrong.png", scrubber)
    table.locator('[data-do="grid"]').click()
    page.wait_for_timeout(4000)
    table.screenshot(path=str(folder / "inspect-cards.png"))
    table.locator('[data-do="grid"]').click()
    choose(page, table, gained)
    if many == 2:
        second = page.locator(".t1-root").nth(1)
        second.scroll_into_view_if_needed()
        page.wait_for_timeout(700)
        second.screenshot(path=str(folder / "inspect-rollouts.png"))
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.get_by_text("Theme", exact=True).hover()
    page.get_by_text("JupyterLab Dark", exact=True).click()
    page.wait_for_timeout(1500)
    for width, height, name in ((700, 900, "inspect-dark-700"), (1920, 1000, "inspect-dark-1920"), (1280, 860, "inspect-dark")):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(700)
        shot(page, box, folder / f"{name}.png")


def shot(page: Any, box: Any, path: Path, part: Any = None) -> None:
    """The inspector at the top of the page, the playhead at the start of the chosen row."""
    box.evaluate("(node) => node.scrollIntoView({ block: 'start' })")
    page.locator(".t1-root").first.focus()
    page.keyboard.press("s")
    page.wait_for_timeout(700)
    page.evaluate("() => document.activeElement.blur()")
    if part is not None:
        part.screenshot(path=str(path))
    else:
        page.screenshot(path=str(path))


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
