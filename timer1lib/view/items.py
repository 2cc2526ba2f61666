"""What is looked at: one item per sample with every checkpoint's answer, or per group of rollouts of a training step."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from statistics import fmean, pstdev
from typing import Any, Literal

from timer1lib import ideas
from timer1lib.data.notes import Note
from timer1lib.errors import Timer1Error
from timer1lib.evaluation.answers import answered, predicted
from timer1lib.evaluation.columns import in_order
from timer1lib.files import read_json, read_jsonl, read_yaml
from timer1lib.forms import FORMS, MAX_CHARACTERS, AnswerForm
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Prediction, Sample, Window
from timer1lib.spans import best_iou

log = logging.getLogger(__name__)

Pattern = Literal["solid", "diagonal", "dots", "back", "vertical", "cross"]

TRUTH_COLOUR = "#7a7f87"
THINKING_COLOUR = "#cc79a7"


@dataclass(frozen=True, slots=True)
class Style:
    """Fill of one row's bars."""

    colour: str
    pattern: Pattern


_KNOWN = {"base": Style("#e69f00", "diagonal"), "sft": Style("#56b4e9", "dots"), "grpo": Style("#009e73", "solid")}
_SPARE = ("#0072b2", "#d55e00", "#b8a500", "#cc79a7", "#8a6fd1")
_PATTERNS: tuple[Pattern, ...] = ("back", "vertical", "cross", "diagonal", "dots")


def styles(checkpoints: list[str]) -> dict[str, Style]:
    """A style for each checkpoint: base, sft and grpo always have the same one, also as the first run's of several."""
    found, taken = {}, 0
    first = checkpoints[0].rpartition("/")[0] if checkpoints else ""
    for name in checkpoints:
        run, _, own = name.rpartition("/")
        if own in _KNOWN and run == first:
            found[name] = _KNOWN[own]
        else:
            turn = taken // len(_SPARE)  # colours that come again have another pattern
            found[name] = Style(_SPARE[taken % len(_SPARE)], _PATTERNS[(taken + turn) % len(_PATTERNS)])
            taken += 1
    return found


RangeKind = Literal["thinking", "answer"]

_TIME = r"(?:\d{1,2}:\d{2}(?::\d{2})?(?:\.\d{1,3})?|\d{1,7}(?:\.\d{1,7})?)"
_UNIT = r"(?:\s{0,2}(?:seconds|second|secs|sec|s)\b)?"
_RANGE = re.compile(
    rf"(?<![\w.:])({_TIME}){_UNIT}\s{{0,3}}(?:to|and|until|till|through|-|–|—|,)\s{{0,3}}({_TIME})(?![\d:]){_UNIT}", re.IGNORECASE
)
_ANSWER = re.compile(r"<(answer|time)>", re.IGNORECASE)
MAX_RANGES = 200


@dataclass(frozen=True, slots=True)
class NamedRange:
    """A range in seconds, and the characters [`first`, `last`) of the text that name it."""

    start: float
    end: float
    first: int
    last: int
    kind: RangeKind


def named_ranges(text: str) -> list[NamedRange]:
    """Ranges such as "3.2 to 8", "[3.2, 8.0]", "3s - 8s" or "0:03 to 0:08", in the order of the text.

    A range whose end does not lie after its start ("2 and 1") is no range and is left out. Only the first
    `MAX_CHARACTERS` are read, and at most `MAX_RANGES` ranges are returned.
    """
    text = text[:MAX_CHARACTERS]
    opened = [match.start() for match in _ANSWER.finditer(text)]
    answer_from = opened[-1] if opened else len(text) if "</think>" not in text else text.rfind("</think>")
    found = []
    for match in _RANGE.finditer(text):
        start, end = _seconds(match[1]), _seconds(match[2])
        kind: RangeKind = "answer" if match.start() > answer_from else "thinking"
        if end > start:
            found.append(NamedRange(start, end, match.start(), match.end(), kind))
    return found[:MAX_RANGES]


def _seconds(text: str) -> float:
    return reduce(lambda total, part: total * 60 + float(part), text.split(":"), 0.0)


def linked_text(text: str) -> list[dict[str, object]]:
    """`text` cut into pieces for display: {"text"}, with "start", "end" and "kind" where a piece names a range.

    The pieces joined are the text again (its first `MAX_CHARACTERS`).
    """
    pieces: list[dict[str, object]] = []
    at = 0
    shown = text[:MAX_CHARACTERS]
    for found in named_ranges(shown):
        pieces.append({"text": shown[at : found.first]})
        pieces.append({"text": shown[found.first : found.last], "start": found.start, "end": found.end, "kind": found.kind})
        at = found.last
    pieces.append({"text": shown[at:]})
    return [piece for piece in pieces if piece["text"]]


@dataclass(slots=True)
class Lane:
    """One line of the timeline: who says it, its segment in seconds (None: no answer), and its text."""

    key: str
    label: str
    span: Window | None
    completion: str
    style: Style
    form: bool = True
    reward: float | None = None
    error: str | None = None
    parts: dict[str, float | None] = field(default_factory=dict)
    """Of a rollout: what each reward gave, by its name."""

    @property
    def spans(self) -> list[Window]:
        """The segments of the answer: the views draw as many as there are."""
        return [self.span] if self.span else []


@dataclass(frozen=True, slots=True)
class Group:
    """One logged group of rollouts: the item that shows it, its step, and each rollout's segment and reward."""

    key: str
    step: int
    ticks: tuple[tuple[Window | None, float], ...]


@dataclass(slots=True)
class Item:
    """A sample with the answers to it. `key` is unique among the items shown together.

    `run` has its video, where that is not the run that is looked at; `history` holds every group of its sample, in the order
    of training.
    """

    key: str
    sample: Sample
    rows: list[Lane]
    split: str = ""
    step: int | None = None
    tags: list[str] = field(default_factory=list)
    run: RunFolder | None = None
    history: list[Group] = field(default_factory=list)

    @property
    def duration(self) -> float:
        """Length of the timeline in seconds; the last named time where the annotation gives no duration."""
        if self.sample.duration:
            return self.sample.duration
        ends = [end for _, end in self.sample.windows] + [row.span[1] for row in self.rows if row.span]
        return max([1.0, *ends])

    def iou(self, row: Lane) -> float:
        """IoU of a row's answer with the window it fits best (there may be several)."""
        return best_iou(row.span, self.sample.windows)

    def ious(self) -> dict[str, float]:
        return {row.key: self.iou(row) for row in self.rows}

    def rewards(self) -> tuple[float, float]:
        """Mean and standard deviation of the rows' rewards."""
        rewards = [row.reward or 0.0 for row in self.rows] or [0.0]
        return fmean(rewards), pstdev(rewards)


def grounding_splits(run: RunFolder) -> list[str]:
    """Splits with grounding samples and at least one checkpoint's predictions, in the order of `data/splits.json`."""
    given = set(predicted(run))
    kinds = run.splits() if run.data("splits.json").is_file() else {}
    names = [name for name, facts in kinds.items() if facts.get("kind", "grounding") == "grounding" and name in given]
    return names + sorted(name for name in given - set(kinds) if run.data(name).is_file())


def load_items(
    run: RunFolder, splits: list[str] | None = None, checkpoints: list[str] | None = None, form: AnswerForm = FORMS["timer1"]
) -> list[Item]:
    """One item per grounding sample of the splits (all that have predictions, where none is named).

    A run, a named split or a named checkpoint without predictions is a Timer1Error.
    """
    chosen = splits or grounding_splits(run)
    names = checkpoints or in_order(
        sorted({name for split, found in predicted(run).items() if split in chosen for name in found})
    )
    if not chosen or not names:
        raise Timer1Error(f"{run.root}: no predictions of a grounding split yet; run 05_evaluate first")
    known = in_order(sorted({name for found in predicted(run).values() for name in found} | set(names)))
    style = styles(known)  # of all that there are, so that a choice among them changes no colour
    tags = signature_tags(run)
    items = []
    for split in chosen:
        for name in checkpoints or ():
            if not (path := run.predictions(name, split)).is_file():
                raise Timer1Error(f"{path}: no predictions of checkpoint {name!r} for split {split!r}")
        answers = {name: {row.id: row for row in answered(run, name, split)} for name in names}
        for sample in run.read_samples(split):
            if sample.is_question and not sample.windows:
                continue
            rows = [_lane(name, answers[name].get(sample.id), style[name], form, sample) for name in answers]
            found = sorted(tags.get((split, sample.id), set()))
            if any(row.span is None for row in rows):
                found.append("no answer")
            items.append(Item(f"{split}/{sample.id}", sample, rows, split, None, found))
    return items


def _lane(name: str, prediction: Prediction | None, style: Style, form: AnswerForm, sample: Sample) -> Lane:
    if prediction is None:
        return Lane(name, name, None, "", style, False, None, "not in the predictions")
    asked = form if prediction.parser == form.reading.way else FORMS.get(prediction.parser, form)
    fits = asked.of_sample(sample, grounded=False).fits(prediction.completion)
    return Lane(name, name, prediction.span, prediction.completion, style, fits, None, prediction.error)


def load_several(
    runs: Sequence[RunFolder],
    splits: list[str] | None = None,
    checkpoints: list[str] | None = None,
    form: AnswerForm = FORMS["timer1"],
) -> list[Item]:
    """`load_items` of several runs side by side: rows are named run/checkpoint, samples are the same by split, id and query.

    The truth is the first run's; a sample whose windows are others in a later one has the tag "truth differs". A run without
    any of the named checkpoints or splits is a Timer1Error.
    """
    if len(runs) == 1:
        return load_items(runs[0], splits, checkpoints, form)
    titles = run_titles(runs)
    found: list[tuple[RunFolder, str, list[Item], list[str]]] = []
    for run, title in zip(runs, titles, strict=True):
        there = predicted(run)
        own = [name for name in checkpoints or () if any(name in names for names in there.values())]
        chosen = [split for split in splits or grounding_splits(run) if split in there]
        if (checkpoints and not own) or not chosen:
            wanted = f"checkpoints {', '.join(checkpoints)}" if checkpoints and chosen else "what is looked at"
            raise Timer1Error(f"{run.root}: no predictions of {wanted} yet; run 05_evaluate there first")
        items = load_items(run, chosen, None, form)
        names = own or [row.key for row in items[0].rows]
        found.append((run, title, items, names))
    style = styles([f"{title}/{row.key}" for _, title, items, _ in found for row in items[0].rows])
    merged: dict[tuple[str, str], Item] = {}
    query_of: dict[str, str] = {}
    for run, title, items, names in found:
        for item in items:
            whole = merged.setdefault((item.key, item.sample.query), item)
            rows = [row for row in item.rows if row.key in names]
            if whole is item:
                whole.run, whole.rows = run, []
                if query_of.setdefault(item.key, item.sample.query) != item.sample.query:
                    whole.key = f"{item.key}@{title}"
            elif whole.sample.windows != item.sample.windows and "truth differs" not in whole.tags:
                whole.tags.append("truth differs")
            whole.tags += [tag for tag in item.tags if tag not in whole.tags]
            for row in rows:
                row.key = row.label = f"{title}/{row.key}"
                row.style = style[row.key]
            whole.rows += rows
    shown = [f"{title}/{name}" for _, title, _, names in found for name in names]
    for item in merged.values():
        by_key = {row.key: row for row in item.rows}
        absent = "not in this run"
        item.rows = [by_key.get(key) or Lane(key, key, None, "", style[key], False, None, absent) for key in shown]
    differ = sum("truth differs" in item.tags for item in merged.values())
    if differ:
        log.warning("%d of %d samples have other windows in a later run: the first run's truth counts", differ, len(merged))
    return list(merged.values())


def run_titles(runs: Sequence[RunFolder]) -> list[str]:
    """A short name of each run: its folder's, with the folder above where two have the same."""
    paths = [run.root.resolve() for run in runs]
    names = [path.name for path in paths]
    return [name if names.count(name) == 1 else f"{path.parent.name}-{name}" for name, path in zip(names, paths, strict=True)]


def load_rollouts(run: RunFolder, samples_name: str = "train", limit: int = 20_000) -> list[Item]:
    """One item per group of rollouts in `logs/rollouts.jsonl`, best reward first in each; the last `limit` groups. Each knows
    all groups of its sample.

    A Timer1Error where no rollouts were logged, or a row lacks a field (it names file and row).
    """
    path = run.log("rollouts")
    if not path.is_file():
        raise Timer1Error(f"{path}: no rollouts yet; run 04_grpo first")
    known = trained_on(run, samples_name)
    items = []
    histories: dict[str, list[Group]] = {}
    for number, row in enumerate(read_jsonl(path, torn_tail=True), 1):
        try:
            item = _group(row, known, number)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise Timer1Error(f"{path}, row {number}: not a group of rollouts: {error!r}") from error
        item.history = histories.setdefault(item.sample.id, [])
        item.history.append(Group(item.key, item.step or 0, tuple((lane.span, lane.reward or 0.0) for lane in item.rows)))
        items.append(item)
    return items[-limit:]


def trained_on(run: RunFolder, samples_name: str = "train") -> dict[str, Sample]:
    """The samples that a run's rollouts may be about, by id."""
    names = [name for name in (samples_name, "selected") if run.data(name).is_file()]
    return {sample.id: sample for name in names for sample in run.read_samples(name)}


def trained_with(run: RunFolder) -> str:
    """The rewards that 04_grpo was given, as `grpo.rewards` says them, those from a notebook's cell too.

    One of one's own whose file says something else by now is left out; the library's default where nothing is known.
    """
    tree = read_yaml(run.params) if run.params.is_file() else {}
    named = str((tree.get("grpo") or {}).get("rewards", "tiou, format"))
    stamp = read_json(run.stamp("04_grpo")) if run.stamp("04_grpo").is_file() else {}
    parts = stamp.get("parts", {})
    if "rewards" not in parts.get("inputs", {}):
        return str(parts.get("params", {}).get("rewards", named))
    texts = []
    for mark in parts["inputs"]["rewards"]:
        about, _, digest = mark.partition(" ")
        name, _, weight = about.partition(":")
        files = [text.strip().partition(".py:")[0] + ".py" for text in named.split(",") if ideas.is_reference(text)]
        places = [f"{file}:{name}" for file in (*files, str(run.root / "ideas" / f"{name}.py"))]
        places = [place for place in places if ideas.identity(place) == digest] if digest else [name]
        texts += [f"{place}:{weight or 1}" for place in places[:1]]
    return ", ".join(texts) or "tiou, format"


def sample_of(row: Mapping[str, Any], known: Mapping[str, Sample]) -> Sample:
    """The sample of a row of rollouts; what the row itself says of it where it is not known."""
    return known.get(row["id"]) or Sample(
        row["id"], "", row.get("query", ""), windows=[(float(s), float(e)) for s, e in row.get("windows") or [row["gt"]]]
    )


def _group(row: dict[str, Any], known: dict[str, Sample], number: int) -> Item:
    sample = sample_of(row, known)
    order = sorted(range(len(row["rewards"])), key=lambda i: -float(row["rewards"][i]))
    rollouts = []
    for rank, i in enumerate(order):
        span = row["spans"][i]
        completion = row["completions"][i] if row.get("completions") else ""
        style = Style("#009e73", "solid") if rank == 0 else Style("#0072b2", "diagonal")
        parsed = (float(span[0]), float(span[1])) if span and None not in span else FORMS["timer1"].span(completion)
        parts = {name: values[i] for name, values in row.get("parts", {}).items()}
        rollouts.append(Lane(f"r{i}", f"rollout {i + 1}", parsed, completion, style, True, float(row["rewards"][i]), parts=parts))
    return Item(f"{row['step']}/{row['id']}/{number}", sample, rollouts, f"step {row['step']}", int(row["step"]))


def signature_tags(run: RunFolder) -> dict[tuple[str, str], set[str]]:
    """{(split, sample id): names of the failure signatures that list the sample} from `metrics.json`."""
    tags: dict[tuple[str, str], set[str]] = {}
    metrics = read_json(run.metrics) if run.metrics.is_file() else None
    try:
        for split, by_checkpoint in ((metrics or {}).get("signatures") or {}).items():
            for found in by_checkpoint.values():
                for name, entry in found.items():
                    for identity in entry["samples"]:
                        tags.setdefault((split, str(identity)), set()).add(name.replace("_", " "))
    except (AttributeError, TypeError, KeyError) as error:
        log.warning("%s: its signatures are not what 05_evaluate writes: %r", run.metrics, error)
    return tags


WALKS = ("worst", "changed", "worse")
"""Ways through the samples beside the order shown: by IoU, to those that moved, to those that fell."""


def payload(item: Item, note: Note | None, reward: str) -> dict[str, Any]:
    """What the scrubber's JavaScript needs to show an item: plain JSON, times in seconds."""
    sample = item.sample
    facts = {"split": item.split, "type": sample.type, "source": sample.source, "video": sample.video, "id": sample.id}
    return {
        "key": item.key,
        "id": sample.id,
        "query": sample.query,
        "duration": item.duration,
        "truth": [list(window) for window in sample.windows],
        "truth_colour": TRUTH_COLOUR,
        "facts": [[name, value] for name, value in facts.items() if value],
        "tags": item.tags,
        "reward": reward,
        "note": note.to_json() if note else None,
        "rows": [
            {name: getattr(row, name) for name in ("key", "label", "form", "reward", "error", "parts")}
            | asdict(row.style)
            | {"spans": [list(span) for span in row.spans], "pieces": linked_text(row.completion)}
            for row in item.rows
        ],
        "walks": [] if item.step is not None else list(WALKS),
        "history": [
            {"key": group.key, "step": group.step, "here": group.key == item.key}
            | {"ticks": [{"span": span and list(span), "reward": value} for span, value in group.ticks]}
            for group in item.history
        ],
    }


def table_row(item: Item, note: Note | None) -> dict[str, Any]:
    """A compact row for the table: numbers rounded for the wire, never for the metrics."""
    sample = item.sample
    window = sample.windows[0] if sample.windows else None
    row: dict[str, Any] = {
        "key": item.key,
        "id": sample.id,
        "query": sample.query,
        "type": sample.type,
        "split": item.split,
        "duration": round(item.duration, 2),
        "length": round(window[1] - window[0], 2) if window else None,
        "truth": [[round(s, 2), round(e, 2)] for s, e in sample.windows],
        "spans": [[[round(s, 2), round(e, 2)] for s, e in row.spans] for row in item.rows],
        "iou": [round(item.iou(row), 4) for row in item.rows],
        "tags": item.tags,
        "note": note.label if note else "",
    }
    if item.step is not None:
        mean, spread = item.rewards()
        best = max((row.reward or 0.0 for row in item.rows), default=0.0)
        row |= {"step": item.step, "mean": round(mean, 4), "spread": round(spread, 4), "best": round(best, 4)}
    return row
