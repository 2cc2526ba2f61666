"""`timer1 rehearse`: every recipe runs whole, small, before a card is rented, and touches nothing of the real one."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
from collections import namedtuple
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from timer1lib import forms  # noqa: E402
from timer1lib.cli import main  # noqa: E402
from timer1lib.data.readers import read_annotations, recognise  # noqa: E402
from timer1lib.data.readers.source import open_source  # noqa: E402
from timer1lib.errors import Timer1Error  # noqa: E402
from timer1lib.models.inputs import encode_prompt  # noqa: E402
from timer1lib.models.load import load_model  # noqa: E402
from timer1lib.params.load import load_params  # noqa: E402
from timer1lib.params.sections import SharedParams  # noqa: E402
from timer1lib.progress import RUNNER_VARIABLE  # noqa: E402
from timer1lib.rehearsal import rehearse, standin  # noqa: E402
from timer1lib.rehearsal.layouts import LAYOUTS, QUESTIONS, durations_csv, layout_of  # noqa: E402
from timer1lib.rehearsal.rows import Rows  # noqa: E402
from timer1lib.rehearsal.standin import build_stand_in, into_hub_cache, short_answer  # noqa: E402
from timer1lib.runs import runner  # noqa: E402
from timer1lib.schema import Sample  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"
RECIPES = sorted((ROOT / "params").glob("*.yaml"))
SEVEN, THREE = "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen3-VL-8B-Instruct"


def execute_here(source: Path, target: Path, failed: Path, parameters: Mapping[str, Any], cwd: Path, *_: Any) -> None:
    """A notebook's code cells in this very process: what a kernel does, without its start and its imports."""
    from huggingface_hub import constants
    from IPython.core.formatters import DisplayFormatter

    show = DisplayFormatter().format
    notebook = json.loads(source.read_text())
    names: dict[str, Any] = {"__name__": "__main__", "display": lambda *values: [show(value) for value in values]}
    before = constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE
    constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = os.environ["HF_HUB_CACHE"], True
    try:
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                tree = ast.parse("".join(cell["source"]))
                last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
                exec(compile(tree, source.name, "exec"), names)
                if last is not None:
                    show(eval(compile(ast.Expression(last.value), source.name, "eval"), names))
                names |= parameters if "parameters" in cell["metadata"].get("tags", []) else {}
    finally:
        constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = before
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(notebook))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Notebooks, and ranks where stages start some, in this process and on one thread."""
    monkeypatch.setattr(runner, "execute", execute_here)
    if importlib.util.find_spec("timer1lib.stages.work") is not None:
        work = importlib.import_module("timer1lib.stages.work")
        monkeypatch.setattr(work, "carry_out", lambda job, *_: work.perform(job))
        monkeypatch.setattr(runner, "start_server", lambda *_: SimpleNamespace(kill=lambda: None, wait=lambda: None))
    monkeypatch.setenv(RUNNER_VARIABLE, str(os.getpid()))
    monkeypatch.chdir(ROOT)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def outputs() -> set[str]:
    """What lies in outputs/, but for the cache, which a test of another worker may make meanwhile."""
    return {path.name for path in (ROOT / "outputs").glob("*")} - {".cache"}


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_rehearses(path: Path, tmp_path: Path, here: None) -> None:
    """All seven notebooks; only what the rehearsal names differs from the recipe; nothing is written elsewhere."""
    recipe, before = load_params(path), outputs()
    done = rehearse(recipe, out=tmp_path / "run", rows=3)
    assert [stage["how"] for stage in done.stages.values()] == ["ran"] * 7
    executed = [json.loads(path.read_text()) for path in sorted((done.root / "notebooks").glob("0*.ipynb"))]
    said = [out for notebook in executed for cell in notebook["cells"] for out in cell.get("outputs", ())]
    assert [out["text"] for out in said if out.get("name") == "stderr"] == [], "stderr is shown in red"
    assert outputs() == before
    used = load_params(done.root / "params.yaml")
    differs = {
        f"{section}.{name}"
        for section, values in recipe.model_dump().items()
        if isinstance(values, dict)
        for name, value in values.items()
        if getattr(getattr(used, section), name) != value
    }
    assert differs == {change.key for change in done.changed}
    assert all(change.why for change in done.changed)
    if not Path(ROOT / recipe.shared.model).is_dir():
        assert used.shared.model == recipe.shared.model, "a hub id stays a hub id"
    log = rows_of(done.root / "logs" / "grpo.jsonl")
    assert {row["epoch"] for row in log} <= {1, 2}
    assert len(log) >= (1 if recipe.grpo.enabled else 0)
    assert all(("kl" in row) == (recipe.grpo.beta > 0) for row in log)
    assert (done.root / "checkpoints" / "grpo" / "model.safetensors").is_file() == recipe.grpo.enabled
    assert (done.root / "checkpoints" / "sft" / "model.safetensors").is_file() == recipe.sft.enabled
    asked = {name.partition("=")[0].strip() for name in recipe.curate.test_files.split(",") if "=" in name}
    answered = {file.name.split(".")[1] for file in (done.root / "predictions").glob("grpo.*.jsonl")}
    assert asked <= answered
    assert "The real thing" in done.lines()
    assert done.real["estimate"]


@pytest.mark.parametrize("name", ["didemo", "videomme", "egoschema"])
def test_a_recipe_that_only_tests_rehearses(name: str, tmp_path: Path, here: None) -> None:
    """A params file laid over a recipe; Video-MME is a hub data set, which is drawn and not asked for."""
    over = ROOT / "params" / "tests" / f"{name}.yaml"
    recipe = load_params(ROOT / "params" / "time_r1_7b.yaml", ["shared.dtype=float32", "evaluate.perturb_samples=0"], over)
    done = rehearse(recipe, out=tmp_path / "run", rows=2)
    files = list((done.root / "predictions").glob("base.*.jsonl"))
    assert len(files) == 1
    assert len(rows_of(files[0])) >= 2
    assert any(name in line.lower().replace("-", "") for line in done.real["missing"])


def test_a_reference_by_hub_id(tmp_path: Path, here: None) -> None:
    """beta > 0, no SFT, no LoRA: policy and reference both come from the hub's cache, at the recipe's revision."""
    overrides = [
        "shared.revision=v1.0",
        "grpo.epochs=1",
        "curate.test_files=T=none.jsonl",
        "evaluate.perturb_samples=0",
    ]
    recipe = load_params(ROOT / "params" / "time_r1_7b.yaml", overrides)
    assert recipe.grpo.beta > 0
    assert not recipe.sft.enabled
    assert recipe.grpo.lora_rank == 0
    done = rehearse(recipe, out=tmp_path / "run", rows=2)
    home = tmp_path / "run.inputs" / "hub" / "models--Qwen--Qwen2.5-VL-7B-Instruct"
    commit = (home / "refs" / "v1.0").read_text()
    names = {file.name for file in (home / "snapshots" / commit).iterdir()}
    assert {"config.json", "preprocessor_config.json", "chat_template.json", "model.safetensors.index.json"} <= names
    assert sum(name.endswith(".safetensors") for name in names) > 2
    log = rows_of(done.root / "logs" / "grpo.jsonl")
    assert log[0]["kl"] == pytest.approx(0.0, abs=0.01), "before the first step the policy is the reference"
    base, tuned = (load_model(f) for f in (home / "snapshots" / commit, done.root / "checkpoints" / "grpo"))
    moved = [not torch.equal(a, b) for a, b in zip(base.model.parameters(), tuned.model.parameters(), strict=True)]
    assert any(moved)


def stand_in(folder: Path, model: str, form: str = "timer1", **shared: Any) -> Any:
    """A stand-in that was hardly taught: its answers are not looked at here."""
    samples = [Sample(f"s{i}", "v.mp4", f"the person opens door {i}", 12.0 + 9 * i, [(2.0, 6.0)]) for i in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standin, "STEPS", 1)
        return build_stand_in(folder, SharedParams(model=model, form=form, **shared), forms.load(form), samples, 0)


@pytest.mark.parametrize(("model", "kind"), [(SEVEN, "qwen2_5_vl"), (THREE, "qwen3_vl")])
def test_a_stand_in_lies_as_the_published_folder_does(model: str, kind: str, tmp_path: Path) -> None:
    made = stand_in(tmp_path / "m", model)
    config = json.loads((made.folder / "config.json").read_text())
    assert config["model_type"] == kind
    assert ("text_config" in config) == (kind == "qwen3_vl"), "Qwen2.5-VL's is flat"
    assert config["vision_config"]["patch_size"] == {"qwen2_5_vl": 14, "qwen3_vl": 16}[kind]
    assert len(config["vision_config"].get("deepstack_visual_indexes", [])) == {"qwen2_5_vl": 0, "qwen3_vl": 3}[kind]
    decoding = json.loads((made.folder / "generation_config.json").read_text())
    assert decoding["repetition_penalty"] == {"qwen2_5_vl": 1.05, "qwen3_vl": 1.0}[kind]
    assert "vocabulary is a stand-in" in " ".join(made.told)
    loaded = load_model(made.folder)
    assert sum(p.numel() for p in loaded.model.parameters()) < 1e6
    special = {"<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|video_pad|>", "<|box_start|>", "<|quad_end|>"}
    assert special <= set(loaded.tokenizer.all_special_tokens)
    ids = {loaded.tokenizer.convert_tokens_to_ids(token) for token in special}
    assert len(ids) == 6
    assert loaded.model.config.video_token_id == loaded.tokenizer.convert_tokens_to_ids("<|video_pad|>")


@pytest.mark.parametrize("model", [SEVEN, THREE])
def test_the_published_template_marks_a_video_once(model: str, tmp_path: Path) -> None:
    """Both families' templates write marks around a video; a processor that adds its own must not nest them."""
    from grpo_runs import some_frames

    loaded = load_model(stand_in(tmp_path / "m", model).folder)
    text = loaded.tokenizer.decode(encode_prompt(loaded, some_frames(0, 6), "when?")["input_ids"][0])
    marks = [part.split(">")[0] for part in text.split("<|vision_")[1:]]
    assert marks == ["start|", "end|"] * (1 if model == SEVEN else 3)
    assert text.count("<|im_start|>system\nYou are a helpful assistant.<|im_end|>") == (model == SEVEN)


def test_a_cached_model_lends_its_own_processor_tokenizer_and_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    made = stand_in(tmp_path / "m", SEVEN)
    template = json.loads((made.folder / "chat_template.json").read_text())["chat_template"]
    (made.folder / "chat_template.json").write_text(json.dumps({"chat_template": template.replace("helpful", "lent")}))
    config = json.loads((made.folder / "config.json").read_text())
    (made.folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3, "rope_theta": 54321.0}))
    into_hub_cache(made.folder, tmp_path / "hub", SEVEN, "", "a" * 64)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    lent = stand_in(tmp_path / "n", SEVEN)
    told = " ".join(lent.told)
    assert "vocabulary is its own" in told
    assert "chat template is its own" in told
    assert "stand-in" not in told
    loaded = load_model(lent.folder)
    assert "You are a lent assistant." in loaded.processor.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    kept = json.loads((lent.folder / "config.json").read_text())
    assert kept["rope_theta"] == 54321.0
    assert kept["num_hidden_layers"] == 2, "depth is the stand-in's"
    assert (lent.folder / "tokenizer.json").read_bytes() == (made.folder / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("name", sorted(forms.FORMS))
def test_the_taught_answer_is_one_that_the_form_reads_and_accepts(name: str) -> None:
    form, sample = forms.load(name), Sample("s", "v.mp4", "a dog runs", 20.0, [(1.0, 2.0)])
    text = short_answer(form, sample, (4.0, 15.0))
    assert form.span(text) == (4.0, 15.0)
    assert form.fits(text)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_drawn_rows_are_recognised_as_the_layout_that_they_stand_for(layout: str, tmp_path: Path) -> None:
    windows = [[(1.0, 4.0)], [(2.5, 7.0)], [(3.0, 9.5)]]
    asked: dict[str, Any] = {"options": ["one", "two", "three"], "answer": 1} if layout in QUESTIONS else {}
    samples = [Sample(f"s{i}", f"v{i}.mp4", f"query {i}", 12.0, window, type="t", **asked) for i, window in enumerate(windows)]
    path = tmp_path / {"charades_sta": "a.txt", "csv": "a.csv"}.get(layout, "a.json")
    path.write_text(LAYOUTS[layout](samples))
    (tmp_path / "lengths.csv").write_text(durations_csv(samples))
    assert recognise(open_source(path)) == layout
    read = read_annotations(path)
    assert read.dropped == 0
    assert [sample.query for sample in read.samples] == ["query 0", "query 1", "query 2"]
    assert [sample.answer for sample in read.samples] == [asked.get("answer")] * 3
    if layout not in ("mvbench", "tempcompass", "videomme", "egoschema", "didemo"):
        assert [sample.windows for sample in read.samples] == windows
    if layout == "didemo":
        assert [sample.windows for sample in read.samples] == [[(0.0, 5.0)], [(0.0, 10.0)], [(0.0, 10.0)]]


def test_every_file_that_a_recipe_names_has_a_layout() -> None:
    wanted = {"timerft_train_2k5.json": "timerft", "tvgbench.json": "tvgbench", "charades_sta_test.json": "captions"}
    wanted |= {
        "activitynet_captions_val2.json": "captions",
        "charades_sta_test.txt": "charades_sta",
        "my.csv": "csv",
        "x.jsonl": "jsonl",
    }
    assert {name: layout_of(name, "auto") for name in wanted} == wanted
    assert layout_of("MVBench-order action_order.json", "auto") == "mvbench"
    assert layout_of("my.json", "didemo") == "didemo"


def csv_file(path: Path, count: int) -> None:
    rows = [f"clip{i},a person waves {i},1.5,4.0,{9 + i % 3}" for i in range(count)]
    path.write_text("\n".join(["video,query,start,end,duration", *rows, "gone,nothing,9,3,5"]) + "\n")


def test_a_handful_is_the_users_own_rows_with_his_own_videos_first(tmp_path: Path) -> None:
    from timer1lib.data.video_checks import VideoFolder
    from timer1lib.video.probe import timeline
    from timer1lib.world.render import write_video
    from timer1lib.world.scene import sample_scene

    csv_file(tmp_path / "mine.csv", 40)
    write_video(sample_scene(3, 0.3, (10.0, 10.0)), tmp_path / "videos" / "clip31.mp4")
    kept = Rows(tmp_path / "in", 4)
    samples = kept.add("mine", tmp_path / "mine.csv", "auto", VideoFolder(tmp_path / "videos"))
    assert samples[0].query == "a person waves 31"
    assert len(samples) == 4
    assert "nothing" not in [sample.query for sample in samples], "that row ends before it starts"
    assert (kept.own_videos, kept.drawn_videos) == (1, 3)
    for sample in samples:
        file = VideoFolder(kept.videos).find(sample.video)
        assert file is not None
        assert timeline(kept.videos / file).duration_s == pytest.approx(
            sample.duration if sample.video != "clip31" else 10.0, abs=0.3
        )


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="no ../shared/data: published annotation files are not here")
def test_the_published_files_are_rehearsed_and_audited_whole(tmp_path: Path, here: None) -> None:
    """Counts from the files themselves: 34 windows of TimeRFT end after their video; the audit clips them and drops none."""
    data = SHARED_DATA / "annotations"
    overrides = [
        f"curate.train_files={data / 'timerft_train_2k5.json'}",
        f"curate.test_files=TVGBench={data / 'tvgbench.json'}",
        f"curate.videos={SHARED_DATA / 'videos'}",
        "grpo.epochs=1",
        "evaluate.perturb_samples=0",
        "shared.dtype=float32",
    ]
    done = rehearse(load_params(ROOT / "params" / "time_r1_7b.yaml", overrides), out=tmp_path / "run", rows=3)
    files = {Path(file["file"]).name: file for file in done.real["rows"]["files"]}
    train = json.loads((data / "timerft_train_2k5.json").read_text())
    late = sum(row["timestamp"][1] > row["duration"] + 0.001 for row in train)
    assert files["timerft_train_2k5.json"]["in"] == len(train) == 2500
    assert files["timerft_train_2k5.json"]["repaired"] >= late == 34
    assert files["tvgbench.json"]["in"] == 800
    assert done.real["videos"]["missing"] == done.real["videos"]["named"] - 1, "OHOFG.mp4 is there"
    published = {row["sentence"] for row in train}
    used = rows_of(done.root / "data" / "train.jsonl")
    assert {row["query"] for row in used} <= published
    asked = rows_of(done.root / "data" / "TVGBench.jsonl")
    assert "person sitting down in a chair." in [row["query"] for row in asked], "the row whose video is here comes first"


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tiny, out = str(ROOT / "params" / "tiny.yaml"), str(tmp_path / "run")

    def line(*arguments: str) -> str:
        assert main(["rehearse", *arguments, "--out", out]) == 2
        lines = capsys.readouterr().err.splitlines()
        said = next(line for line in lines if line.startswith("timer1: "))
        assert said == lines[-1], "libraries may warn before it"
        assert not any("Traceback" in line for line in lines)
        shutil.rmtree(f"{out}.inputs", ignore_errors=True)
        return said

    assert "no such params file" in line(str(tmp_path / "none.yaml"))
    broken = tmp_path / "broken"
    broken.mkdir()
    assert "config.json" in line(tiny, "-p", f"shared.model={broken}")
    (broken / "config.json").write_text("{")
    assert "not JSON" in line(tiny, "-p", f"shared.model={broken}")
    (broken / "config.json").write_text('{"model_type": "llama"}')
    assert "type 'llama'" in line(tiny, "-p", f"shared.model={broken}")
    shutil.copytree(ROOT / "assets" / "tiny-qwen3-vl", broken, dirs_exist_ok=True)
    (broken / "tokenizer.json").write_text("{}")
    assert f"{broken}" in line(tiny, "-p", f"shared.model={broken}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    assert "no rehearsal left" in line(tiny)
    shutil.rmtree(tmp_path / "run")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12, 10**8))
    assert "0.10 GB free" in line(tiny)
    assert not (tmp_path / "run").exists()


def test_a_real_run_is_never_a_rehearsal_s_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "manifest.json").write_text('{"timer1": "1"}')
    with pytest.raises(Timer1Error, match="no rehearsal left"):
        rehearse(load_params(ROOT / "params" / "tiny.yaml"), out=tmp_path / "real")
    assert [file.name for file in (tmp_path / "real").iterdir()] == ["manifest.json"]
    assert not (tmp_path / "real.inputs").exists()
