"""The Ray engine on a real cluster of three simulated nodes with eight logical cards: test_engine_ray.py runs this file.

Ray leaves threads, a fork handler and a handler of crashes in the process that joined a cluster, so these tests have one of
their own.
"""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stub_project import BODIES, make_project
from test_sweep import write_sweep

from timer1lib.errors import Timer1Error
from timer1lib.evaluation.pooled import means_table
from timer1lib.runs.engines.seam import Resources
from timer1lib.runs.runner import Project
from timer1lib.runs.sweep import SweepResult, sweep

CARDS = (3, 3, 2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # Without the dashboard's agents: beside other work they take longer than the 15 s that a node waits for them.
        patch.setattr("ray._private.utils.get_dashboard_dependency_error", lambda: ImportError("not wanted"))
        memory = {"object_store_memory": 80 << 20}
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **memory})
        found.parts = [found.add_node(num_cpus=4, num_gpus=n, **memory) for n in CARDS]
        found.wait_for_nodes()
        yield found
        found.shutdown()


SFT = """
import json, os, time
from pathlib import Path
from timer1lib.runfolder import RunFolder
row = {{"row": steps, "node": os.environ.get("TIMER1_SWEEP_NODE"), "cards": os.environ.get("CUDA_VISIBLE_DEVICES")}}
def mark(name):
    with open(Path({folder!r}) / name, "a") as stream: stream.write(json.dumps({{**row, "at": time.time()}}) + "\\n")
mark("begun.jsonl")
if steps == 999: raise ValueError("one row's own error")
time.sleep({seconds})
run = RunFolder(Path(run_dir), "sft")
(run.staging / "metrics.json").write_text(json.dumps({{"splits": {{"test_id": {{"sft": {{"mIoU": steps / 10}}}}}}}}))
mark("ended.jsonl")
"""
ROWS = [100, 200, 300, 600, 999]


def project_of(folder: Path, seconds: float) -> Project:
    """Stubs whose 02 says where and when it runs, and leaves a result of the row's own."""
    folder.mkdir()
    return make_project(folder / "p", {**BODIES, "sft": BODIES["sft"] + SFT.format(folder=str(folder), seconds=seconds)})


def marks(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_sweep(folder: Path, gpus: float = 1.0, **options: Any) -> tuple[SweepResult, str]:
    path = write_sweep(folder, grid={"sft.steps": ROWS}, until="02", gpus=gpus, cpus=1)
    stream = io.StringIO()
    return sweep(path, out=folder / "out", stream=stream, **options), stream.getvalue()


def test_every_row_sees_a_card_of_its_own_and_a_node_may_die(tmp_path: Path, cluster: Any) -> None:
    local, _ = run_sweep(tmp_path / "local", gpus=0, project=project_of(tmp_path / "local", 0), jobs=2)
    assert [row["name"] for row in local.failed] == ["steps=999"]

    far, killed = tmp_path / "ray", threading.Event()
    project = project_of(far, 2.0)

    def kill_a_node() -> None:
        while not (begun := marks(far, "begun.jsonl")):
            time.sleep(0.05)
        node = next(part for part in cluster.parts if part.node_id == begun[0]["node"])
        cluster.remove_node(node, allow_graceful=False)
        killed.set()

    threading.Thread(target=kill_a_node, daemon=True).start()
    result, log = run_sweep(far, project=project, engine="ray", address=cluster.address, storage=str(tmp_path / "kept"))
    assert killed.is_set()
    assert "it is tried again" in log
    assert [(row["name"], row["error"]) for row in result.failed] == [("steps=999", result.failed[0]["error"])], log
    assert "02_sft, cell 3: ValueError: one row's own error" in result.failed[0]["error"]
    assert means_table(result.rows) == means_table(local.rows), log
    assert "60.0" in str(means_table(result.rows))
    assert [row["name"] for row in result.rows] == [row["name"] for row in local.rows]
    begun, ended = marks(far, "begun.jsonl"), {row["row"]: row["at"] for row in marks(far, "ended.jsonl")}
    assert len(begun) > len(ROWS), "a row that the dead node had begun was begun again"
    assert {row["row"] for row in begun} == set(ROWS)
    for i, one in enumerate(begun):
        assert one["cards"] in ("0", "1", "2"), "one card each"
        for other in begun[i + 1 :]:
            if (one["node"], one["cards"]) == (other["node"], other["cards"]):
                assert other["at"] >= ended.get(one["row"], 0), "no two at a time on one card"
    # each row stands here as an ordinary run, though it ran elsewhere
    for row in (row for row in result.rows if not row["error"]):
        assert (far / "out" / row["name"] / "checkpoints" / "sft" / "model.bin").read_text() == "sft of seed 0\n"
    assert sum(stage["how"] == "ran" for row in result.rows for stage in row["stages"].values()) == 1 + 4, (
        "what is shared runs once"
    )


def test_what_the_cluster_lacks_is_one_line(tmp_path: Path, cluster: Any) -> None:
    with pytest.raises(Timer1Error, match=r"a row asks for gpus: 7, cpus: 1, and no node of the cluster .* has that"):
        run_sweep(tmp_path / "x", project=make_project(tmp_path / "p"), engine="ray", address=cluster.address, gpus=7.0)


@pytest.mark.parametrize(
    ("address", "words"),
    [("127.0.0.1:1", "nobody answers at"), ("nonsense", "host:port"), ("ray://127.0.0.1:1", "nobody answers at")],
)
def test_an_address_that_nobody_answers_at_is_one_line_within_seconds(address: str, words: str) -> None:
    from timer1lib.runs.engines import open_engine

    began = time.monotonic()
    with pytest.raises(Timer1Error, match=words) as caught:
        open_engine("ray", Resources(), None, address, {}, Path())
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 10
