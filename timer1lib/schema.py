"""The two rows everything else is about: a sample (what is asked) and a prediction (what was answered)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from timer1lib.errors import Timer1Error

LARGEST = 10**300
"""Whole numbers beyond this cannot be seconds, and most of them no float."""

Window = tuple[float, float]
"""Start and end in seconds from the start of the video, or of the clip where the sample has one."""


@dataclass(slots=True)
class Sample:
    """One query on one video.

    Times are seconds. With `video_start` / `video_end` the sample is about that clip of the file, and
    `windows` and `duration` count from the clip's start. A multiple-choice sample has `options` and `answer`
    (an index into them) and may have no windows.
    """

    id: str
    video: str
    query: str
    duration: float | None = None
    windows: list[Window] = field(default_factory=list)
    type: str = ""
    source: str = ""
    split: str = ""
    video_start: float | None = None
    video_end: float | None = None
    options: list[str] | None = None
    answer: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def is_question(self) -> bool:
        return self.options is not None

    @property
    def window(self) -> Window:
        """The first window, which is the only one in single-segment data sets."""
        if not self.windows:
            raise Timer1Error(f"sample {self.id!r} has no window; grounding needs one")
        return self.windows[0]

    def to_json(self) -> dict[str, Any]:
        """A plain row; empty optional fields are left out so that files stay readable."""
        row: dict[str, Any] = {
            "id": self.id,
            "video": self.video,
            "query": self.query,
            "duration": finite(self.duration),
            "windows": [[finite(edge) for edge in window] for window in self.windows],
        }
        for name in ("type", "source", "split", "video_start", "video_end", "options", "answer", "extra"):
            value = without_nan(getattr(self, name))
            if value not in (None, "", {}):
                row[name] = value
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any], where: str = "sample") -> Sample:
        """Read a row written by `to_json`; `where` (file and line) is named in the error.

        Raises:
            Timer1Error: a field is missing, unknown or of the wrong type.
        """
        sample = _read(cls, row, where, "sample", 2, ("id", "video", "query", "type", "source", "split"))
        options = sample.options
        if options is not None and not (isinstance(options, list) and all(isinstance(option, str) for option in options)):
            raise Timer1Error(f"{where}: 'options' must be a list of texts or null")
        if not isinstance(sample.extra, dict):
            raise Timer1Error(f"{where}: 'extra' must be an object")
        _check_numbers(sample, ("duration", "video_start", "video_end", "answer"), where)
        return sample


@dataclass(slots=True)
class Prediction:
    """A model's answer to one sample. `start` and `end` are None where the text holds no span."""

    id: str
    start: float | None = None
    end: float | None = None
    completion: str = ""
    parser: str = ""
    model: str = ""
    windows: list[tuple[float, float, float]] = field(default_factory=list)
    """Several ranked windows (start, end, score), for data sets that score them."""
    answer: int | None = None
    """Chosen option of a multiple-choice sample."""
    seconds: float | None = None
    """Wall time spent on this sample."""
    error: str | None = None
    """Why there is no answer: a missing or broken video, for example."""

    @property
    def span(self) -> Window | None:
        return None if self.start is None or self.end is None else (self.start, self.end)

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {"id": self.id, "start": finite(self.start), "end": finite(self.end), "completion": self.completion}
        for name in ("parser", "model", "windows", "answer", "seconds", "error"):
            value = without_nan(getattr(self, name))
            if value not in (None, "", []):
                row[name] = value
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any], where: str = "prediction") -> Prediction:
        """As `Sample.from_json`."""
        prediction = _read(cls, row, where, "prediction", 3, ("id", "completion", "parser", "model"))
        _check_numbers(prediction, ("start", "end", "seconds", "answer"), where)
        return prediction


def without_nan(value: Any) -> Any:
    """`value` with None in place of every number in it that is not finite, however deep."""
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return value


def _window(value: Any, size: int) -> tuple[float, ...]:
    """A window's numbers; null, as which a NaN was written, is read back as NaN."""
    if len(value) != size:
        raise ValueError(f"a window of {len(value)} values, not {size}")
    return tuple(math.nan if number is None else float(number) for number in value)


T = TypeVar("T", Sample, Prediction)


def _read(cls: type[T], row: Mapping[str, Any], where: str, what: str, edges: int, texts: tuple[str, ...]) -> T:
    """What both kinds of row share: known fields, windows of `edges` numbers, fields that are `texts`."""
    if unknown := set(row) - set(cls.__slots__):
        raise Timer1Error(f"{where}: unknown field {sorted(unknown)[0]!r} in a {what} row")
    try:
        made = cls(**{**row, "windows": [_window(window, edges) for window in row.get("windows", ())]})
    except (TypeError, ValueError, OverflowError) as error:
        raise Timer1Error(f"{where}: not a {what} row: {error}") from error
    for name in texts:
        if not isinstance(getattr(made, name), str):
            raise Timer1Error(f"{where}: {name!r} must be text")
    return made


def _check_numbers(row: object, names: tuple[str, ...], where: str) -> None:
    for name in names:
        value = getattr(row, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise Timer1Error(f"{where}: {name!r} must be a number or null")
        if isinstance(value, int) and abs(value) > LARGEST:
            raise Timer1Error(f"{where}: {name!r} is a number of more than 300 digits")


def finite(value: float | None) -> float | None:
    """`value`, or None where it is not a finite number (JSON has no NaN)."""
    return value if value is not None and math.isfinite(value) else None
