"""`timer1 inspect`: the notebook's copy for a run, and a run made of predictions from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from view_run import make_run, write_video

from timer1lib.errors import Timer1Error
from timer1lib.files import read_json
from timer1lib.params.cells import current_source
from timer1lib.view.items import load_items
from timer1lib.view.open import lab_command, prepare, run_from_predictions

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


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
    with pytest.raises(Timer1Error, match="no run there"):
        prepare(tmp_path / "nothing")
    with pytest.raises(Timer1Error, match="Give a run, or --predictions"):
        prepare(predictions=tmp_path / "p.jsonl")
    (tmp_path / "empty" / "data").mkdir(parents=True)
    with pytest.raises(Timer1Error, match="05_evaluate"):
        prepare(tmp_path / "empty")
    (tmp_path / "a.json").write_text('{"AAA": {"duration": 4.0, "timestamps": [[1.0, 2.0]], "sentences": ["a disc"]}}')
    (tmp_path / "p.jsonl").write_text('{"video": "ZZZ", "query": "x", "start": 0, "end": 1}\n')
    with pytest.raises(Timer1Error, match="none of its 1 predictions"):
        run_from_predictions(tmp_path / "p.jsonl", tmp_path / "a.json", tmp_path, tmp_path / "run")


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
