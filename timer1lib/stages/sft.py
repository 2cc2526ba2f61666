"""02_sft: teach the base the form of the answer, and how to think towards it, on few samples."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from timer1lib import forms
from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_jsonl, read_jsonl
from timer1lib.params import result_parameters
from timer1lib.params.sections import SftParams
from timer1lib.schema import Sample
from timer1lib.stages import Stage
from timer1lib.stages.work import do


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
    from timer1lib.training.common import SampleEncoder
    from timer1lib.training.sft import SftJob, train_sft

    rows = cold_start_rows(stage)
    texts = {row["id"]: row["completion"] for row in rows}
    samples = {row["id"]: Sample.from_json({k: v for k, v in row.items() if k != "completion"}) for row in rows}
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


PHASES = {"fit": fit}
