"""The form of an answer: how it is asked for, how SFT's examples write it, how it is read, and when a text fits it.

A form has a name (`FORMS`) or is a file (`forms.files`), which may bring a published checkpoint's own prompt; our named
forms have our own wording.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from timer1lib.errors import Timer1Error
from timer1lib.forms.reading import READINGS, Reading, list_options
from timer1lib.schema import Sample, Window

FullStop = Literal["keep", "last", "all"]

QUESTION = "{query}?\n{options}\nAnswer with the letter of the right option only."
GROUNDED = (
    "{query}?\n{options}\nReason between <think> and </think>, give the part of the video that shows the answer in seconds "
    "as <time>[12.54, 17.83]</time>, then the letter of the right option as \\boxed{A}."
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked about one video."""

    text: str
    system: str | None = None
    text_first: bool = False
    """Whether the text stands before the video."""


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """How an answer is asked, written, read and held against its form.

    Attributes:
        name: a name of `FORMS`, or the file it comes from.
        asked: text with the fields {query}, {duration} (seconds, one decimal) and, for questions alone, {options}. Nothing
            else in braces is touched, so a text may hold `\\boxed{}`.
        reading: how a completion is read, and which form the whole of it must have.
        system: the system message; None leaves it to the model's chat template. Questions are asked without it.
        text_first: the text stands before the video.
        lower_case: the query is put in lower case.
        full_stop: which full stops at the query's end go: none, the last one, or all.
        question: wording of a multiple-choice question, asked for its letter alone.
        grounded: wording of one that is asked for the time span as well, answered in TVG-R1's form.
        written: a completion to imitate: {start}, {end}, {duration} (seconds), {query}, and {before} and {after}, sentences
            that name the time ranges in which the event is not seen; empty where SFT cannot be taught by it.
        decimals: digits of the times written.
    """

    name: str
    asked: str
    reading: Reading
    system: str | None = None
    text_first: bool = False
    lower_case: bool = False
    full_stop: FullStop = "all"
    question: str = QUESTION
    grounded: str = GROUNDED
    written: str = ""
    decimals: int = 2

    def ask(self, query: str, duration: float | None, options: Sequence[str] | None = None, *, grounded: bool = False) -> Prompt:
        """What is asked about a query, or about a question with options (`grounded`: for its time span as well).

        `duration` is in seconds, None where it is not known. A form that asks for options needs them: Timer1Error.
        """
        shown = "unknown" if duration is None else f"{duration:.1f}"
        if options is None:
            if "{options}" in self.asked:
                raise Timer1Error(f"form {self.name!r} asks multiple-choice questions; the query {query[:60]!r} has no options")
            filled = _fill({"query": self._query(query), "duration": shown})
            system = None if self.system is None else filled(self.system)
            return Prompt(filled(self.asked), system, self.text_first)
        values = {"query": self._query(query.rstrip("?")), "duration": shown, "options": list_options(options)}
        return Prompt(_fill(values)(self.grounded if grounded else self.question), None, self.text_first)

    def of_sample(self, sample: Sample, *, grounded: bool) -> AnswerForm:
        """The form of a sample's answer: this one, but TVG-R1's for a question that is asked for its time span too."""
        if not (grounded and sample.is_question):
            return self
        reading = self.reading if self.reading.way == "tvg_r1" else READINGS["tvg_r1"]
        return replace(self, reading=reading, asked=self.grounded, question=self.grounded, written="")

    def read(self, text: str) -> list[Window]:
        """The segments in seconds that a completion answers; today at most one. Total: any text is read."""
        return self.reading.read(text)

    def span(self, text: str) -> Window | None:
        """The first segment of `read`, None where there is none."""
        return next(iter(self.read(text)), None)

    def fits(self, text: str) -> bool:
        """Whether a whole completion has the form: Time-R1's r_form. Total."""
        return self.reading.fits(text)

    def write(self, sample: Sample, window: Window) -> str:
        """A completion that answers `window` (seconds), for SFT to imitate; a Timer1Error where the form has no `write`."""
        if not self.written:
            raise Timer1Error(f"form {self.name!r} has no `write`: give it one, or set curate.cold_start to annotations or none")

        def number(value: float) -> str:
            return f"{value:.{self.decimals}f}"

        start, end = window
        before = f"From {number(0)} to {number(start)} seconds it does not happen yet. " if start > 0.5 else ""
        after = ""
        if sample.duration is not None and sample.duration - end > 0.5:
            after = f"From {number(end)} to {number(sample.duration)} seconds it is over. "
        values = {
            "start": number(start),
            "end": number(end),
            "duration": "unknown" if sample.duration is None else number(sample.duration),
            "query": " ".join(sample.query.split()).rstrip(".").replace("<", "(").replace(">", ")"),
            "before": before,
            "after": after,
        }
        return _fill(values)(self.written).replace(" </think>", "</think>")

    def identity(self) -> dict[str, Any]:
        """Everything but the name, as plain JSON: what a key or a ledger holds, so that a form file counts by its content."""
        return {key: value for key, value in asdict(self).items() if key != "name"}

    def _query(self, query: str) -> str:
        text = query.strip()
        if self.full_stop != "keep":
            text = text.rstrip(".") if self.full_stop == "all" else text.removesuffix(".")
        return text.lower() if self.lower_case else text


_TIMER1 = AnswerForm(
    name="timer1",
    asked=(
        'Find the part of this video that shows: "{query}". The video lasts {duration} seconds. '
        "First think it through between <think> and </think>, naming the times you noticed. "
        "Then give start and end in seconds with two decimals, as <answer>12.54 to 17.83</answer>."
    ),
    reading=READINGS["timer1"],
    written=(
        "<think>The question is about: {query}. {before}Then, in <timestep>{start} to {end}</timestep>, it happens. "
        "{after}So the moment lasts from {start} to {end} seconds.</think><answer>{start} to {end}</answer>"
    ),
)
_BRIEF = AnswerForm(
    name="brief",
    asked="when: {query}?",
    reading=READINGS["plain"],
    question="{query}?\n{options}\nletter:",
    grounded="{query}?\n{options}\nwhen, letter:",
    written="<think>seen from {start} to {end}</think><answer>{start} to {end}</answer>",
    decimals=1,
)

FORMS: dict[str, AnswerForm] = {
    form.name: form
    for form in (
        _BRIEF,
        _TIMER1,
        replace(_TIMER1, name="timer1_eval", reading=READINGS["timer1_eval"]),
        AnswerForm(
            name="timer1_direct",
            asked=(
                'Find the part of this video that shows: "{query}". The video lasts {duration} seconds. '
                "Answer with start and end in seconds only, as <answer>12.54 to 17.83</answer>."
            ),
            reading=READINGS["timer1_direct"],
            written="<answer>{start} to {end}</answer>",
        ),
        AnswerForm(
            name="tvg_r1",
            asked=(
                'When in this video does the following happen: "{query}"? The video lasts {duration} seconds. '
                "Reason between <think> and </think>, then answer in seconds as <time>[12.54, 17.83]</time>."
            ),
            reading=READINGS["tvg_r1"],
            written=(
                "<think>The question is about: {query}. {before}Then, from {start} to {end} seconds, it happens. "
                "{after}</think> <time>[{start}, {end}]</time>"
            ),
        ),
        AnswerForm(
            name="timelens",
            asked=('Give the time span of the event "{query}" in seconds, as "12.5 - 17.8 seconds". Answer with the span alone.'),
            reading=READINGS["timelens"],
            written="{start} - {end} seconds",
            decimals=1,
        ),
        AnswerForm("grounded_qa", GROUNDED, READINGS["tvg_r1"], question=GROUNDED),
        AnswerForm("brief_grounded", _BRIEF.grounded, READINGS["tvg_r1"], question=_BRIEF.grounded, grounded=_BRIEF.grounded),
    )
}
"""Named forms. `brief` is the embedded tiny model's; `timer1_eval` is `timer1` read as Time-R1's evaluation script does."""


FIELD = re.compile(r"\{(\w+)\}")


def _fill(values: Mapping[str, str]) -> Callable[[str], str]:
    """A function that puts the values in the place of their fields, and touches nothing else."""
    return lambda text: FIELD.sub(lambda match: values.get(match[1], match[0]), text)
