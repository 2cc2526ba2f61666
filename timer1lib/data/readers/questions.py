"""Published formats of multiple choice on video, with windows (ReXTime, NExT-GQA) and without."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from timer1lib.data.readers.base import Companions, Fields, Reader, Row, RowError, answered, as_index, kind, one_row, strip_letter
from timer1lib.data.readers.grounding import has
from timer1lib.data.readers.scan import Item
from timer1lib.errors import Timer1Error
from timer1lib.files import read_json
from timer1lib.schema import Sample

# ReXTime: a JSON array; `span` is the ground-truth window and `ans` the letter.
_rextime = Fields(
    "vid", "question", "span", id="qid", type="category", source="source", origin="rextime", options="options", answer="ans",
    expect="duration",
)  # fmt: skip

# NExT-GQA in VideoChat-R1's layout: `glue` holds one or several windows, options and answer carry their letters.
_nextgqa = Fields(
    "video", "question", "glue", id="id qid", type="type", origin="nextgqa", options="options", lettered=True, expect="duration"
)

# MVBench: one JSON array a task; some tasks name a clip of the file in start / end.
_mvbench = Fields(
    "video", "question", id="id question_id", duration="video_length duration", type="task_type question_type",
    origin="mvbench", clip=("start", "end"), options="candidates", extra="fps subtitle",
)  # fmt: skip


# TempCompass: {video: {dimension: [{question: "...\nA. ...\nB. ...", answer: "A. ..."}]}}; flat rows on the hub.
def _tempcompass_rows(item: Item) -> Iterator[Row | RowError]:
    value = item.value
    if not isinstance(value, Mapping):
        yield RowError("unreadable", f"the record of video {item.key!r} is {kind(value)}, not an object")
        return
    if item.key is None:
        yield Row(value, item.line)
        return
    for dimension, questions in value.items():
        if not isinstance(questions, list):
            yield RowError("unreadable", f"video {item.key!r}, {dimension!r}: {kind(questions)}, not a list of questions")
            continue
        for i, question in enumerate(questions):
            if isinstance(question, Mapping):
                yield Row({**question, "video_id": item.key, "dim": dimension, "index": i}, item.line)
            else:
                yield RowError("unreadable", f"video {item.key!r}, {dimension!r}: question {i} is {kind(question)}")


_OPTION = re.compile(r"^\s*\(?([A-H])[.):]\s*(.+?)\s*$", re.MULTILINE)


def split_question(text: str) -> tuple[str, list[str]]:
    """`"What?\\nA. x\\nB. y"` -> `("What?", ["x", "y"])`."""
    found = list(_OPTION.finditer(text))
    if len(found) < 2:
        return text.strip(), []
    return text[: found[0].start()].strip(), [match[2] for match in found]


def _tempcompass(row: Row, _: Companions) -> Sample:
    question, options = split_question(row.query("question"))
    if not options:
        raise RowError("missing_field", "the question holds no lettered options")
    dimension = row.text_or("", "dim")
    video = row.text("video_id")
    index = row.data.get("index")
    return Sample(
        id="" if index is None else f"{video}#{dimension}{index}",
        video=video,
        query=question,
        type=dimension,
        source="tempcompass",
        options=options,
        answer=answered(row, "answer", options),
    )


# Video-MME: flat rows on the hub, or a record a video with `questions`; `duration` is short / medium / long.
def _videomme_rows(item: Item) -> Iterator[Row | RowError]:
    questions = item.value.get("questions") if isinstance(item.value, Mapping) else None
    if not isinstance(questions, list):
        yield from one_row(item)
        return
    shared = {key: value for key, value in item.value.items() if key != "questions"}
    for question in questions:
        if isinstance(question, Mapping):
            yield Row({**shared, **question}, item.line)
        else:
            yield RowError("unreadable", f"a question is {kind(question)}, not an object")


_VIDEOMME = Fields(
    "videoID video_id video", "question", id="question_id", duration="", type="task_type", origin="videomme",
    options="options", lettered=True, extra="domain sub_category",
)  # fmt: skip


def _videomme(row: Row, companions: Companions) -> Sample:
    sample, length = _VIDEOMME(row, companions), row.data.get("duration")
    if isinstance(length, str):
        sample.extra["length"] = length
    elif isinstance(length, (int, float)):
        sample.duration = row.number("duration")
    return sample


def _is_videomme(value: Any) -> bool:
    if not isinstance(value, Mapping) or not {"video_id", "videoID"} & set(value):
        return False
    nested = value.get("questions")
    return has("question_id", "question", "options")(nested[0] if isinstance(nested, list) and nested else value)


# EgoSchema: `q_uid` and "option 0" .. "option 4"; answers of the public subset in subset_answers.json beside it.
def _egoschema(row: Row, companions: Companions) -> Sample:
    uid = row.text("q_uid", "video_idx")
    if row.first("option") is not None:
        options = row.options("option")
    else:
        numbered = [row.data.get(f"option {i}") for i in range(10)]
        options = [option for option in numbered if isinstance(option, str)]
        if len(options) < 2:
            raise RowError("missing_field", "no option 0, option 1, ...")
    answers = companions.get("answers", {})
    name = row.first("truth", "answer")
    if uid in answers:
        answer = as_index(row, "answer", answers[uid], options)
    elif name is not None:
        answer = as_index(row, name, row.data[name], options)
    else:
        answer = None
        row.note("missing_field", "info", "no public answer (subset_answers.json beside the file holds the 500 public ones)")
    return Sample(
        id=row.text_or("", "question_idx", "q_uid"),
        video=uid,
        query=row.query("question"),
        duration=180.0,
        source="egoschema",
        options=[strip_letter(option) for option in options],
        answer=answer,
    )


def egoschema_answers(path: Path) -> Companions:
    """`subset_answers.json` beside the question file, where it is: {q_uid: index}."""
    file = path.parent / "subset_answers.json"
    if not file.is_file() or file == path:
        return {}
    answers = read_json(file)
    if not isinstance(answers, dict):
        raise Timer1Error(f"{file}: must be an object of q_uid: index of the right option")
    return {"answers": answers}


def _is_tempcompass(value: Any) -> bool:
    first = next(iter(value.values()), None) if isinstance(value, Mapping) else None
    nested = isinstance(first, list) and bool(first) and has("question", "answer")(first[0])
    return nested or has("video_id", "question", "dim")(value)


def _is_egoschema(value: Any) -> bool:
    return has("q_uid", "question", "option 0")(value) or has("video_idx", "question", "option")(value)


QUESTIONS: dict[str, Reader] = {
    "rextime": Reader("ReXTime: multiple choice with a window", has("vid", "question", "options", "span"), _rextime),
    "nextgqa": Reader("NExT-GQA: multiple choice with windows (glue)", has("video", "question", "options", "glue"), _nextgqa),
    "mvbench": Reader("MVBench: multiple choice, one file a task", has("video", "question", "candidates", "answer"), _mvbench),
    "tempcompass": Reader("TempCompass, multiple choice", _is_tempcompass, _tempcompass, _tempcompass_rows, "any"),
    "videomme": Reader("Video-MME", _is_videomme, _videomme, _videomme_rows),
    "egoschema": Reader("EgoSchema, answers of the public subset", _is_egoschema, _egoschema, companions=egoschema_answers),
}
