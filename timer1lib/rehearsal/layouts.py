"""A few drawn rows in the layout of a published annotation file that is not here."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

from timer1lib.schema import Sample
from timer1lib.spans import best_iou
from timer1lib.world.queries import LETTERS

BY_NAME = {
    "timerft": "timerft", "tvgbench": "tvgbench", "charades": "captions", "activitynet": "captions", "anet": "captions",
    "didemo": "didemo", "qvhighlights": "qvhighlights", "tacos": "lighthouse", "lighthouse": "lighthouse", "hirest": "hirest",
    "rextime": "rextime", "nextgqa": "nextgqa", "mvbench": "mvbench", "tempcompass": "tempcompass", "videomme": "videomme",
    "egoschema": "egoschema",
}  # fmt: skip
"""A part of a file's name, and the layout in which that data set is published."""

QUESTIONS = frozenset({"rextime", "nextgqa", "mvbench", "tempcompass", "videomme", "egoschema"})


def layout_of(name: str, format: str) -> str:
    """The layout that a file's name (with the split's before it) promises, or the format that the recipe names."""
    if format in LAYOUTS:
        return format
    plain = "".join(c for c in name.lower() if c.isalnum())
    ending = PurePosixPath(name).suffix.lower()
    known = next((layout for part, layout in BY_NAME.items() if part in plain), "jsonl")
    if known == "captions" and ending == ".txt":
        return "charades_sta"
    return "csv" if known == "jsonl" and ending == ".csv" else known


def _array(rows: Sequence[Any]) -> str:
    return json.dumps(rows, ensure_ascii=False, indent=1)


def _lines(rows: Sequence[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _name(sample: Sample) -> str:
    return PurePosixPath(sample.video).stem


def _timerft(samples: Sequence[Sample]) -> str:
    rows = []
    for number, s in enumerate(samples):
        start, end = s.window
        pred = [round(start * (0.2 + 0.1 * (number % 4)), 2), end]  # the base model starts too early
        iou = 100 * best_iou((pred[0], pred[1]), s.windows)
        rows.append(
            {"video": f"./dataset/timer1/videos/timerft_data/{s.video}", "duration": s.duration, "timestamp": list(s.window),
             "sentence": s.query, "qid": f"my|drawn|{_name(s)}|{s.query}", "video_start": None, "video_end": None,
             "difficulty": iou, "pred": pred}
        )  # fmt: skip
    return _array(rows)


def _tvgbench(samples: Sequence[Sample]) -> str:
    return _array([
        {"path": f"./dataset/timer1/videos/tvgbench_data/{s.video}", "question": s.query, "answer": "{}-{}".format(*s.window),
         "start": None, "end": None, "duration": s.duration, "question_type": "video temporal grounding", "dataset_name": "drawn",
         "qsemtype": s.type, "bins": {}} for s in samples
    ])  # fmt: skip


def _captions(samples: Sequence[Sample]) -> str:
    table: dict[str, Any] = {}
    for s in samples:
        record = table.setdefault(_name(s), {"duration": s.duration, "timestamps": [], "sentences": []})
        record["timestamps"].append(list(s.window))
        record["sentences"].append(s.query)
    return json.dumps(table, ensure_ascii=False)


def _charades(samples: Sequence[Sample]) -> str:
    return "".join(f"{_name(s)} {s.window[0]} {s.window[1]}##{s.query}\n" for s in samples)


def _lighthouse(samples: Sequence[Sample], **more: Any) -> str:
    return _lines([
        {"qid": i, "query": s.query, "duration": s.duration, "vid": _name(s), **more,
         "relevant_windows": [list(w) for w in s.windows]} for i, s in enumerate(samples)
    ])  # fmt: skip


def _didemo(samples: Sequence[Sample]) -> str:
    rows = []
    for i, s in enumerate(samples):
        first, last = int(s.window[0] // 5), int(max(s.window[0], s.window[1] - 0.1) // 5)
        times = [[first, last]] * 3 + [[first, first]]
        rows.append({"annotation_id": i, "description": s.query, "video": s.video, "times": times, "num_segments": 6})
    return _array(rows)


def _hirest(samples: Sequence[Sample]) -> str:
    return json.dumps({
        s.query: {s.video: {"relevant": True, "clip": True, "v_duration": s.duration, "bounds": list(s.window), "steps": []}}
        for s in samples
    })  # fmt: skip


def _lettered(s: Sample, mark: str) -> list[str]:
    return [mark.format(letter) + option for letter, option in zip(LETTERS, s.options or [], strict=False)]


def _rextime(samples: Sequence[Sample]) -> str:
    return _array([
        {"qid": s.id, "vid": _name(s), "duration": s.duration, "question": s.query, "answer": "", "category": s.type,
         "source": "drawn", "options": s.options, "span": list(s.window), "ans": LETTERS[s.answer or 0]} for s in samples
    ])  # fmt: skip


def _nextgqa(samples: Sequence[Sample]) -> str:
    return _array([
        {"id": s.id, "video": s.video, "question": s.query, "options": _lettered(s, "({}) "), "duration": s.duration,
         "glue": [list(s.window)], "type": s.type, "answer": f"({LETTERS[s.answer or 0]})"} for s in samples
    ])  # fmt: skip


def _mvbench(samples: Sequence[Sample]) -> str:
    return _array([
        {"video": s.video, "question": s.query, "candidates": s.options, "answer": (s.options or [""])[s.answer or 0]}
        for s in samples
    ])  # fmt: skip


def _tempcompass(samples: Sequence[Sample]) -> str:
    table: dict[str, Any] = {}
    for s in samples:
        options = _lettered(s, "{}. ")
        row = {"question": "\n".join([s.query, *options]), "answer": options[s.answer or 0]}
        table.setdefault(_name(s), {}).setdefault("order", []).append(row)
    return json.dumps(table)


def _videomme(samples: Sequence[Sample]) -> str:
    return _array([
        {"videoID": _name(s), "question_id": s.id, "question": s.query, "options": _lettered(s, "{}. "), "duration": "short",
         "answer": LETTERS[s.answer or 0], "task_type": s.type} for s in samples
    ])  # fmt: skip


def _egoschema(samples: Sequence[Sample]) -> str:
    return _array([
        {"q_uid": _name(s), "question": s.query, "truth": s.answer,
         **{f"option {i}": text for i, text in enumerate(s.options or [])}} for s in samples
    ])  # fmt: skip


def _plain_row(s: Sample) -> dict[str, Any]:
    start, end = s.window
    return {"id": s.id, "video": s.video, "query": s.query, "start": start, "end": end, "duration": s.duration}


def _csv(samples: Sequence[Sample]) -> str:
    stream = io.StringIO()
    table = csv.DictWriter(stream, list(_plain_row(samples[0])), lineterminator="\n")
    table.writeheader()
    table.writerows(map(_plain_row, samples))
    return stream.getvalue()


LAYOUTS: dict[str, Callable[[Sequence[Sample]], str]] = {
    "timerft": _timerft, "tvgbench": _tvgbench, "captions": _captions, "charades_sta": _charades,
    "qvhighlights": lambda samples: _lighthouse(samples, relevant_clip_ids=[], saliency_scores=[]), "lighthouse": _lighthouse,
    "didemo": _didemo, "hirest": _hirest, "rextime": _rextime, "nextgqa": _nextgqa, "mvbench": _mvbench,
    "tempcompass": _tempcompass, "videomme": _videomme, "egoschema": _egoschema,
    "jsonl": lambda samples: _lines(list(map(_plain_row, samples))), "csv": _csv,
}  # fmt: skip
"""The text of a file with these samples, by the name of the reader that knows the layout."""


def durations_csv(samples: Sequence[Sample]) -> str:
    """What Charades-STA's text needs beside it: each video's length in seconds."""
    return "id,length\n" + "".join(f"{_name(s)},{s.duration}\n" for s in samples)
