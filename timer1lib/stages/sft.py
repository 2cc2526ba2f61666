"""02_sft: teach the base the form of the answer, and how to think towards it, on few samples."""

from __future__ import annotations

import json
import re
import tempfile
from typing import Any

import numpy as np

from timer1lib import forms
from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, atomic_write_jsonl, read_json, read_jsonl
from timer1lib.models.config import base_name
from timer1lib.params import result_parameters
from timer1lib.params.sections import SftParams
from timer1lib.schema import Sample
from timer1lib.stages import Stage
from timer1lib.stages.work import do
from timer1lib.workers.team import team


def cold_start_rows(stage: Stage[SftParams]) -> list[dict[str, Any]]:
    """Rows (sample fields + completion) of `data/cold_start.jsonl`, drawn with the run's seed; a Timer1Error without one."""
    path = stage.run.data("cold_start")
    rows = list(read_jsonl(path))
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("completion"), str):
            raise Timer1Error(f"{path}, row {number}: no completion to learn; 01_curate writes them")
    wanted = stage.params.samples
    if wanted == 0 or wanted >= len(rows):
        return rows
    order = np.random.default_rng([stage.shared.seed, 2]).permutation(len(rows))[:wanted]
    return [rows[int(i)] for i in sorted(order)]


def train(stage: Stage[SftParams]) -> list[dict[str, Any]]:
    """Train `checkpoints/sft` and return the log; without SFT, an empty one and no checkpoint."""
    if stage.finished:
        return list(read_jsonl(stage.run.log("sft")))
    if not stage.params.enabled:
        atomic_write_jsonl(stage.run.log("sft"), [])
        return []
    if not cold_start_rows(stage):
        raise Timer1Error("SFT has no samples: data/cold_start.jsonl is empty; see 01_curate, or switch sft.enabled off")
    do(stage, "fit", ("sft.batch_size", stage.params.batch_size))
    return list(read_jsonl(stage.run.log("sft")))


def fit(stage: Stage[SftParams]) -> None:
    """What each rank does of `train`."""
    from timer1lib.training.feeding import SampleEncoder
    from timer1lib.training.sft import SftJob, train_sft

    rows = cold_start_rows(stage)
    texts = {row["id"]: row["completion"] for row in rows}
    samples = {row["id"]: _sample(row) for row in rows}
    with SampleEncoder(stage.run, stage.shared) as encoder:
        job = SftJob(
            ids=list(samples),
            encode=lambda loaded, name: encoder.encode(loaded, samples[name], texts[name]),
            out_dir=stage.run.checkpoint("sft"),
            work_dir=stage.run.at("work/sft"),
            log_path=stage.run.log("sft"),
            settings={
                "params": result_parameters(stage.params),
                "shared": result_parameters(stage.shared),
                "form": forms.load(stage.shared.form).identity(),
                "rows": json.loads(json.dumps(rows)),
            },
            read_ahead=lambda order: encoder.prefetch(samples[name] for name in order),
        )
        train_sft(job, stage.params, stage.shared)


def shown(stage: Stage[SftParams], checkpoint: str) -> dict[str, Any]:
    """What a person sees of a model, `base` or `sft`: exact texts, and its greedy answer to one sample of a test split.

    {"prompt", "learnt": what the first cold-start row asks and teaches, video tokens in a row as one; "sample", "answer":
    a row of each}. It is worked out once and kept in `logs/sft_shown_<checkpoint>.json`.
    """
    path = stage.run.at(f"logs/sft_shown_{checkpoint}.json")
    if not path.is_file():
        row = cold_start_rows(stage)[0]
        kinds = {name: entry["kind"] for name, entry in stage.run.splits().items() if not name.startswith("train")}
        tests = [sample for name, kind in kinds.items() if kind == "grounding" for sample in stage.run.read_samples(name)[:1]]
        asked = tests[0] if tests else _sample(row)
        model = base_name(stage.shared) if checkpoint == "base" else str(stage.run.checkpoint(checkpoint))
        with tempfile.TemporaryDirectory(prefix="timer1-") as folder:
            do(stage, "show", model=model, row=row, asked=asked.to_json(), answers=f"{folder}/answers.jsonl", out=str(path))
    found: dict[str, Any] = read_json(path)
    return found


def show(stage: Stage[SftParams], model: str, row: dict[str, Any], asked: dict[str, Any], answers: str, out: str) -> None:
    """What each rank does of `shown`."""
    from timer1lib.inference.generate import predict
    from timer1lib.models.inputs import IGNORED
    from timer1lib.models.load import load_shared
    from timer1lib.training.feeding import SampleEncoder

    loaded, sample = load_shared(model, stage.shared), Sample.from_json(asked)
    with SampleEncoder(stage.run, stage.shared) as encoder:
        encoded = encoder.encode(loaded, _sample(row), row["completion"])
    ids, taught = encoded["input_ids"][0], encoded["labels"][0] != IGNORED
    how: dict[str, Any] = {"max_new_tokens": 2 * int(taught.sum()) + 32, "batch_size": 1, "label": "one answer"}
    told = predict(loaded, [sample], stage.run.videos().file, stage.shared, answers, **how)
    if not team.first:
        return
    pad = loaded.tokenizer.convert_ids_to_tokens(int(loaded.model.config.video_token_id))
    prompt = loaded.tokenizer.decode(ids[~taught])
    prompt = re.sub(f"(?:{re.escape(pad)})+", lambda found: f"[{found[0].count(pad)} video tokens]", prompt)
    texts = {"prompt": prompt, "learnt": loaded.tokenizer.decode(ids[taught])}
    atomic_write_json(out, {**texts, "sample": asked, "answer": told[0].to_json()})


def _sample(row: dict[str, Any]) -> Sample:
    return Sample.from_json({k: v for k, v in row.items() if k != "completion"})


PHASES = {"fit": fit, "show": show}
