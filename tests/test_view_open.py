"""`timer1 inspect`: the notebook's copy for a run, and a run made of predictions from elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from view_run import make_run, write_video

from timer1lib.errors import Timer1Error
from timer1lib.files import read_json
from timer1lib.params.cells import current_source
from timer1lib.view.items import load_items
from timer1lib.view.open import lab_command, prepare, run_from_predictions

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def hears_hangups() -> None:
    """Under nohup, as tests may run, a child would not even be told."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_the_copy_has_the_runs_parameters_and_keeps_what_was_added(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", samples=3, videos=1)
    run.params.write_text("name: other\nshared:\n  form: tvg_r1\nevaluate:\n  of_an_older_version: 1\n")
    path = prepare(run.root)
    source = current_source(read_json(path)) or ""
    assert f'run_dir: str = "{run.root}"' in source
    assert 'form: str = "tvg_r1"' in source
    notebook = read_json(path)
    notebook["cells"].append({"cell_type": "markdown", "id": "mine", "metadata": {}, "source": ["mine"]})
    path.write_text(json.dumps(notebook))
    assert read_json(prepare(run.root))["cells"][-1]["id"] == "mine"
    command = lab_command(path, 9999, open_browser=False)
    assert "--ServerApp.ip=127.0.0.1" in command
    assert "--LabApp.default_url=/lab/tree/notebooks/06_inspect_open.ipynb" in command


def test_predictions_from_elsewhere_become_a_run(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "AAA.mp4", 4.0, (1.0, 2.0), (200, 0, 0))
    charades = {"AAA": {"duration": 4.0, "timestamps": [[1.0, 2.0], [0.0, 3.0]], "sentences": ["a disc", "a square"]}}
    (tmp_path / "test.json").write_text(json.dumps(charades))
    rows = [{"video": "AAA", "query": "a disc", "start": 1.0, "end": 3.0}, {"video": "BBB", "query": "x", "start": 0, "end": 1}]
    (tmp_path / "my model.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run = run_from_predictions(tmp_path / "my model.jsonl", tmp_path / "test.json", tmp_path / "videos", tmp_path / "run")
    items = {item.sample.query: item for item in load_items(run)}
    assert items["a disc"].sample.video == "AAA.mp4"
    assert items["a disc"].ious() == {"my-model": 0.5}
    assert items["a square"].rows[0].span is None
    assert items["a square"].tags == ["no answer"]


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(Timer1Error, match="no such folder"):
        prepare(tmp_path / "nothing")
    with pytest.raises(Timer1Error, match="Give runs, or --predictions"):
        prepare(predictions=tmp_path / "p.jsonl")
    (tmp_path / "empty" / "data").mkdir(parents=True)
    with pytest.raises(Timer1Error, match="05_evaluate"):
        prepare(tmp_path / "empty")
    (tmp_path / "a.json").write_text('{"AAA": {"duration": 4.0, "timestamps": [[1.0, 2.0]], "sentences": ["a disc"]}}')
    (tmp_path / "p.jsonl").write_text('{"video": "ZZZ", "query": "x", "start": 0, "end": 1}\n')
    with pytest.raises(Timer1Error, match="none of its 1 predictions"):
        run_from_predictions(tmp_path / "p.jsonl", tmp_path / "a.json", tmp_path, tmp_path / "run")


def _processes_below(folder: Path) -> list[str]:
    """Command lines of this machine's processes that name something in `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found += [line] if str(folder) in line else []
    return found


@pytest.mark.parametrize("how", ["SIGTERM", "SIGHUP", "SIGKILL"])
def test_no_server_and_no_kernel_outlives_its_starter(tmp_path: Path, how: str) -> None:
    run = make_run(tmp_path / "run", samples=3, videos=1)
    runtime = tmp_path / "runtime"
    home = {"HOME": str(tmp_path), "JUPYTER_CONFIG_DIR": str(tmp_path / "c"), "JUPYTER_RUNTIME_DIR": str(runtime)}
    code = f"from timer1lib.view.open import inspect; inspect({str(run.root)!r}, port=18888, open_browser=False)"
    with open(tmp_path / "log", "wb") as log:
        starter = subprocess.Popen(
            [sys.executable, "-c", code], env={**os.environ, **home}, stdout=log, stderr=log, preexec_fn=hears_hangups
        )
    try:
        deadline = time.monotonic() + 90
        while not (servers := list(runtime.glob("jpserver-*.json"))):
            assert starter.poll() is None, (tmp_path / "log").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        server = json.loads(servers[0].read_text())
        headers = {"Authorization": f"token {server['token']}"}
        asked = urllib.request.Request(f"{server['url']}api/kernels", b"{}", headers, method="POST")
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(asked, timeout=30).read()
                break
            time.sleep(0.2)
        assert len(_processes_below(tmp_path)) >= 3  # the starter, the server and the kernel
        starter.send_signal(getattr(signal, how))
        starter.wait(10)
        deadline = time.monotonic() + 15
        while (left := _processes_below(tmp_path)) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert left == []
    finally:
        starter.kill()


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared/data beside the project")
def test_tvgbench_with_its_published_paths(tmp_path: Path) -> None:
    row = {"video": "OHOFG.mp4", "query": "person sitting down in a chair.", "completion": "<answer>1.0 to 7.5</answer>"}
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    run = run_from_predictions(
        tmp_path / "p.jsonl", SHARED / "annotations" / "tvgbench.json", SHARED / "videos", tmp_path / "run"
    )
    items = load_items(run)
    assert len(items) == 800
    (seen,) = [item for item in items if item.rows[0].span]
    assert seen.sample.video == "OHOFG.mp4"
    assert seen.ious() == {"p": 1.0}
