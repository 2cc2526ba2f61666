"""The five wishes of docs/ideas.md in a real JupyterLab: what a researcher types, and what there is to see then."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Notebook, Watched, jupyterlab
from make_videos import write_video

from timer1lib.files import atomic_write_json, atomic_write_jsonl, project_root, read_json, read_jsonl
from timer1lib.params.load import load_params
from timer1lib.rewards import RewardInput
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Sample
from timer1lib.spans import iou
from timer1lib.world.splits import build_splits

SMALL = (
    "shared.frames=8", "shared.processes=1", "shared.workers=0", "grpo.prompts_per_step=2", "grpo.num_generations=4",
    "grpo.log_rollouts_every=1", "grpo.max_completion_length=24", "evaluate.max_new_tokens=24",
)  # fmt: skip
GROUPS, ROLLOUTS = 6, 4


def small_run(root: Path) -> RunFolder:
    """What a run of params/tiny.yaml leaves for ideas to be tried on, with a few videos: rollouts, difficulties, splits."""
    splits = build_splits(root / "world", train_videos=4, test_videos=2, ood_videos=0, questions=0, workers=0)
    run = RunFolder(root / "outputs" / "small")
    chosen = splits["train"][:GROUPS]
    for name, samples in {"train": splits["train"], "selected": chosen, "test_id": splits["test_id"]}.items():
        run.write_samples(name, samples)
    run.set_video_root(root / "world")
    table = {name: {"kind": "grounding", "n": len(splits[name])} for name in ("train", "test_id")}
    atomic_write_json(run.data("splits.json"), table)
    ious = [0.1 * (i % 10) for i in range(len(splits["train"]))]
    difficulty = [
        {"id": s.id, "iou": v, "start": 0.0, "end": 1.0, "completion": ""} for s, v in zip(splits["train"], ious, strict=True)
    ]
    atomic_write_jsonl(run.data("difficulty"), difficulty)
    atomic_write_jsonl(run.log("rollouts"), [rollouts(step, sample) for step, sample in enumerate(chosen)])
    params = load_params("params/tiny.yaml", ["name=small", f"shared.cache_dir={root / 'cache'}", *SMALL])
    run.params.write_text(yaml.safe_dump(params.model_dump()))
    return run


def rollouts(step: int, sample: Sample) -> dict[str, Any]:
    """A group in which one answer misses the start, one the end, one is right and one is no answer."""
    start, end = sample.window
    spans = [(start + 0.5, end), (start, end + 0.5), (start, end), None]
    texts = [f"<think>a</think><answer>{s[0]:.2f} to {s[1]:.2f}</answer>" if s else "nothing" for s in spans]
    parts = {"tiou": [iou(span, sample.window) for span in spans], "format": [1.0, 1.0, 1.0, 0.0]}
    rewards = [sum(values) for values in zip(*parts.values(), strict=True)]
    shown = [list(span) if span else None for span in spans]
    row = {"step": step, "id": sample.id, "gt": [start, end], "completions": texts, "rewards": rewards, "parts": parts}
    return {**row, "spans": shown}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return small_run(tmp_path_factory.mktemp("wishes"))


@pytest.fixture(scope="module")
def address(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A JupyterLab on copies of 08_idea and 06_inspect whose parameters name the small run."""
    folder = run.root.parent / "lab"
    folder.mkdir()
    given = {"run_dir": json.dumps(str(run.root)), "steps": "2", "samples": "4", "cache_dir": json.dumps(str(run.root / "cache"))}
    for name in ("08_idea", "06_inspect"):
        notebook = read_json(project_root() / "notebooks" / f"{name}.ipynb")
        for cell in notebook["cells"]:
            if "parameters" in cell["metadata"].get("tags", []):
                text = "".join(cell["source"])
                for key, value in given.items():
                    text = re.sub(rf"^{key}(: \w+) = .*$", rf"{key}\1 = {value}", text, flags=re.MULTILINE)
                cell["source"] = text.splitlines(keepends=True)
        (folder / f"{name}.ipynb").write_text(json.dumps(notebook))
    with jupyterlab(folder / "08_idea.ipynb", tmp_path_factory.mktemp("home")) as found:
        yield found


@pytest.fixture(scope="module")
def page(browser: Any, address: str) -> Iterator[Notebook]:
    watched = Watched(browser)
    yield Notebook(watched.page, address, "08_idea.ipynb")
    watched.page.close()


OWN = '''from timer1lib.rewards import RewardInput

WITHIN = 0.25

def edge(x: RewardInput) -> float:
    """Half a point for each edge that is hit within a quarter of a second."""
    if x.span is None or x.window is None:
        return 0.0
    return sum(abs(said - true) <= WITHIN for said, true in zip(x.span, x.window)) / 2
'''


def edge(x: RewardInput) -> float:
    names: dict[str, Any] = {}
    exec(OWN, names)
    return float(names["edge"](x))


def test_a_reward_of_ones_own_on_stored_rollouts_and_trained_beside_the_default(
    page: Notebook, run: RunFolder, shots: Path
) -> None:
    """Wishes 1 and 2: one cell of 08 is written anew, then Run All."""
    before = {path: path.stat().st_mtime_ns for path in run.root.rglob("*") if path.is_file()}
    page.replace("def edge", OWN)
    page.run_all()
    told = page.shown("idea.preview(trial, MINE)")
    page.page.screenshot(path=str(shots / "wish-own-reward.png"))
    # 0.5, 0.5, 1 and 0 in every group, and 1 for the form but for the last: 1.5, 1.5, 2, 0
    assert "6, 24" in told, told
    assert "1.250" in told
    assert "0.0% under edge" in told
    difference = page.shown('idea.difference(trial, "default", "edge")')
    assert "edge" in difference, difference
    assert "default" in difference
    trial = run.root.with_name("small_idea")
    assert WITHIN_OF(trial) == "0.25"
    assert sorted(path.name.partition(".")[0] for path in (trial / "predictions").glob("*.jsonl")) == ["default", "edge"]
    logs = {path.parent.parent.name.partition("-")[0]: list(read_jsonl(path)) for path in trial.rglob("logs/grpo.jsonl")}
    assert "rewards/edge/mean" in logs["edge"][-1], "its name in the log"
    assert {path: path.stat().st_mtime_ns for path in run.root.rglob("*") if path.is_file()} == before, "the run is only read"


def WITHIN_OF(trial: Path) -> str:
    text = next(path for path in (trial / "ideas").glob("edge*.py")).read_text()
    return text.partition("WITHIN = ")[2].split()[0]


def test_a_prompt_of_ones_own(page: Notebook, run: RunFolder) -> None:
    """Wish 3: a form file, and a line that names it."""
    page.run('%%writefile mine.yaml\nask: "at what time: {query}?"\nread: brief')
    page.run('print(idea.train(trial, "asked", form="mine.yaml"))')
    assert "asked" in page.run('idea.difference(trial, "default", "asked")')


def test_a_filter_of_ones_own(page: Notebook) -> None:
    """Wish 4: a function of a sample and its difficulty."""
    said = page.run('print(idea.train(trial, "middle", keep=lambda s: 0.2 < s.iou <= 0.7))')
    assert "middle" in said, said
    assert "middle" in page.run('idea.difference(trial, "default", "middle")')


def test_fifty_videos_of_ones_own(page: Notebook, run: RunFolder) -> None:
    """Wish 5, as docs/data.md says word by word: a folder and a CSV, no file of the project; two of the rows are wrong."""
    text = (project_root() / "docs" / "data.md").read_text().partition("## Your data in five minutes")[2].partition("\n## ")[0]
    audit, whole = re.findall(r"^    (timer1 .*)$", text, re.MULTILINE)
    header = re.findall(r"^```\n(.*)$", text, re.MULTILINE)[0]
    clips = run.root.parent / "lab" / "clips"
    clips.mkdir()
    for i in range(50):
        write_video(clips / f"take{i:02d}.mp4", [150 * k for k in range(20 + i)], size=(64, 128))
    rows = [f"take{i:02d}.mp4,{0.5 * (i % 3):.1f},{1 + 0.5 * (i % 3):.1f},bars flash for the {i} time" for i in range(50)]
    rows[4] = "take04.mp4,3.0,1.0,bars run back"
    rows[9] = "take09.mp4,1.0,60.0,bars run out"
    (clips.parent / "mine.csv").write_text("\n".join([header, *rows]) + "\n")
    said = page.run(f"!{audit}")
    assert "50 rows in = 48 kept + 2 repaired + 0 dropped" in said, said
    assert said.count("mine.csv, line") == 2
    assert "50 rows name no duration" in said
    said = page.run(f"!{whole} --until 01 --out {run.root.parent / 'mine'}")
    splits = {name: list(read_jsonl(RunFolder(run.root.parent / "mine").data(name))) for name in ("train", "test")}
    assert {name: len(found) for name, found in splits.items()} == {"train": 40, "test": 10}, said


def test_06_shows_the_runs_own_reward_while_an_edge_is_dragged(browser: Any, address: str, run: RunFolder, shots: Path) -> None:
    """The kernel computes what JavaScript does not know; the number is what Python gives for the same segment."""
    (run.root / "mine.py").write_text(OWN)
    watched = Watched(browser)
    notebook = Notebook(watched.page, address, "06_inspect.ipynb")
    notebook.replace(
        "run_dir",
        f"run_dir = {str(run.root)!r}\ncache_dir = {str(run.root / 'cache')!r}\nreward = {str(run.root / 'mine.py:edge')!r}",
    )
    notebook.page.keyboard.press("Shift+Enter")
    notebook.run(
        'from timer1lib.stages import inspect, open_stage\nstage = open_stage("inspect", globals())\ninspect.rollouts(stage)'
    )
    root = watched.page.locator(".t1-root").first
    root.scroll_into_view_if_needed()
    sample = run.read_samples("selected")[0]
    assert any("edge" in text for text in root.locator(".t1-quiet").all_inner_texts())
    values = {node.get_attribute("data-reward"): node.inner_text() for node in root.locator("[data-reward]").all()}
    assert values == {"r0": "0.500", "r1": "0.500", "r2": "1.000", "r3": "0.000"}
    assert "tiou 1.000 · format 1.000" in root.locator(".t1-parts").inner_text()
    handle = root.locator('[data-edge="r2:0:1"]')

    def drag(pixels: int) -> None:
        box = handle.bounding_box()
        mouse = watched.page.mouse
        mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        mouse.down()
        mouse.move(box["x"] + pixels, box["y"] + 5, steps=6)
        mouse.up()

    drag(150)
    watched.page.wait_for_function("() => document.querySelector('[data-reward=r2]').textContent === '0.500'", timeout=10_000)
    assert abs(float(handle.get_attribute("aria-valuenow")) - sample.window[1]) > 0.25
    root.screenshot(path=str(shots / "wish-live-reward.png"))
    watched.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    drag(-90)
    watched.page.wait_for_function("() => document.querySelector('[data-reward=r2]').textContent === 'kernel?'", timeout=10_000)
    assert root.locator('[data-iou="r2"]').inner_text() != "1.000", "what JavaScript knows goes on"
    watched.page.close()
