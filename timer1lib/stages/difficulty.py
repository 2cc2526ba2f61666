"""03_difficulty: ask the model every sample of the pool, and choose what RL trains on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from timer1lib import forms, ideas
from timer1lib.data.selection import (
    AnswerCache,
    Selection,
    answer_key,
    difficulty_rows,
    everything,
    published_rows,
    select,
    spread,
)
from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, atomic_write_jsonl, read_jsonl, resolve
from timer1lib.models.config import base_name
from timer1lib.params import result_parameters
from timer1lib.params.sections import DifficultyParams
from timer1lib.rewards import RewardInput, parse_rewards
from timer1lib.rules import Judged, own_weight
from timer1lib.schema import Prediction, Sample
from timer1lib.stages import Stage, cells
from timer1lib.stages.work import do
from timer1lib.workers.team import team

DifficultyStage = Stage[DifficultyParams]


def pool(stage: DifficultyStage) -> list[Sample]:
    """The grounding samples of a split; none where 03 is left out; a Timer1Error: no such split, or one without windows."""
    if not stage.params.enabled:
        return []
    splits = stage.run.splits()
    if stage.params.pool not in splits:
        raise Timer1Error(f"difficulty.pool {stage.params.pool!r}: no such split; there are {', '.join(splits)}")
    samples = [sample for sample in stage.run.read_samples(stage.params.pool) if sample.windows]
    if not samples:
        raise Timer1Error(f"difficulty.pool {stage.params.pool!r}: no sample has a window")
    return samples


def checkpoint(stage: DifficultyStage) -> str:
    """Folder or id of the model that judges; a Timer1Error where `sft` is asked for and there is no such checkpoint."""
    folder = stage.run.checkpoint("sft")
    trained = (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file()
    if stage.params.difficulty_model == "base" or (stage.params.difficulty_model == "start" and not trained):
        return base_name(stage.shared)
    if not trained:
        raise Timer1Error(f"{folder}: no checkpoint; run 02_sft first, or set difficulty.difficulty_model=base")
    return str(folder)


def judge(stage: DifficultyStage) -> str:
    """Whose answers make a sample hard or easy, in words."""
    named = {"published": "the published answers", "none": "nobody"}
    if stage.params.difficulty_model in named:
        return named[stage.params.difficulty_model]
    return "the base model" if checkpoint(stage) == base_name(stage.shared) else "the SFT model"


def measure(stage: DifficultyStage, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Write and return `data/difficulty.jsonl`: {id, iou, start, end, completion} a sample, `reward_std` with rollouts.

    Where 03 is left out nothing is written.
    """
    if not stage.params.enabled:
        return []
    if stage.finished:
        return list(read_jsonl(stage.run.data("difficulty")))
    if stage.params.difficulty_model == "none":
        unasked: dict[str, Any] = {"iou": None, "start": None, "end": None, "completion": ""}
        atomic_write_jsonl(stage.run.data("difficulty"), ({"id": sample.id, **unasked} for sample in samples))
    elif stage.params.difficulty_model == "published":
        atomic_write_jsonl(stage.run.data("difficulty"), published_rows(samples))
    else:
        do(stage, "ask", samples=[sample.to_json() for sample in samples])
    return list(read_jsonl(stage.run.data("difficulty")))


def ask(stage: DifficultyStage, samples: Sequence[dict[str, Any]]) -> None:
    """What each rank does of `measure`."""
    from timer1lib.models.load import load_shared

    asked = [Sample.from_json(row) for row in samples]
    loaded = load_shared(checkpoint(stage), stage.shared)
    greedy = _answers(stage, loaded, asked, 1, 0.0)
    rows = difficulty_rows(asked, [answers[0] for answers in greedy])
    if stage.params.rollouts >= 2:
        sampled = _answers(stage, loaded, asked, stage.params.rollouts, stage.params.rollout_temperature)
        for row, sample, answers in zip(rows, asked, sampled, strict=True):
            rewards = rollout_rewards(sample, answers, stage)
            row |= {"rewards": rewards, "reward_std": None if row["iou"] is None else spread(rewards)}
    if team.first:
        atomic_write_jsonl(stage.run.data("difficulty"), rows)


PHASES = {"ask": ask}


def rollout_rewards(sample: Sample, answers: Sequence[Prediction], stage: DifficultyStage) -> list[float]:
    """Weighted sum of the rewards named in `rollout_reward`, an answer each."""
    rewards = parse_rewards(stage.params.rollout_reward).values()
    duration = sample.duration or max(end for _, end in sample.windows)
    form = forms.load(stage.shared.form).of_sample(sample, grounded=False)
    inputs = [RewardInput(a.completion, tuple(sample.windows), duration, form, query=sample.query) for a in answers]
    return [sum(weight * reward(x) for reward, weight in rewards) for x in inputs]


def _answers(
    stage: DifficultyStage, loaded: Any, samples: Sequence[Sample], copies: int, temperature: float
) -> list[list[Prediction]]:
    """`copies` answers a sample: from the cache that all runs share, the rest from the model (resumable to the sample)."""
    from timer1lib.inference.generate import predict
    from timer1lib.inference.ledger import digest, weights_digest

    shared = stage.shared
    asked = {
        "weights": weights_digest(loaded.model),
        "rule": str(loaded.rule),
        "told": loaded.geometry.tokens_per_second,
        "form": forms.load(shared.form).identity(),
        "shared": result_parameters(shared, but=("model", "form", "seed")),
        "max_new_tokens": stage.params.max_new_tokens,
        "copies": copies,
        "temperature": temperature,
        "seed": shared.seed if temperature else None,
        "repetition_penalty": stage.params.repetition_penalty,
    }
    cache = AnswerCache(resolve(shared.cache_dir) / "answers" / digest(asked))
    keys = [answer_key(sample, _file(stage, sample), asked) for sample in samples]
    # another run may add to the cache just now: all ranks go by what rank 0 found
    known = team.agree([cache.get(key, sample) for key, sample in zip(keys, samples, strict=True)])
    missing = [i for i, answers in enumerate(known) if answers is None]
    if missing:
        ask = [samples[i] for i in missing]
        out = stage.run.data(f"difficulty_{'greedy' if copies == 1 else 'rollouts'}.answers.jsonl")
        fresh = predict(
            loaded, ask, stage.run.videos().file, shared, out,
            max_new_tokens=stage.params.max_new_tokens, batch_size=stage.params.batch_size,
            num_samples=copies, temperature=temperature, repetition_penalty=stage.params.repetition_penalty,
            label="difficulty" if copies == 1 else "sampled answers",
        )  # fmt: skip
        groups = [fresh[j * copies : (j + 1) * copies] for j in range(len(ask))]
        if team.first:
            cache.add({keys[i]: group for i, group in zip(missing, groups, strict=True)})
            for file in (out, out.with_suffix(".meta.json")):
                file.unlink(missing_ok=True)
        for i, group in zip(missing, groups, strict=True):
            known[i] = group
    return [answers for answers in known if answers is not None]


def _file(stage: DifficultyStage, sample: Sample) -> Path | None:
    try:
        return stage.run.video(sample)
    except Timer1Error:
        return None


def choose(
    stage: DifficultyStage,
    samples: Sequence[Sample],
    rows: Sequence[dict[str, Any]],
    weight: Callable[[Judged], float] | None = None,
) -> Selection:
    """Write `data/selected.jsonl` (samples in) and `data/selection.json` (weight and fate of every sample).

    `weight` stands in the place of the rule: a function of a sample and its difficulty, larger is likelier to be drawn.
    """
    stage.adopt(**({} if weight is None else {"rule": cells.reference(stage, weight, "weight", "selection rule")}))
    p = stage.params
    bounds = {
        "gaussian": {"mean": p.mean, "std": p.std, "low": p.low, "even": float(p.even)},
        "uniform": {"bins": p.bins, "low": p.low},
        "band": {"low": p.low, "high": p.high},
    }.get(p.rule, {})
    given, name = None, p.rule
    if ideas.is_reference(p.rule):
        mine, name = own_weight(p.rule), p.rule.rpartition(":")[2]
        known = zip(samples, rows, strict=True)
        given = [0.0 if r["iou"] is None else mine(Judged.of(s, r["iou"], r.get("reward_std"))) for s, r in known]
    if p.difficulty_model == "none":
        selection = everything([sample.id for sample in samples], stage.shared.seed)
    else:
        timed = [{**row, "duration": sample.duration} for row, sample in zip(rows, samples, strict=True)]
        selection = select(timed, name, p.n, stage.shared.seed, given=given, **bounds)
    taken = set(selection.chosen)
    if not stage.finished:
        if not stage.run.data("difficulty").is_file():  # it was finished until a cell brought another rule
            atomic_write_jsonl(stage.run.data("difficulty"), rows)
        stage.run.write_samples("selected", [sample for sample in samples if sample.id in taken])
        atomic_write_json(stage.run.data("selection.json"), selection.to_json())
    return selection


def account(selection: Selection) -> dict[str, int]:
    """How many rows met which fate."""
    return dict(Counter(row["fate"] for row in selection.table).most_common())
