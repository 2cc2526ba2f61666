"""How hard a sample is: the IoU of a model's greedy answer with the best of its windows.

Answers are kept per model, sample and prompt, so that no run asks twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_jsonl, read_jsonl, sha256_sample
from timer1lib.schema import Prediction, Sample
from timer1lib.spans import best_iou

log = logging.getLogger(__name__)


def difficulty_rows(samples: Sequence[Sample], predictions: Iterable[Prediction]) -> list[dict[str, Any]]:
    """Rows {id, iou, start, end, completion}; `iou` is None where the video could not be read."""
    by_id = {prediction.id: prediction for prediction in predictions}
    rows = []
    for sample in samples:
        answer = by_id.get(sample.id)
        if answer is None:
            raise Timer1Error(f"no answer to sample {sample.id!r}: difficulty needs one for every sample of the pool")
        value = None if answer.error else best_iou(answer.span, sample.windows)
        row = {"id": sample.id, "iou": value, "start": answer.start, "end": answer.end, "completion": answer.completion}
        rows.append({**row, "error": answer.error} if answer.error else row)
    return rows


def published_rows(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Difficulty recomputed from the answers that TimeRFT publishes with its rows (`pred`).

    Raises:
        Timer1Error: a sample without a published answer.
    """
    rows = []
    for sample in samples:
        pred = sample.extra.get("pred")
        if not isinstance(pred, (list, tuple)) or len(pred) != 2:
            raise Timer1Error(
                f"sample {sample.id!r} brings no published answer (pred); difficulty_model=published needs TimeRFT's file"
            )
        answer = Prediction(sample.id, float(pred[0]), float(pred[1]))
        value = best_iou(answer.span, sample.windows)
        rows.append({"id": sample.id, "iou": value, "start": answer.start, "end": answer.end, "completion": ""})
    return rows


def spread(rewards: Sequence[float]) -> float:
    """Population standard deviation of one group's rewards: what its advantages are made of."""
    mean = math.fsum(rewards) / len(rewards)
    return math.sqrt(math.fsum((r - mean) ** 2 for r in rewards) / len(rewards))


def answer_key(sample: Sample, video: Path | None, asked: Mapping[str, Any]) -> str:
    """Digest of what an answer depends on: the question, the video by content, the model and the prompt."""
    seen = sha256_sample(video) if video is not None and video.is_file() else None
    parts = [sample.query, sample.duration, sample.video_start, sample.video_end, sample.options, seen, dict(asked)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


class AnswerCache:
    """A folder of answers by key, shared by all runs: whole files that are written once, so that no process disturbs another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows: dict[str, list[dict[str, Any]]] = {}
        for path in sorted(folder.glob("*.jsonl")):
            try:
                for row in read_jsonl(path):
                    self._rows[str(row["key"])] = list(row["answers"])
            except (Timer1Error, KeyError, TypeError) as error:
                log.warning("%s: not a file of answers (%s); its samples are asked again", path, error)

    def get(self, key: str, sample: Sample) -> list[Prediction] | None:
        """The answers under a key, as answers to this sample."""
        rows = self._rows.get(key)
        return None if rows is None else [Prediction.from_json({**row, "id": sample.id}, str(self.folder)) for row in rows]

    def add(self, answers: Mapping[str, Sequence[Prediction]]) -> None:
        """Keep new answers; those that failed are not kept, so that they are asked again."""
        fresh = {key: [a.to_json() for a in found] for key, found in answers.items() if not any(a.error for a in found)}
        if fresh:
            name = hashlib.sha256("".join(sorted(fresh)).encode()).hexdigest()[:16]
            atomic_write_jsonl(self.folder / f"{name}.jsonl", ({"key": key, "answers": rows} for key, rows in fresh.items()))
            self._rows.update(fresh)
