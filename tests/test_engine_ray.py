"""The Ray engine on a real cluster of three simulated nodes with eight logical cards."""

from __future__ import annotations

import contextlib
import io
import json
import socket
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
from timer1lib.runs import sweep as sweep_module
from timer1lib.runs.engines.seam import Resources
from timer1lib.runs.runner import Project
from timer1lib.runs.sweep import SweepResult, sweep

ray = pytest.importorskip("ray", reason="the extra [ray] is not installed (make extras)")

CARDS = (3, 3, 2)


def ports() -> dict[str, int]:
    """Named ports: a node whose agents choose their own gives up where they need more than 15 s for it, as beside other work."""
    names = ("runtime_env_agent_port", "dashboard_agent_listen_port", "metrics_agent_port", "metrics_export_port")
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.socket()) for _ in names]
        for one in free:
            one.bind(("", 0))
        return dict(zip(names, (one.getsockname()[1] for one in free), strict=True))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        memory = {"object_store_memory": 80 << 20}
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **ports(), **memory})
        found.parts = [found.add_node(num_cpus=4, num_gpus=n, **ports(), **memory) for n in CARDS]
        found.wait_for_nodes()
        yield found
        found.shutdown()


SEEN = """
import json, os, time
from pathlib import Path
with open({marks!r}, "a") as stream:
    seen = {{"node": os.environ.get("TIMER1_NODE"), "cards": os.environ.get("CUDA_VISIBLE_DEVICES"), "beta": beta, "at": time.time()}}
    stream.write(json.dumps(seen) + "\\n")
"""


def project_of(folder: Path) -> Project:
    """Stubs whose 04 says where it runs, and whose result depends on the row."""
    bodies = {**BODIES, "grpo": SEEN.format(marks=str(folder / "marks.jsonl")) + BODIES["grpo"]}
    bodies["grpo"] += "\nwith open(log, 'a') as stream: stream.write(f'{int(1000 * beta)}\\n')\nopen(" + repr(
        str(folder / "ends.txt")
    )
    bodies["grpo"] += ", 'a').write(json.dumps({'beta': beta, 'at': time.time()}) + '\\n')\n"
    folder.mkdir()
    return make_project(folder / "p", bodies)


def marks(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_sweep(folder: Path, **options: Any) -> tuple[SweepResult, str]:
    path = write_sweep(folder, grid={"grpo.beta": [i / 100 for i in range(8)]}, until="05", gpus=options.pop("gpus", 1.0), cpus=1)
    stream = io.StringIO()
    return sweep(path, out=folder / "out", stream=stream, **options), stream.getvalue()


def table(result: SweepResult) -> str:
    return means_table(result.rows)


def test_every_row_sees_a_card_of_its_own_and_a_node_may_die(
    tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_module, "_compare", lambda runs: ({}, ""))
    monkeypatch.setenv("STUB_STEP_SECONDS", "0")
    here = project_of(tmp_path / "local")
    local, _ = run_sweep(tmp_path / "local", project=here, gpus=0.0, jobs=2)
    assert not local.failed, local.text()

    there, killed = project_of(tmp_path / "ray"), threading.Event()

    def kill_a_node() -> None:
        while not (begun := marks(tmp_path / "ray", "marks.jsonl")):
            time.sleep(0.05)
        node = next(part for part in cluster.parts if part.node_id == begun[0]["node"])
        cluster.remove_node(node, allow_graceful=False)
        killed.set()

    killer = threading.Thread(target=kill_a_node, daemon=True)
    killer.start()
    result, log = run_sweep(
        tmp_path / "ray", project=there, engine="ray", address=cluster.address, storage=str(tmp_path / "kept")
    )
    assert killed.is_set()
    assert not result.failed, log
    assert "it is tried again" in log
    assert table(result) == table(local), log
    assert [row["name"] for row in result.rows] == [row["name"] for row in local.rows]
    began = marks(tmp_path / "ray", "marks.jsonl")
    assert len(began) > 8, "a row that the dead node had begun was begun again"
    assert {row["beta"] for row in began} == {i / 100 for i in range(8)}
    ends = {row["beta"]: row["at"] for row in marks(tmp_path / "ray", "ends.txt")}
    for one in began:
        assert one["cards"] in ("0", "1", "2"), "one card each"
        for other in began:
            if other is not one and (one["node"], one["cards"]) == (other["node"], other["cards"]):
                assert other["at"] < one["at"] or other["at"] > ends[one["beta"]], "no two at a time on one card"
    # each row stands here as an ordinary run, though it ran elsewhere
    for row in result.rows:
        assert (tmp_path / "ray" / "out" / row["name"] / "checkpoints" / "sft" / "model.bin").is_file()
    assert sum(stage["how"] == "ran" for row in result.rows for stage in row["stages"].values()) == 3 + 2 * 8


def test_what_the_cluster_lacks_is_one_line(tmp_path: Path, cluster: Any) -> None:
    with pytest.raises(Timer1Error, match=r"a row asks for gpus: 7, cpus: 1, and no node of the cluster .* has that"):
        run_sweep(tmp_path / "x", project=make_project(tmp_path / "p"), engine="ray", address=cluster.address, gpus=7.0)


@pytest.mark.parametrize(
    ("address", "words"),
    [("127.0.0.1:1", "nobody answers there"), ("nonsense", "host:port"), ("ray://127.0.0.1:1", "nobody answers there")],
)
def test_an_address_that_nobody_answers_at_is_one_line_within_seconds(address: str, words: str) -> None:
    from timer1lib.runs.engines import open_engine

    began = time.monotonic()
    with pytest.raises(Timer1Error, match=words) as caught:
        open_engine("ray", Resources(), None, address, {}, Path())
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 10
