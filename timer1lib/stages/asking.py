"""A model that is asked now, by a cell: a few samples, once each or as a group of sampled answers."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timer1lib.files import read_jsonl
from timer1lib.schema import Prediction, Sample
from timer1lib.stages import Stage
from timer1lib.stages.work import do


def ask_now(
    stage: Stage[Any],
    model: str,
    samples: Sequence[Sample],
    *,
    tokens: int,
    copies: int = 1,
    temperature: float = 0.0,
    repetition_penalty: float = 1.0,
    batch_size: int = 64,
    out: Path | None = None,
    label: str = "answers",
) -> list[Prediction]:
    """`copies` answers of a model (a folder or a hub id) to each sample, one after the other.

    Without `out`, a file that keeps them, nothing stays. The stage's module has `say` among its phases.
    """
    with tempfile.TemporaryDirectory(prefix="timer1-") as folder:
        path = out or Path(folder) / "answers.jsonl"
        asked = [sample.to_json() for sample in samples]
        how: dict[str, Any] = {"num_samples": copies, "temperature": temperature, "repetition_penalty": repetition_penalty}
        how |= {"max_new_tokens": tokens, "batch_size": batch_size, "label": label}
        do(stage, "say", model=model, samples=asked, out=str(path.resolve()), how=how)
        return [Prediction.from_json(row) for row in read_jsonl(path)]


def say(stage: Stage[Any], model: str, samples: Sequence[dict[str, Any]], out: str, how: dict[str, Any]) -> None:
    """What each rank does of `ask_now`; `how` are arguments of `inference.generate.predict`."""
    from timer1lib.inference.generate import predict
    from timer1lib.models.load import load_shared

    asked = [Sample.from_json(row) for row in samples]
    predict(load_shared(model, stage.shared), asked, stage.run.videos().file, stage.shared, out, **how)
