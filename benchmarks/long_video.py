"""An hour of video in 06_inspect in a real JupyterLab: seconds until it can be played, and until a part has all its frames.

    python benchmarks/long_video.py [--rates 25 2]

Each rate is a drawn film of 3,600 s, 320 x 180, one key frame in four seconds, asked about a window of 4.5 s. `shown` counts
from Run All to the first sample's video, `again` the same with everything in the cache; `part` from zooming to the window.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "browser")]

from conftest import ARGUMENTS, jupyterlab  # noqa: E402

from timer1lib.view.open import runs_to_inspect, write_copy  # noqa: E402

SECONDS, WIDTH, HEIGHT, WINDOW = 3600, 320, 180, (1834.0, 1838.5)
SHOWN = "() => document.querySelector('.t1-root')?.dataset.media"
PART = "() => document.querySelector('.t1-root').dataset.part"


def draw(path: Path, rate: int) -> None:
    """A bar that crosses the picture once a minute, on a background that turns from hour's begin to its end."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "g": str(4 * rate)})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        picture = np.empty((HEIGHT, WIDTH, 3), dtype=np.uint8)
        for i in range(SECONDS * rate):
            picture[:] = (i * 200 // (SECONDS * rate), 60, 90)
            left = int(i / rate % 60 / 60 * (WIDTH - 20))
            picture[:, left : left + 20] = 230
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def look(page: Any, address: str) -> tuple[float, float]:
    """Seconds until the video is there and until its part is, of one visit."""
    page.goto(address)
    page.wait_for_selector(".jp-NotebookPanel-toolbar >> text=Python 3 (ipykernel)")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    started = time.perf_counter()
    page.get_by_text("Run All Cells", exact=True).click()
    page.wait_for_function(SHOWN)
    shown = time.perf_counter() - started
    page.locator(".t1-root").first.focus()
    started = time.perf_counter()
    page.keyboard.press("0")
    page.keyboard.press("z")
    page.wait_for_function(PART)
    return shown, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=int, nargs="+", default=[25, 2], help="frames a second")
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        home = Path(folder)
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for rate in parser.parse_args().rates:
            videos = home / f"at{rate}"
            videos.mkdir()
            draw(videos / "hour.mp4", rate)
            row = {"id": "a", "video": "hour.mp4", "query": "the bar", "duration": SECONDS, "start": WINDOW[0], "end": WINDOW[1]}
            (videos / "truth.jsonl").write_text(json.dumps(row))
            (videos / "said.jsonl").write_text(json.dumps({"id": "a", "start": WINDOW[0] - 2, "end": WINDOW[1]}))
            (run,) = runs_to_inspect(None, [videos / "said.jsonl"], videos / "truth.jsonl", videos)
            page = browser.new_page(viewport={"width": 1280, "height": 860})
            page.set_default_timeout(180_000)
            size = (videos / "hour.mp4").stat().st_size / 1e6
            notebook, jupyter = write_copy(run), home / f"jupyter{rate}"
            jupyter.mkdir()
            with jupyterlab(notebook, jupyter) as address:
                address = f"{address}/tree/notebooks/{notebook.name}?token=t&reset"
                first, again = look(page, address), look(page, address)
            print(
                f"{rate} frames a second, {size:.0f} MB: shown {first[0]:.1f} s, part {first[1]:.1f} s; "
                f"again {again[0]:.1f} s, {again[1]:.1f} s", flush=True,
            )  # fmt: skip
            page.close()
            shutil.rmtree(run.root)


if __name__ == "__main__":
    main()
