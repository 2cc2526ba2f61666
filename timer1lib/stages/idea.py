"""08_idea: an idea tried against the default, both trained for a few steps from a finished run's own SFT checkpoint.

The run is only read. What a trial leaves lies beside it, in `<run>_idea/`: a folder for each short training, the answers
of all of them, and the functions that came from cells.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timer1lib import forms
from timer1lib.data.schedules import filter_epoch, plan_epoch
from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, atomic_write_text, project_root, read_json, read_jsonl, resolve, safe_join
from timer1lib.params import result_parameters, split_list
from timer1lib.params.load import load_params, validated
from timer1lib.params.sections import GrpoParams, IdeaParams, Params, SharedParams
from timer1lib.progress import quiet_libraries
from timer1lib.rewards import Reward
from timer1lib.rules import Judged, own_keep
from timer1lib.runfolder import RunFolder
from timer1lib.runs import stamps
from timer1lib.runs.closure import code_hash
from timer1lib.runs.keys import folder_hash, input_files
from timer1lib.schema import Prediction, Sample
from timer1lib.stages import Stage, cells, difficulty, grpo, hold
from timer1lib.stages.asking import ask_now
from timer1lib.stages.evaluate import some_videos
from timer1lib.stages.work import do
from timer1lib.training.outer_loop import PhasePlan
from timer1lib.workers.launch import warm

if TYPE_CHECKING:
    from timer1lib.evaluation.tables import Table
    from timer1lib.runs.preview import Preview
    from timer1lib.view.inspector import Inspector

MARK = "idea.json"
"""In a trial's folder: of each variant, the digest of what its answers were made from, and the parameters that name its idea."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A finished run, and the folder beside it in which ideas are tried."""

    run: RunFolder
    folder: RunFolder
    params: Params
    """The run's."""
    own: IdeaParams
    samples: tuple[Sample, ...]
    """What every variant is asked in the end."""

    @property
    def seeds(self) -> list[int]:
        return [int(seed) for seed in split_list(self.own.seeds)]

    @property
    def start(self) -> str:
        """Folder or hub id of the model that every variant starts from: the run's SFT checkpoint, else the base."""
        return grpo.starting_model(self.grpo(self.run.root))

    def label(self, variant: str, seed: int) -> str:
        """What a variant's answers are called."""
        return variant if len(self.seeds) == 1 else f"{variant}_s{seed}"

    def grpo(self, at: Path, shared: SharedParams | None = None, params: GrpoParams | None = None) -> Stage[GrpoParams]:
        """04 as a trial has it, in a folder."""
        return Stage("grpo", RunFolder(at), shared or self.params.shared, params or self.params.grpo)


def open_trial(parameters: Mapping[str, Any]) -> Trial:
    """Open a finished run to try ideas on, by 08's parameters (its `globals()`).

    Raises:
        Timer1Error: no finished 03 there, no such split, a folder of something else where the trial's would be.
    """
    quiet_libraries()
    own = validated(IdeaParams, {k: parameters[k] for k in IdeaParams.model_fields if k in parameters}, "notebook idea")
    run = RunFolder(resolve(Path(str(parameters.get("run_dir", "outputs/tiny")))))
    if not run.data("selected").is_file():
        raise Timer1Error(f"{run.root}: no run there that has finished 03; first: timer1 run params/tiny.yaml")
    if not run.params.is_file():  # notebooks that a person ran
        raise Timer1Error(
            f"{run.params}: not there; timer1 run PARAMS.yaml --out {run.root} writes it, and skips what is finished"
        )
    params = load_params(run.params)
    kinds = {name: entry["kind"] for name, entry in run.splits().items()}
    if kinds.get(own.split) != "grounding":
        known = ", ".join(name for name, kind in kinds.items() if kind == "grounding")
        raise Timer1Error(f"idea.split {own.split!r}: no grounding split of that name; there are {known}")
    every = [sample for sample in run.read_samples(own.split) if sample.windows]
    samples = some_videos(every, own.samples) if own.samples else tuple(every)
    folder = RunFolder(run.root.with_name(f"{run.root.name}_idea"))
    stamps.refuse_foreign(folder.root, MARK)
    folder.root.mkdir(parents=True, exist_ok=True)
    hold(folder.root.resolve(), "notebook 08_idea")
    if not (folder.root / MARK).is_file():
        atomic_write_json(folder.root / MARK, {})
    shutil.copyfile(run.params, folder.params)
    folder.data("x").parent.mkdir(exist_ok=True)
    shutil.copyfile(run.data("videos.json"), folder.data("videos.json"))
    folder.write_samples(own.split, list(samples))
    atomic_write_json(folder.data("splits.json"), {own.split: {"kind": "grounding", "n": len(samples)}})
    warm()
    return Trial(run, folder, params, own, samples)


def preview(trial: Trial, rewards: cells.GivenRewards | Reward | str) -> Preview:
    """`grpo.preview` on the run's stored rollouts."""
    return grpo.preview(trial.grpo(trial.run.root), rewards)


def train(
    trial: Trial,
    variant: str,
    *,
    rewards: cells.GivenRewards | str | None = None,
    keep: Callable[[Judged], bool] | str | None = None,
    weight: Callable[[Judged], float] | None = None,
    form: forms.OwnForm | str = "",
) -> str:
    """Train a variant for `steps` steps with every seed, and ask it the trial's samples; a sentence says what happened.

    What is not given is as in the run. The same idea, run and parameters are not trained again.

    Args:
        rewards: as in `grpo.train`.
        keep: which samples are trained on, by the IoU that 03 measured (`Judged`).
        weight: as in `difficulty.choose`: draws as many samples as the run did.
        form: another prompt and answer form: a name, a file, or an `OwnForm` of the cell.
    """
    if not variant.isidentifier():
        raise Timer1Error(f"variant {variant!r}: a name of letters, digits and underscores is needed")
    root = trial.run.video_root
    if trial.samples and not any(safe_join(root, sample.video).is_file() for sample in trial.samples):
        raise Timer1Error(f"{root}: none of the run's videos is there; bring them back, or run 01_curate again")
    p, home = trial.params, trial.grpo(trial.folder.root)
    changes: dict[str, Any] = {"epochs": 1, "schedule": "multi_epoch", "steps_per_epoch": trial.own.steps, "keep": ""}
    changes |= {} if rewards is None else {"rewards": cells.rewards_text(home, rewards)}
    form = cells.reference(home, form, f"{variant}_form", "form") if form else ""
    changes |= {} if keep is None else {"keep": cells.reference(home, keep, f"{variant}_keep", "keep rule")}
    params = validated(GrpoParams, p.grpo.model_dump() | changes, f"variant {variant}")
    samples, rule_named = _samples(trial, variant, weight)
    ids, known = list(samples), grpo.known_difficulty(trial.grpo(trial.run.root))
    if params.keep:
        rule = own_keep(params.keep)
        rows = filter_epoch(ids, known, keep=lambda name, iou: rule(Judged.of(samples[name], iou)))
        ids = [row["id"] for row in rows if row["kept"]]
    named = {f"grpo.{key}": getattr(params, key) for key, given in (("rewards", rewards), ("keep", keep)) if given is not None}
    named |= ({"difficulty.rule": rule_named} if rule_named else {}) | ({"shared.form": form} if form else {})
    beside = trial.folder.root
    named = {key: text.replace(str(beside), shown_path(beside)) for key, text in named.items()}
    said = []
    for seed in trial.seeds:
        shared = validated(SharedParams, p.shared.model_dump() | {"seed": seed} | ({"form": form} if form else {}), variant)
        order = plan_epoch("multi_epoch", 0, 1, ids, known, seed=seed).ids
        said.append(_trained(trial, trial.label(variant, seed), shared, params, samples, order, named))
    return "; ".join(said)


def _samples(trial: Trial, variant: str, weight: Callable[[Judged], float] | None) -> tuple[dict[str, Sample], str]:
    """What RL may train on, by id: what the run selected, or as many drawn by another weight; and that rule's name."""
    selected, rule = trial.run.read_samples("selected"), ""
    if weight is not None:
        rule = cells.reference(trial.grpo(trial.folder.root), weight, f"{variant}_weight", "selection rule")
        params = trial.params.difficulty.model_copy(update={"n": len(selected), "rule": rule})
        stage = Stage("difficulty", trial.folder, trial.params.shared, params)
        known = {row["id"]: row for row in read_jsonl(trial.run.data("difficulty"))}
        pool = [sample for sample in trial.run.read_samples(params.pool) if sample.id in known]
        difficulty.choose(stage, pool, [known[sample.id] for sample in pool])
        selected = trial.folder.read_samples("selected")
    return {sample.id: sample for sample in selected}, rule


def _trained(
    trial: Trial, label: str, shared: SharedParams, params: GrpoParams,
    samples: Mapping[str, Sample], order: list[str], named: Mapping[str, str],
) -> str:  # fmt: skip
    """One short training and its answers, unless they stand there already."""
    steps = trial.own.steps
    made_of = _digest(trial, shared, params, samples, order)
    at = trial.folder.root / "trainings" / f"{label}-{made_of[:12]}"
    stage = trial.grpo(at, shared, params)
    mark, answers = trial.folder.root / MARK, trial.folder.predictions(label, trial.own.split)
    known, model, log = read_json(mark), stage.run.checkpoint("grpo"), stage.run.log("grpo")
    before = known.pop(label, {})
    if before.get("made_of") != made_of or not answers.is_file() or not log.is_file():
        stage.run.write_samples("selected", list(samples.values()))
        shutil.copyfile(trial.run.data("videos.json"), stage.run.data("videos.json"))
        if not model.is_dir():
            plan = PhasePlan(0, order, "", trial.start, trial.start, steps, steps, model.resolve(), None)
            do(stage, "epoch", ("grpo.prompts_per_step", params.prompts_per_step), plan=plan.to_json())
        atomic_write_json(mark, known)  # from here on the answers may be of neither
        asked = trial.params.evaluate
        how: dict[str, Any] = {"tokens": asked.max_new_tokens, "repetition_penalty": asked.repetition_penalty}
        how |= {"batch_size": asked.batch_size, "label": f"{label} on {trial.own.split}"}
        ask_now(trial.grpo(trial.folder.root, shared, params), str(model.resolve()), trial.samples, out=answers, **how)
    atomic_write_json(mark, {**known, label: {"made_of": made_of, "named": dict(named)}})
    for other in at.parent.glob(f"{label}-*"):  # what the name meant before
        if other != at:
            shutil.rmtree(other)
    rewards = [row["reward"] for row in read_jsonl(log) if "reward" in row]
    few = max(1, len(rewards) // 4)
    begun, ended = sum(rewards[:few]) / few, sum(rewards[-few:]) / few
    return f"{label}: {steps} steps, reward {begun:.2f} → {ended:.2f} (first and last quarter)"


def _digest(trial: Trial, shared: SharedParams, params: GrpoParams, samples: Mapping[str, Sample], order: list[str]) -> str:
    """Of everything that a variant's answers depend on."""
    names = split_list(params.rewards)
    parts = {
        "params": result_parameters(params, but=("rewards", "keep")),
        "ideas": input_files({"rewards": params.rewards, "keep": params.keep}),
        # a function is known by what it means, wherever it lies
        "rewards": [] if any(".py:" in name for name in names) else names,
        "shared": result_parameters(shared, but=("form",)),
        "form": forms.load(shared.form).identity(),
        "start": folder_hash(Path(trial.start)) if Path(trial.start).is_dir() else trial.start,
        "order": [samples[name].to_json() for name in order],
        "asked": [trial.own.split, *(sample.id for sample in trial.samples), result_parameters(trial.params.evaluate)],
        "code": code_hash(Path(__file__).resolve().parents[1], "stages.grpo"),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _variant(trial: Trial, label: str) -> dict[str, Any]:
    found = read_json(trial.folder.root / MARK).get(label)
    if not isinstance(found, dict):
        raise Timer1Error(f"variant {label!r} has not been trained in {trial.folder.root}; first: idea.train")
    return found


def _answers(trial: Trial, label: str) -> list[Prediction]:
    _variant(trial, label)
    return trial.folder.read_predictions(label, trial.own.split)


def difference(trial: Trial, first: str, second: str) -> Table:
    """Both variants' scores (percent), and second minus first question by question with its 95% interval.

    The interval draws videos, and seeds where there are several (`evaluation.pooled.crossed_interval`).
    """
    import numpy as np

    from timer1lib.evaluation.intervals import by_video
    from timer1lib.evaluation.metrics import COMPARISONS, columns
    from timer1lib.evaluation.pooled import crossed_interval
    from timer1lib.evaluation.scored import join
    from timer1lib.evaluation.tables import Cell, table_of

    comparison, form = COMPARISONS[trial.params.evaluate.comparison], forms.load(trial.params.shared.form)
    start = trial.run.predictions("sft", trial.own.split)
    begun = trial.run.read_predictions("sft", trial.own.split) if start.is_file() else []
    rows = []
    for metric in ("mIoU", "R1@0.3", "R1@0.5", "R1@0.7"):
        values = {}
        for name in (first, second):
            joined = [join(trial.samples, _answers(trial, trial.label(name, seed)), form) for seed in trial.seeds]
            values[name] = np.stack([columns(scored, comparison)[metric] for scored in joined])
            video = joined[0].video
        found = [by_video(delta[:, None], video) for delta in values[second] - values[first]]
        sums, counts = (np.stack([part[i][:, 0] for part in found]) for i in (0, 1))
        mean, low, high = crossed_interval(sums, counts, seed=0)
        row: dict[str, Any] = {"%": metric}
        if begun:
            row["start (sft)"] = float(columns(join(trial.samples, begun, form), comparison)[metric].mean())
        row |= {first: float(values[first].mean()), second: float(values[second].mean())}
        row[f"{second} - {first}, 95% interval"] = Cell(mean, (low, high), form="+.1f", found=low > 0 or high < 0)
        rows.append(row | {"": "shown" if low > 0 or high < 0 else "not shown"})
    seeds = "one seed" if len(trial.seeds) == 1 else f"{len(trial.seeds)} seeds"
    return table_of(rows, f"{len(trial.samples)} questions of {trial.own.split}, {trial.own.steps} steps, {seeds}")


def changed(trial: Trial, first: str, second: str) -> Inspector:
    """Table, scrubber and scatter over the trial's samples, those first whose IoU changed most (of the first seed)."""
    from timer1lib.view.inspector import Inspector
    from timer1lib.view.items import load_items

    ends = [trial.label(name, trial.seeds[0]) for name in (first, second)]
    for label in ends:
        _variant(trial, label)
    items = load_items(trial.folder, [trial.own.split], ends, forms.load(trial.params.shared.form))
    items.sort(key=lambda item: -abs(item.iou(item.rows[1]) - item.iou(item.rows[0])))
    return Inspector(trial.folder, items, resolve(trial.params.shared.cache_dir), compare=(ends[0], ends[1]), static_samples=4)


def write_params(trial: Trial, variant: str) -> str:
    """Write the idea as a params file, `<variant>.yaml`, and as a sweep of it and the default over three seeds; both as text."""
    import yaml

    named = _variant(trial, trial.label(variant, trial.seeds[0]))["named"]
    root = trial.folder.root
    name = f"{trial.run.root.name}_{variant}"
    tree: dict[str, Any] = trial.params.model_dump(exclude_defaults=True) | {"name": name}
    for key, value in named.items():
        section, _, field = key.partition(".")
        tree[section] = {**tree.get(section, {}), field: value}
    rows = [{"name": "default"}, {"name": variant, "set": named}]
    sweep = {"name": name, "base": shown_path(trial.folder.params), "rows": rows, "seeds": [0, 1, 2]}
    sweep |= {"pairs": [["default", variant]]}
    said = []
    for file, command, content in (
        (root / f"{variant}.yaml", "run", {"name": name, **tree}),
        (root / f"{variant}_sweep.yaml", "sweep", sweep),
    ):
        atomic_write_text(file, yaml.safe_dump(content, sort_keys=False, width=1000))
        said.append(f"# timer1 {command} {shown_path(file)}\n{file.read_text()}")
    return "\n".join(said)


def shown_path(path: Path) -> str:
    """As a params file would name it: relative to the project where it lies inside."""
    whole, base = path.resolve(), project_root().resolve()
    return whole.relative_to(base).as_posix() if whole.is_relative_to(base) else str(whole)
