"""04_grpo: reinforcement learning on the selected samples, epoch by epoch."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timer1lib import forms
from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_jsonl, open_work_folder, read_jsonl
from timer1lib.models.config import base_name
from timer1lib.params import result_parameters
from timer1lib.params.sections import GrpoParams
from timer1lib.rewards import Reward, parse_rewards
from timer1lib.rules import Judged, own_keep
from timer1lib.runs.keys import folder_hash, input_files
from timer1lib.schema import Prediction, Sample
from timer1lib.spans import best_iou
from timer1lib.stages import Stage, asking, cells
from timer1lib.stages.work import do
from timer1lib.training.outer_loop import PhasePlan, run_epochs
from timer1lib.workers.team import team

if TYPE_CHECKING:
    from timer1lib.runs.preview import Preview


def selected(stage: Stage[GrpoParams]) -> dict[str, Sample]:
    """The samples that 03_difficulty selected, by id; a Timer1Error where there are none."""
    if not stage.run.data("selected").is_file():
        raise Timer1Error(f"{stage.run.data('selected')}: not there; run 03_difficulty first, with difficulty.enabled=true")
    samples = {sample.id: sample for sample in stage.run.read_samples("selected")}
    if not samples:
        raise Timer1Error(f"{stage.run.data('selected')}: no sample was selected; loosen difficulty.selection")
    return samples


def known_difficulty(stage: Stage[GrpoParams]) -> dict[str, float | None]:
    """IoU (0 to 1) of each sample as 03_difficulty measured it; empty where it was left out."""
    path = stage.run.data("difficulty")
    if not path.is_file():
        return {}
    return {row["id"]: row["iou"] for row in read_jsonl(path)}


def starting_model(stage: Stage[GrpoParams]) -> str:
    """Folder or hub id of the policy before training: the SFT checkpoint, the base without one."""
    folder = stage.run.checkpoint("sft")
    return str(folder) if folder.is_dir() else base_name(stage.shared)


def one_group(stage: Stage[GrpoParams]) -> tuple[Sample, list[str]]:
    """A sample and G completions of it, as training will draw them: sampled now, by the policy before training.

    Of the selected samples it is one of middling difficulty, whose rollouts differ. A finished stage loads no model: it
    gives the first group that its training has stored.
    """
    samples, known, log = selected(stage), known_difficulty(stage), stage.run.log("rollouts")
    if stage.finished and log.is_file() and (row := next(iter(read_jsonl(log)), None)):
        return samples[row["id"]], list(row["completions"])
    sample = min(samples.values(), key=lambda s: abs((known.get(s.id) or 0.0) - 0.5))
    p = stage.params
    how: dict[str, Any] = {"tokens": p.max_completion_length, "copies": p.num_generations, "temperature": p.temperature}
    answers = asking.ask_now(stage, starting_model(stage), [sample], **how, label="one group")
    return sample, [answer.completion for answer in answers]


def train(
    stage: Stage[GrpoParams],
    rewards: cells.GivenRewards | str | None = None,
    keep: Callable[[Judged], bool] | str | None = None,
    watch: Callable[[], None] | None = None,
) -> list[dict[str, Any]]:
    """Run the outer loop into `checkpoints/grpo` and return the log; without RL, an empty one and no checkpoint.

    Args:
        rewards: in place of `grpo.rewards`: {"edge": (my_function, 1.0), "format": 1.0}, of functions as in docs/ideas.md.
        keep: in place of `grpo.keep`: whether a sample (`Judged`) stays after an epoch.
        watch: called several times a second while it trains, such as `view.lesson.live_curve`.

    Raises:
        Timer1Error: an idea that is none; a reward that fails in training, with the sample and the completion.
    """
    given = {} if rewards is None else {"rewards": cells.rewards_text(stage, rewards)}
    given |= {} if keep is None else {"keep": cells.reference(stage, keep, "keep", "keep rule")}
    stage.adopt(**given)
    if stage.finished:
        return list(read_jsonl(stage.run.log("grpo")))
    if not stage.params.enabled:
        atomic_write_jsonl(stage.run.log("grpo"), [])
        return []
    samples, first = selected(stage), starting_model(stage)
    work = open_work_folder(stage.run.at("work/grpo"), _settings(stage, samples, first))
    trainer = _Trainer(stage, samples, watch)
    plans = run_epochs(
        list(samples), known_difficulty(stage), first, work, lambda k: stage.run.data(f"filter_epoch{k}"),
        stage.params, stage.shared.seed, trainer.train, trainer.measure, trainer.keep if stage.params.keep else None,
    )  # fmt: skip
    _publish(plans[-1].out_dir, stage.run.checkpoint("grpo"))
    shutil.rmtree(work)
    return list(read_jsonl(stage.run.log("grpo")))


def preview(stage: Stage[GrpoParams], rewards: cells.GivenRewards | Reward | str) -> Preview:
    """Try a reward, or a weighted sum of several, on the run's stored rollouts; nothing is written (docs/ideas.md).

    Raises:
        Timer1Error: no rollouts are stored; the reward fails, with the sample and the completion.
    """
    from timer1lib.runs.preview import preview as tried

    if isinstance(rewards, str):
        return tried(stage.run, parse_rewards(rewards), rewards)
    given = {rewards.__name__: rewards} if callable(rewards) else rewards
    return tried(stage.run, {name: cells.weighted(name, value) for name, value in given.items()}, " + ".join(given))


def epoch_flow(stage: Stage[GrpoParams]) -> dict[int, list[dict[str, Any]]]:
    """Rows of `filter_epoch{k}.jsonl` (id, iou, kept, reason) by epoch."""
    paths = {number: stage.run.data(f"filter_epoch{number}") for number in range(1, stage.params.epochs + 1)}
    return {number: list(read_jsonl(path)) for number, path in paths.items() if path.is_file()}


class _Trainer:
    """The outer loop's hands: has ranks train a plan's phase, and ask a model about its samples."""

    def __init__(self, stage: Stage[GrpoParams], samples: Mapping[str, Sample], watch: Callable[[], None] | None) -> None:
        self._stage, self._samples, self._watch = stage, samples, watch
        self._rule = own_keep(stage.params.keep) if stage.params.keep else None

    def keep(self, name: str, iou: float, epochs: int) -> bool:
        assert self._rule is not None
        return self._rule(Judged.of(self._samples[name], iou, epoch=epochs))

    def train(self, plan: PhasePlan) -> None:
        whole = ("grpo.prompts_per_step", self._stage.params.prompts_per_step)
        do(self._stage, "epoch", whole, self._watch, plan=plan.to_json())

    def measure(self, folder: str, ids: Sequence[str], epoch: int) -> dict[str, float | None]:
        do(self._stage, "ask", folder=folder, ids=list(ids), epoch=epoch)
        windows = {name: self._samples[name].windows for name in ids}
        answers = [Prediction.from_json(row) for row in read_jsonl(_answers(folder, epoch))]
        return {a.id: None if a.error or not windows[a.id] else best_iou(a.span, windows[a.id]) for a in answers}


def _answers(folder: str, epoch: int) -> Path:
    return Path(folder).parent / f"answers{epoch}.jsonl"


def epoch(stage: Stage[GrpoParams], plan: Mapping[str, Any]) -> None:
    """What each rank does of an epoch's training."""
    from timer1lib.training.feeding import SampleEncoder
    from timer1lib.training.grpo import train_phase

    run, params, shared, samples = stage.run, stage.params, stage.shared, selected(stage)
    phase = PhasePlan.from_json(plan)
    with SampleEncoder(run, shared, grounded="grounded_qa" in params.rewards) as encoder:
        ahead = 2 * params.prompts_per_step * params.updates_per_rollout
        train_phase(
            phase, samples, encoder.encode, params, shared, run.log("grpo"), run.log("rollouts"),
            read_ahead=lambda order: encoder.prefetch((samples[name] for name in order), ahead),
        )  # fmt: skip


def ask(stage: Stage[GrpoParams], folder: str, ids: Sequence[str], epoch: int) -> None:
    """What each rank does of the question how an epoch's model answers its samples."""
    from timer1lib.inference.generate import predict
    from timer1lib.models.load import load_shared
    from timer1lib.models.memory import prompts_together

    samples, shared = selected(stage), stage.shared
    loaded, length = load_shared(folder, shared), stage.params.filter_tokens or stage.params.max_completion_length
    tokens = shared.total_pixels // loaded.geometry.factor**2 + 8 * shared.frames + 256  # pictures, times, question
    fits = team.agree(min(64, prompts_together(loaded.model, tokens, 1, length)))
    predict(
        loaded, [samples[name] for name in ids], stage.run.videos().file, shared, _answers(folder, epoch),
        max_new_tokens=length, batch_size=stage.params.measure_batch or fits, label=f"difficulty after epoch {epoch}",
    )  # fmt: skip


PHASES: dict[str, Callable[..., None]] = {"epoch": epoch, "ask": ask, "say": asking.say}


def _settings(stage: Stage[GrpoParams], samples: Mapping[str, Sample], first: str) -> dict[str, Any]:
    return {
        "params": result_parameters(stage.params),
        "shared": result_parameters(stage.shared),
        "form": forms.load(stage.shared.form).identity(),
        "first": folder_hash(Path(first)) if Path(first).is_dir() else first,
        "samples": [sample.to_json() for sample in samples.values()],
        "ideas": input_files({"rewards": stage.params.rewards, "keep": stage.params.keep}),
    }


def _publish(source: Path, target: Path) -> None:
    """Move the last epoch's model into its place, without an optimizer's state."""
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    left_out = shutil.ignore_patterns("optimizer.pt", "scheduler.pt")
    shutil.copytree(source, target.with_name(".grpo.new"), dirs_exist_ok=True, ignore=left_out)
    target.with_name(".grpo.new").rename(target)
