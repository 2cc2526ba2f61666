"""What a table of results shows: one list of columns and one list of checkpoints. A new column is one entry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from timer1lib.evaluation import didemo

if TYPE_CHECKING:
    from timer1lib.evaluation.scored import Floats, Scored

CHECKPOINTS: dict[str, str] = {"base": "base", "sft": "SFT", "grpo": "GRPO"}
"""{name in files: name in tables} in the order of training; differences go from left to right."""

Kind = Literal["grounding", "questions"]
Place = Literal["brief", "score", "results", "report", "compare", "pooled"]
"""Tables: at the end of a run or sweep, `timer1 score`, 05_evaluate, report.html, `timer1 compare`, over seeds."""

MAIN: dict[Kind, str] = {"grounding": "mIoU", "questions": "accuracy"}
"""The one metric that a split is told by where there is room for one, and that differences are told of."""
BOTH: frozenset[Kind] = frozenset({"grounding", "questions"})
GROUNDING: frozenset[Kind] = frozenset({"grounding"})
QUESTIONS: frozenset[Kind] = frozenset({"questions"})
WIDE: frozenset[Place] = frozenset({"results", "report", "compare", "pooled"})
EVERYWHERE: frozenset[Place] = WIDE | {"brief", "score"}
SCORED: frozenset[Place] = frozenset({"score", "results", "report", "compare"})
COUNTED: frozenset[Place] = frozenset({"results", "compare"})


@dataclass(frozen=True, slots=True)
class Column:
    """One column of results, for the splits of some `kinds` and the tables in `places`.

    Attributes:
        key: its name in a row of `metrics.json`.
        unit: stands behind every value; "" where the title or the caption says it.
        scale: the value times this is shown, as 100 for a share that is shown in percent.
        better: which way is better; "" where neither is.
        tip: what it is, in words.
        beside: key of a value shown beside it, and the word before that one.
        interval: whether its interval is shown where there is one.
        paired: whether differences between two sets of answers are taken of it.
        of: one number a row, (N,), NaN where the row has none, whose mean it is; None: `metrics.columns` has it already.
    """

    key: str
    title: str
    kinds: frozenset[Kind] = GROUNDING
    unit: str = ""
    digits: int = 1
    scale: float = 1.0
    better: Literal["more", "less", ""] = ""
    tip: str = ""
    beside: tuple[str, str] | None = None
    interval: bool = True
    places: frozenset[Place] = WIDE
    paired: bool = False
    of: Callable[[Scored], Floats] | None = None


def _recall(threshold: float) -> Column:
    tip = f"percent of the answers whose IoU with the true window reaches {threshold}"
    return Column(f"R1@{threshold}", f"R1@{threshold}", better="more", tip=tip, places=EVERYWHERE, paired=True)


COLUMNS: list[Column] = [
    Column("n", "n", BOTH, digits=0, tip="questions asked", interval=False, places=COUNTED),
    Column("answered", "answered", BOTH, digits=0, tip="of them answered, readably or not", interval=False, places=COUNTED),
    Column("unparsable", "unparsable", BOTH, digits=0, tip="answers that hold no segment or letter", interval=False,
           places=frozenset({"results"})),
    Column("mIoU", "mIoU", better="more", tip="mean IoU, percent", places=EVERYWHERE, paired=True),
    _recall(0.3),
    _recall(0.5),
    _recall(0.7),
    *(
        Column(key, key, better="more", tip="mean average precision of ranked windows, percent", places=frozenset({"score"}))
        for key in ("mAP", "mAP@0.5", "mAP@0.75")
    ),
    Column("didemo_mIoU", "DiDeMo mIoU", better="more", places=SCORED, of=didemo.consensus_iou,
           tip="mean IoU with the three annotators who agree best, percent"),
    Column("didemo_rank1", "DiDeMo rank@1", better="more", places=SCORED, of=didemo.rank_1,
           tip="share of answers that are exactly what those three chose, percent"),
    Column("accuracy", "accuracy", QUESTIONS, better="more", tip="right options, percent", places=EVERYWHERE, paired=True),
    Column("chance", "chance", QUESTIONS, tip="accuracy of a blind choice, percent", interval=False, places=COUNTED),
    Column("parse_rate", "answered", better="more", tip="share of completions that hold a segment, percent", interval=False,
           places=frozenset({"report"})),
    Column("form_rate", "right form", better="more", tip="share of completions in the asked form, percent",
           places=frozenset({"pooled"})),
    Column("mean_relative_length", "length", unit="%", scale=100.0, beside=("true_relative_length", "true"), interval=False,
           tip="mean length of the answer over the video's, percent; beside it the truth's", paired=True),
    Column("boundary_error_s", "edge error", unit="s", digits=2, better="less", interval=False, paired=True,
           tip="mean distance of an answer's edges from the true ones, seconds", places=WIDE - {"compare"}),
]  # fmt: skip
"""In the order of every table. A column that no row of a table has is left out there."""


def shown(place: Place, kind: Kind | None = None) -> list[Column]:
    """The columns of one table, of splits of one kind or of all."""
    return [column for column in COLUMNS if place in column.places and (kind is None or kind in column.kinds)]


def paired_keys(kind: Kind = "grounding") -> list[str]:
    """What differences are taken of."""
    return [column.key for column in COLUMNS if column.paired and kind in column.kinds]


def column_of(key: str) -> Column:
    """The column of a key; a plain one where the list has none."""
    return next((column for column in COLUMNS if column.key == key), Column(key, key.replace("_", " ")))


def in_order(names: Iterable[str]) -> list[str]:
    """Checkpoints in the order of training, then the others as they came."""
    given = list(dict.fromkeys(names))
    return [name for name in CHECKPOINTS if name in given] + [name for name in given if name not in CHECKPOINTS]


def display_name(checkpoint: str) -> str:
    return CHECKPOINTS.get(checkpoint, checkpoint)


def number(value: Any) -> float | None:
    """A plain number, or the `value` of one that comes with its interval."""
    if isinstance(value, Mapping):
        value = value.get("value", value.get("mean"))
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def main_score(row: Mapping[str, Any]) -> float | None:
    """A row's `MAIN` metric, percent; None where it has none."""
    return next((value for key in MAIN.values() if (value := number(row.get(key))) is not None), None)
