"""Params files: every mistake is one line before anything runs; notebooks' cells are what the models say."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
import yaml
from pydantic.fields import FieldInfo

from timer1lib.errors import Timer1Error
from timer1lib.params import SHARED_READ, cells
from timer1lib.params.load import all_keys, load_params
from timer1lib.params.sections import NOTEBOOKS, SECTIONS, Params
from timer1lib.runs.keys import check_files
from timer1lib.runs.runner import run

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = sorted([*(ROOT / "params").glob("*.yaml"), *(ROOT / "params" / "tests").glob("*.yaml")])


def write(folder: Path, text: str) -> Path:
    path = folder / "p.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shared: {sede: 1}", ["unknown parameter 'shared.sede'", "did you mean 'shared.seed'"]),
        ("sharde: {seed: 1}", ["unknown parameter 'sharde'", "did you mean 'shared'"]),
        ("seed: 1", ["unknown parameter 'seed'", "did you mean 'shared.seed'"]),
        ("shared: {seed: -1}", ["shared.seed", "greater than or equal to 0", "given -1"]),
        ("shared: {seed: many}", ["shared.seed", "given 'many'"]),
        ("shared: {fps: .nan}", ["shared.fps"]),
        ("shared: {form: time_r1}", ["shared.form", "neither a file nor one of brief, timer1", "did you mean 'timer1'"]),
        ("shared: 5", ["shared", "given 5"]),
        ("shared: {seed: 1, seed: 2}", ["'seed' stands twice"]),
        ("name: ../up", ["name"]),
        ("- a\n- b", ["a params file is a mapping"]),
        ("shared: {seed: 1", ["not YAML"]),
        ("1: 2", ["is not text"]),
        ("name: ''", ["name", "given ''"]),
        ("shared: {seed: 4294967296}", ["shared.seed", "less than or equal to 4294967295"]),
        ("curate: {world_seed: 4294967296}", ["curate.world_seed", "4294967295"]),
        ("shared: {seed: " + "9" * 5000 + "}", ["whole number of more than 4,300 digits"]),
        ("shared: {seed: 0x" + "f" * 5000 + "}", ["shared.seed", "a very long int"]),
        ("shared: " + "[" * 5000 + "]" * 5000, ["nested too deep"]),
        ("a: &a [1, *a]", ["aliases that stand for over 1,000,000 values"]),
        ("a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60)), ["aliases that stand for"]),
        ("shared: {seed: 2024-13-45}", ["not YAML"]),
        ("shared: {model: ''}", ["shared.model", "must name something"]),
        ("shared: {cache_dir: ' '}", ["shared.cache_dir", "must name something"]),
        ("sft: {learning_rate: .nan}", ["sft.learning_rate"]),
        ("sft: {learning_rate: -1.0}", ["sft.learning_rate", "greater than 0"]),
        ("grpo: {rewards: 'tuio:1, format'}", ["grpo.rewards", "unknown reward 'tuio'; did you mean 'tiou'"]),
        ("grpo: {rewards: 'tiou:nan'}", ["grpo.rewards", "weight of 'tiou' is no number"]),
        ("grpo: {rewards: ''}", ["grpo.rewards", "at least one"]),
        ("grpo: {stage_bands: '0.5-1'}", ["grpo.stage_bands", "is not low:high"]),
        ("grpo: {groups_per_forward: 3}", ["groups_per_forward 3 must divide prompts_per_step 8"]),
        ("grpo: {phase_policy: carry, lora_rank: 4}", ["adapters are merged after each epoch"]),
        ("grpo: {filter_low: 0.8}", ["filter_low 0.8 must be below filter_high 0.7"]),
        ("difficulty: {rollout_reward: 'tiou, speed'}", ["difficulty.rollout_reward", "unknown reward 'speed'"]),
        ("difficulty: {rule: band, low: 0.7}", ["low 0.7 must be below high 0.7"]),
        ("difficulty: {rule: top_variance}", ["top_variance needs difficulty.rollouts"]),
        ("difficulty: {rollouts: 4, difficulty_model: published}", ["rollouts need a model"]),
        ("evaluate: {checkpoints: 'base, rl'}", ["evaluate.checkpoints", "'rl' is none of base, sft, grpo"]),
        ("evaluate: {perturb: reverse}", ["evaluate.perturb", "'reverse' is none of swap, shuffle"]),
        ("evaluate: {shard: 5/4}", ["evaluate.shard", "k/n"]),
        ("inspect: {reward: speed}", ["inspect.reward"]),
        ("curate: {source: files}", ["needs curate.train_files"]),
        ("curate: {source: files, hub_train: x/y}", ["curate.hub_train", "id:split"]),
        ("curate: {cold_start: annotations}", ["needs curate.cold_start_file"]),
        ("curate: {source: files, train_files: none}", ["a run that only tests needs curate.test_files"]),
        ("curate: {source: files, train_files: none, test_files: a.json}", ["needs sft.enabled=false and grpo.enabled=false"]),
        ("curate: {source: files, train_files: none, test_files: a.json}\nsft: {enabled: false}", ["grpo.enabled=false"]),
    ],
)
def test_mistakes_name_file_and_key(tmp_path: Path, text: str, words: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(Timer1Error) as caught:
        load_params(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("key", ["grpo.bogus", "shared.zzz", "bogus"])
def test_a_key_that_is_near_to_none_suggests_none(tmp_path: Path, key: str) -> None:
    with pytest.raises(Timer1Error, match="unknown parameter") as caught:
        load_params(write(tmp_path, "name: a"), [f"{key}=1"])
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shared: {model: assets/no-such-model}", ["shared.model 'assets/no-such-model'", "config.json"]),
        ("shared: {model: /nowhere/at/all}", ["shared.model"]),
        ("shared: {model: params}", ["shared.model 'params'"]),
        ("curate: {source: files, train_files: 'here.json, gone.json'}", ["curate.train_files 'gone.json'", "no such file"]),
        ("curate: {source: files, train_files: here.json, test_files: 'T=gone.json'}", ["curate.test_files 'gone.json'"]),
        ("curate: {source: files, train_files: here.json, videos: gone}", ["curate.videos 'gone'", "no such folder"]),
        ("curate: {source: files, train_files: here.json, format: mine}", ["curate.format 'mine'", "auto"]),
        ("curate: {notes_file: gone.jsonl}", ["curate.notes_file"]),
        ("curate: {cold_start: annotations, cold_start_file: gone.jsonl}", ["curate.cold_start_file"]),
    ],
)
def test_files_that_are_not_there_stop_a_run_before_it_starts_but_no_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.json").write_text("[]")
    params = load_params(write(tmp_path, text))
    for start in (lambda: run(params, out=tmp_path / "out"), lambda: check_files(params)):
        with pytest.raises(Timer1Error) as caught:
            start()
        assert "\n" not in str(caught.value)
        assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text",
    [
        "shared: {model: Qwen/Qwen3-VL-8B-Instruct}",
        "shared: {model: owner/some-model}",
        "curate: {source: files, train_files: here.json, test_files: 'T=here.json, a=b.json', videos: .}",
        "curate: {train_files: gone.json, test_files: gone.json, videos: gone, cold_start_file: gone}",
    ],
)
def test_what_is_there_or_not_used_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("here.json", "a=b.json"):
        (tmp_path / name).write_text("[]")
    check_files(load_params(write(tmp_path, text)))


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("shared: {template: tvg_r1, parser: tvg_r1}", "write shared.form: tvg_r1"),
        ("shared: {template: timer1}", "write shared.form: timer1"),
        ("shared: {parser: timer1}", "write shared.form: brief"),
        ("shared: {template: timer1, parser: timer1_eval}", "write shared.form: timer1_eval"),
        ("shared: {template: timer1_direct}\ncurate: {cold_start_template: direct}", "write shared.form: timer1_direct"),
        ("shared: {template: mine/prompt.txt}", "write shared.form: mine/prompt.txt"),
        ("shared: {template: mine.txt, parser: tvg_r1}", "with `ask` (the text of mine.txt), `read: tvg_r1`"),
        ("shared: {parser: timelens}", "with `ask` (the text of brief), `read: timelens`"),
        ("curate: {cold_start_template: my_cot.txt}", "`read: timer1` and `write` (the text of my_cot.txt)"),
        ("curate: {cold_start_decimals: 2}", "`decimals` in a form file"),
    ],
)
def test_parameters_that_became_the_form_say_what_to_write(tmp_path: Path, text: str, advice: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(Timer1Error) as caught:
        load_params(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "shared.form" in str(caught.value)
    assert str(caught.value).endswith(advice) or advice in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_form_file_is_read_when_params_are(tmp_path: Path) -> None:
    (tmp_path / "form.yaml").write_text("aks: '{query}'")
    with pytest.raises(Timer1Error, match=r"parameter 'shared\.form': .*form\.yaml: unknown field 'aks'; did you mean 'ask'"):
        load_params(write(tmp_path, f"shared: {{form: {tmp_path}/form.yaml}}"))
    (tmp_path / "form.yaml").write_text("ask: '{query}'")
    assert load_params(write(tmp_path, f"shared: {{form: {tmp_path}/form.yaml}}")).shared.form == f"{tmp_path}/form.yaml"


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("shared.seed", "section.key=value"),
        ("=", "section.key=value"),
        (".=1", "section.key=value"),
        ("shared..seed=1", "section.key=value"),
        ("shared={", "not YAML"),
        ("shared=3", "is a section"),
        ("shared.seed.x=3", "not a section|shared.seed"),
        ("shared.seed=" + "9" * 5000, "4,300 digits"),
        ("shared.seed=" + "[" * 5000, "nested too deep"),
        ("shared.seed=0x" + "f" * 5000, "shared.seed"),
        ("shared.seed=nan", "shared.seed"),
        ("shared.fps=.inf", "shared.fps"),
        ("shared.seed=x", "shared.seed"),
        ("name.x=1", "not a section"),
        ("shared.sed=1", "did you mean"),
        ("shared.parser=tvg_r1", "read: tvg_r1"),
        ("shared.template=tvg_r1", "shared.form"),
    ],
)
def test_bad_overrides_are_one_line(tmp_path: Path, override: str, word: str) -> None:
    with pytest.raises(Timer1Error, match=word):
        load_params(write(tmp_path, "name: a"), [override])


def test_overrides_and_empty_sections(tmp_path: Path) -> None:
    params = load_params(write(tmp_path, "shared:\nsft:\n"), ["shared.seed=3", "shared.fps=1e-3", "name=b"])
    assert (params.shared.seed, params.shared.fps, params.name) == (3, 0.001, "b")


def test_files_are_laid_over_one_another(tmp_path: Path) -> None:
    def file(name: str, text: str) -> Path:
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\n{text}")
        return tmp_path / f"{name}.yaml"

    base = file(
        "base", "shared: {seed: 3, fps: 1.0}\ncurate: {source: files, train_files: t.json, test_files: 'A=a.json'}\nsft:\n"
    )
    tests = file(
        "tests", "shared: {fps: 4.0}\ncurate: {train_files: none, test_files: 'B=b.json, A=a.json'}\nsft: {enabled: false}\n"
    )
    rest = file("rest", "grpo: {enabled: false}\ncurate: {train_files: none, test_files: 'C=c.json, A=a.json'}\n")
    params = load_params(base, ["shared.frames=9"], tests, rest)
    assert params.name == "base-tests-rest"
    assert (params.shared.seed, params.shared.fps, params.shared.frames) == (3, 4.0, 9)
    assert (params.curate.source, params.curate.train_files, params.curate.test_files) == (
        "files",
        "none",
        "B=b.json, A=a.json, C=c.json",
    )
    assert (params.sft.enabled, params.grpo.enabled) == (False, False)
    assert load_params(base, ["name=mine"], tests, rest).name == "mine"
    (tmp_path / "wrong.yaml").write_text("shared: {sede: 1}")
    with pytest.raises(Timer1Error, match=r"base\.yaml, .*wrong\.yaml: unknown parameter 'shared\.sede'"):
        load_params(base, [], tmp_path / "wrong.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(Timer1Error, match=r"list\.yaml: a params file is a mapping"):
        load_params(base, [], tmp_path / "list.yaml")


RECIPES = [ROOT / "params" / f"{name}.yaml" for name in (
    "time_r1_3b", "time_r1_7b", "time_r1_charades", "time_r1_activitynet", "tvg_r1_7b", "timelens_8b",
)]  # fmt: skip
"""Those that follow released scripts themselves; their variants for other cards follow them."""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_number_of_a_recipe_says_where_it_is_from(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert "arXiv" in " ".join(lines[:5])
    values = [line for line in lines if line.startswith("  ") and not line.lstrip().startswith("#")]
    assert len(values) > 30
    silent = [line for line in values if re.match(r"  \w+: [-\d.e]+$", line)]
    assert not silent
    assert load_params(path).shared.form in {f"params/forms/{form.name}" for form in (ROOT / "params" / "forms").glob("*.yaml")}
    tests = sorted((ROOT / "params" / "tests").glob("*.yaml"))
    assert len(tests) == 8
    for test in tests:
        laid = load_params(path, [], test)
        assert (laid.name, laid.curate.tests_only) == (f"{path.stem}-{test.stem}", True)
        assert (laid.shared.model, laid.shared.form) == (load_params(path).shared.model, load_params(path).shared.form)
        assert laid.curate.test_files == load_params(test).curate.test_files
    everything = load_params(tests[0], [], *tests[1:]).curate
    assert len(everything.test_files.split(",")) == 4 + 20 + 1 + 1
    assert everything.hub_test == "lmms-lab/Video-MME:test"


def test_every_parameter_is_a_scalar_with_a_sentence_of_help() -> None:
    for section, model in {"shared": type(Params().shared), **SECTIONS}.items():
        for name, field in model.model_fields.items():
            assert isinstance(field, FieldInfo)
            assert field.description, f"{section}.{name} has no help"
            assert "\n" not in field.description
            value = getattr(model(), name)
            assert isinstance(value, str | int | float | bool), f"{section}.{name} is no scalar"


def test_shared_and_section_names_do_not_collide() -> None:
    # A notebook holds both flat, so one name cannot mean two things.
    shared = set(type(Params().shared).model_fields) | {"run_dir"}
    for section, model in SECTIONS.items():
        assert not shared & set(model.model_fields), section


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_files_are_valid_and_named_after_themselves(path: Path) -> None:
    assert load_params(path).name == path.stem
    tree = yaml.safe_load(path.read_text())
    assert set(tree) <= {key for key in all_keys(Params) if "." not in key}
    for section, values in tree.items():
        if isinstance(values, dict):
            for key, value in values.items():
                field = getattr(getattr(load_params(path), section), key)
                assert type(value) in (type(field), int if isinstance(field, float) else type(field)), (
                    f"{section}.{key}: {value!r}"
                )


def test_tiny_is_what_the_defaults_are() -> None:
    assert load_params(ROOT / "params" / "tiny.yaml") == Params()


@pytest.mark.parametrize(("section", "name"), list(zip(SECTIONS, NOTEBOOKS, strict=True)))
def test_a_cell_is_plain_assignments_that_read_back(section: str, name: str) -> None:
    params = Params()
    source = cells.cell_source(params, section)
    found = {}
    assert max(map(len, source.splitlines())) <= cells.WIDTH
    lines = [line for line in source.splitlines() if not line.startswith("# ")]
    for line, node in zip(lines, ast.parse(source).body, strict=True):
        assert isinstance(node, ast.AnnAssign)
        assert isinstance(node.target, ast.Name)
        assert node.value is not None
        assert isinstance(node.annotation, ast.Name)
        found[node.target.id] = ast.literal_eval(node.value)
        assert type(found[node.target.id]).__name__ == node.annotation.id
        above = source.splitlines()[source.splitlines().index(line) - 1]
        assert "  # " in line or above.startswith("# "), f"{line}: no help"
    assert found.pop("run_dir") == "outputs/tiny"
    shared = {key: value for key, value in params.shared.model_dump().items() if key in SHARED_READ[section]}
    own = {"overwrite": False} if section not in ("inspect", "compare") else {}
    mine = getattr(params, section).model_dump()
    assert found == {**own, **shared, **mine}
    assert list(found)[: len(mine)] == list(mine), "own parameters stand first"


@pytest.mark.parametrize("name", cells.notebooks().values())
def test_notebooks_hold_their_parameters_cell(name: str) -> None:
    path = ROOT / "notebooks" / f"{name}.ipynb"
    section = name.partition("_")[2]
    notebook = json.loads(path.read_text())
    expected = cells.cell_source(load_params(ROOT / "params" / "tiny.yaml"), section)
    assert cells.current_source(notebook) == expected, "run `make params`"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert "parameters" in code[0]["metadata"].get("tags", []), "the parameters cell is the first code cell"
    assert code[0]["metadata"]["jupyter"] == {"source_hidden": True}, "JupyterLab shows it collapsed"
    opened = "open_trial(globals())" if section == "idea" else f'open_stage("{section}", globals())'
    assert opened in "".join(code[1]["source"])
    assert len(code) <= 20
    for cell in code[1:]:
        assert len("".join(cell["source"]).splitlines()) <= 12
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


def test_papermill_can_inspect_a_cell(tmp_path: Path) -> None:
    import nbformat
    import papermill

    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": []}
    written = cells.with_cell(notebook, cells.cell_source(Params(), "sft"))
    path = tmp_path / "02_sft.ipynb"
    path.write_text(json.dumps(written))
    nbformat.validate(nbformat.read(path, 4))
    seen = papermill.inspect_notebook(str(path))
    assert set(seen) == {"run_dir", "overwrite", *SHARED_READ["sft"], *Params().sft.model_dump()}
    assert seen["seed"]["default"] == "0"
    assert seen["seed"]["help"] == type(Params().shared).model_fields["seed"].description


def test_writing_cells_changes_only_what_is_out_of_date(tmp_path: Path) -> None:
    prose = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# Title"]}
    code = {"cell_type": "code", "id": "b", "metadata": {}, "execution_count": None, "outputs": [], "source": ["x = 1"]}
    for name in cells.notebooks().values():
        (tmp_path / f"{name}.ipynb").write_text(
            json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [prose, code]})
        )
    assert len(cells.outdated(tmp_path, Params())) == 8
    assert len(cells.rewrite(tmp_path, Params())) == 8
    assert cells.outdated(tmp_path, Params()) == []
    assert cells.rewrite(tmp_path, Params()) == []
    notebook = json.loads((tmp_path / "02_sft.ipynb").read_text())
    assert [cell["cell_type"] for cell in notebook["cells"]] == ["markdown", "code", "code"]
    assert (notebook["cells"][0], notebook["cells"][2]) == (prose, code)
    (tmp_path / "05_evaluate.ipynb").unlink()
    assert [path.name for path in cells.outdated(tmp_path, Params())] == ["05_evaluate.ipynb"]
    with pytest.raises(Timer1Error, match="05_evaluate"):
        cells.rewrite(tmp_path, Params())
