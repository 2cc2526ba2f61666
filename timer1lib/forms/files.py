"""Answer forms from files: YAML with the fields of `_FIELDS`, plain text that is what is asked, or functions in Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from timer1lib import ideas
from timer1lib.errors import Timer1Error, did_you_mean, shown
from timer1lib.files import read_yaml, resolve
from timer1lib.forms.form import FIELD, FORMS, AnswerForm, FullStop, Prompt
from timer1lib.forms.reading import Counts, Reading
from timer1lib.schema import Sample, Window


def load(name: str) -> AnswerForm:
    """A named form, or one from a file.

    A file is YAML (.yaml, .yml), Python (`ideas/mine.py:name`, an `OwnForm`, tried at once), or plain text that is asked and
    whose answers are read as `timer1`'s are.

    Raises:
        Timer1Error: neither a form's name nor a file; a file that gives no form.
    """
    if name in FORMS:
        return FORMS[name]
    if ideas.is_reference(name):
        return _from_python(name)
    try:
        path = resolve(name)
        known = path.is_file()
        text = path.read_text() if known and path.suffix not in (".yaml", ".yml") else ""
    except (OSError, ValueError) as error:
        raise Timer1Error(f"form {shown(name)}: cannot be read: {error}") from error
    if not known:
        hint = did_you_mean(name, FORMS)
        raise Timer1Error(f"form {shown(name)}: neither a file nor one of {', '.join(FORMS)}{f'; {hint}' if hint else ''}")
    if path.suffix == ".py":
        raise Timer1Error(f"form {shown(name)}: which of the file's names it is comes behind a colon: {name}:mine")
    if path.suffix in (".yaml", ".yml"):
        return _from_fields(name, read_yaml(path, "form"), path)
    return _from_fields(name, {"ask": text}, path)


def from_identity(name: str, identity: Mapping[str, Any]) -> AnswerForm:
    """The form that `AnswerForm.identity` was taken of; `metrics.json` holds one, so that its file may be gone.

    A form in Python is its file: a Timer1Error where that is gone, or says something else by now. It is run only where it
    is the one that was meant.
    """
    if "python" in identity:
        if ideas.identity(name) != identity["python"]:
            raise Timer1Error(f"form {shown(name)}: the file is gone or says something else than when its answers were read")
        return _from_python(name)
    try:
        return AnswerForm(name=name, **{**identity, "reading": Reading(**identity["reading"])})
    except (TypeError, KeyError) as error:
        raise Timer1Error(f"form {shown(name)}: written by another version: {error}") from error


@dataclass(frozen=True, slots=True)
class OwnForm:
    """An answer form of one's own, in Python: `mine = OwnForm(ask, read, write)` in a file, and `shared.form: "file.py:mine"`.

    Attributes:
        ask: (query, video's length in seconds or None) -> what is asked.
        read: (completion, length) -> the segments (start, end) in seconds that it answers, none where it answers none. Any
            text may come.
        write: (sample, window) -> a completion that answers the window, for SFT to imitate.
        fits: whether a whole completion has the form, the reward `format`; where it is left out, whether a segment is read.
        system: the system message.
        text_first: the text stands before the video.
    """

    ask: Callable[[str, float | None], str]
    read: Callable[[str, float | None], Sequence[Window]]
    write: Callable[[Sample, Window], str] | None = None
    fits: Callable[[str], bool] | None = None
    system: str | None = None
    text_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _PythonForm(AnswerForm):
    """`duration` is that of the sample whose answers are read. Questions are asked as every form asks them."""

    own: OwnForm
    digest: str
    duration: float | None = None

    def ask(self, query: str, duration: float | None, options: Sequence[str] | None = None, *, grounded: bool = False) -> Prompt:
        if options is not None:
            return AnswerForm.ask(self, query, duration, options, grounded=grounded)
        return Prompt(self._text("ask", query, duration), self.system, self.text_first)

    def of_sample(self, sample: Sample, *, grounded: bool) -> AnswerForm:
        if grounded and sample.is_question:
            return FORMS["grounded_qa"]
        return replace(self, duration=sample.duration)

    def read(self, text: str) -> list[Window]:
        where = f"on {shown(text)}"
        found = self._given("read", where, text, self.duration)
        try:
            spans = [(float(start), float(end)) for start, end in found]
        except (TypeError, ValueError):
            raise Timer1Error(f"form {self.name}: read gives {shown(found)}, no list of (start, end), {where}") from None
        return [span for span in spans if all(map(math.isfinite, span))]

    def fits(self, text: str) -> bool:
        return bool(self.read(text) if self.own.fits is None else self._given("fits", f"on {shown(text)}", text))

    def write(self, sample: Sample, window: Window) -> str:
        return self._text("write", sample, window) if self.own.write else AnswerForm.write(self, sample, window)

    def identity(self) -> dict[str, Any]:
        return {"python": self.digest}

    def _given(self, part: str, where: str, *arguments: Any) -> Any:
        return ideas.attempt(getattr(self.own, part), arguments, f"form {self.name}: {part}", where)

    def _text(self, part: str, *arguments: Any) -> str:
        if not isinstance(text := self._given(part, f"on {shown(arguments[0])}", *arguments), str) or not text.strip():
            raise Timer1Error(f"form {self.name}: {part} gives {shown(text)}, no text")
        return text


TRIED = Sample("a", "a.mp4", "a dog runs", 10.0, [(3.0, 6.0)])


def _from_python(name: str) -> AnswerForm:
    """The form that `path.py:name` names, tried on a made-up sample."""
    idea = ideas.find(name, "form")
    own = idea.function
    if not isinstance(own, OwnForm):
        raise Timer1Error(f"form {name}: must be an OwnForm(ask, read, write) (given {shown(own)}); see docs/ideas.md")
    for part, count in (("ask", 2), ("read", 2), ("write", 2), ("fits", 1)):
        if getattr(own, part) is not None:
            ideas.check_takes(getattr(own, part), count, f"form {name}: {part}")
    form = _PythonForm(
        name=name,
        asked="",
        reading=Reading(name.replace("\\", "/").rpartition("/")[2]),
        system=own.system,
        text_first=own.text_first,
        written="in Python" if own.write else "",
        decimals=0,  # what it writes is read back to half a second
        own=own,
        digest=idea.identity,
    )
    for known in (form, replace(form, duration=TRIED.duration)):
        known.ask(TRIED.query, known.duration)
        for text in ("", "no answer", "<answer>3.0 to 6.0</answer>"):
            known.fits(text), known.read(text)
    if own.write:
        text = form.write(TRIED, TRIED.window)
        read = known.span(text)
        if read is None or max(abs(read[0] - TRIED.window[0]), abs(read[1] - TRIED.window[1])) > 0.51:
            raise Timer1Error(f"form {name}: what it writes for 3 to 6 s is read as {read}: {shown(text, 100)}")
    return form


_FIELDS: dict[str, type | tuple[str, ...]] = {
    **dict.fromkeys(("ask", "system", "question", "grounded", "write"), str),
    **dict.fromkeys(("text_first", "lower_case", "loose"), bool),
    **{"decimals": int, "read": tuple(FORMS), "full_stop": get_args(FullStop), "counts": get_args(Counts)},
}
"""Fields of a form file. What it leaves out is as in the form that `read` names (timer1 where that is left out too)."""


def _from_fields(name: str, fields: Any, path: Path) -> AnswerForm:
    if not isinstance(fields, dict):
        raise Timer1Error(f"{path}: a form file is a mapping with fields such as ask and read")
    for field, value in fields.items():
        if field not in _FIELDS:
            hint = did_you_mean(str(field), _FIELDS, cutoff=0.4) or f"the fields are {', '.join(_FIELDS)}"
            raise Timer1Error(f"{path}: unknown field {field!r}; {hint}")
        _check_type(path, field, value)
    base = FORMS[fields.get("read", "timer1")]
    reading = replace(base.reading, **{key: fields[key] for key in ("counts", "loose") if key in fields})
    names = {"ask": "asked", "write": "written"}
    given = {names.get(str(key), str(key)): value for key, value in fields.items() if key not in ("read", "counts", "loose")}
    if "{options}" in fields.get("ask", ""):
        given = {"question": fields["ask"], "grounded": fields["ask"], **given}
    form = replace(base, name=name, reading=reading, **given)
    for key, text, needed in (
        ("ask", form.asked, {"query"}),
        ("question", form.question, {"query", "options"}),
        ("grounded", form.grounded, {"query", "options"}),
        ("write", form.written, {"start", "end"} if form.written else set()),
    ):
        missing = sorted(needed - set(FIELD.findall(text)))
        if missing:
            raise Timer1Error(f"{path}: `{key}` needs the field {{{missing[0]}}}")
    unknown = sorted(set(FIELD.findall(form.written)) - {"start", "end", "duration", "query", "before", "after"})
    if unknown:
        raise Timer1Error(f"{path}: `write` has an unknown field {{{unknown[0]}}}")
    return form


def _check_type(path: Path, field: str, value: Any) -> None:
    wanted = _FIELDS[field]
    if isinstance(wanted, tuple):
        if value not in wanted:
            raise Timer1Error(f"{path}: {field!r} is one of {', '.join(wanted)} (given {shown(value)})")
    elif not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        words = {str: "text", bool: "true or false", int: "a whole number"}
        raise Timer1Error(f"{path}: {field!r} must be {words[wanted]} (given {shown(value)})")
    elif isinstance(value, int) and not isinstance(value, bool) and not 0 <= value <= 6:
        raise Timer1Error(f"{path}: 'decimals' is 0 to 6 (given {value})")
