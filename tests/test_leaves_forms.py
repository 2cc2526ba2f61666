"""Forms: asking is exact, reading is total and reads what a person would read, what is written is read back."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from timer1lib import forms
from timer1lib.errors import Timer1Error
from timer1lib.forms import FORMS, MAX_CHARACTERS, READINGS, AnswerForm, Prompt, from_identity
from timer1lib.schema import Sample

THOUGHT = "<think>It sits down from 1 to 2.</think>"


@pytest.mark.parametrize(
    ("text", "name", "span", "form"),
    [
        (f"{THOUGHT}<answer>12.54 to 17.83</answer>", "timer1", (12.54, 17.83), True),
        (f"  {THOUGHT}\n<answer> 12.54 and 17.83 </answer>\n", "timer1", (12.54, 17.83), True),
        ("<answer>1 to 2</answer> no, <answer>3 to 4</answer>", "timer1", (3.0, 4.0), False),
        ("<answer>1 to 2, or rather 5.5 to 6</answer>", "timer1", (5.5, 6.0), False),
        (f"{THOUGHT}<answer>9 to 3</answer>", "timer1", (9.0, 3.0), True),
        (f"{THOUGHT}<answer>no idea</answer>", "timer1", None, True),
        ("from 1 to 2", "timer1", None, False),
        ("<answer>1 to 2", "timer1", None, False),
        ("1 to 2</answer>", "timer1", None, False),
        ("<answer>5 - 6</answer>", "timer1", None, False),
        ("<answer>4.0s to 6.5s</answer>", "timer1", None, False),  # the trainer's rule knows no unit
        ("<answer>4.0s to 6.5s</answer>", "plain", (4.0, 6.5), False),
        (f"{THOUGHT}{THOUGHT}<answer>1 to 2</answer>", "timer1", (1.0, 2.0), False),
        ("between 5 and 6, later 7.5 to 9", "timer1_eval", (7.5, 9.0), True),
        ("<answer>5 - 6</answer>", "timer1_eval", None, True),  # nor does the evaluation's know a dash
        ("<answer>5 - 6</answer>", "timelens", (5.0, 6.0), True),
        ("nothing", "timer1_eval", None, True),
        (f"{THOUGHT} <time>[1.5, 2.5]</time>", "tvg_r1", (1.5, 2.5), True),
        (f"{THOUGHT} \\boxed{{B}} <time>[1.5, 2.5]</time>", "tvg_r1", (1.5, 2.5), True),
        ("<time>1.5 to 2.5</time>", "tvg_r1", None, False),
        ("[1.5, 2.5]", "tvg_r1", None, False),
        ("The event happens in 3.2 - 4.8 seconds.", "timelens", (3.2, 4.8), True),
        ("[3.2, 4.8]", "timelens", (3.2, 4.8), True),
        # A number is read whole or not at all.
        ("<answer>1.3333333333333333 to 2.6666666666666665</answer>", "timer1", (4 / 3, 8 / 3), False),
        ("<answer>123456789012 to 5</answer>", "timer1", (123456789012.0, 5.0), False),
        ("<answer>123456789012 to 5</answer>", "plain", None, False),
        ("<answer>5 to 123456789012</answer>", "plain", None, False),
        (f"{THOUGHT}<answer>1 to 2</answer>", "brief", (1.0, 2.0), True),
        ("<answer>1 to 2</answer>", "timer1_direct", (1.0, 2.0), True),
        (f"{THOUGHT}<answer>1 to 2</answer>", "timer1_direct", (1.0, 2.0), False),
        (f"{THOUGHT} <time>[1.5, 2.5]</time> \\boxed{{B}}", "grounded_qa", (1.5, 2.5), True),
    ],
)
def test_by_hand(text: str, name: str, span: tuple[float, float] | None, form: bool) -> None:
    asked = FORMS["brief" if name == "plain" else name]
    found = asked.read(text)
    assert found == ([] if span is None else [pytest.approx(span)])
    assert asked.span(text) == (found[0] if found else None)
    assert asked.fits(text) is form


NONE = None
SAID = [
    # what stands in the block; ours; Time-R1's trainer; Time-R1's evaluation; timelens (ours, any notation)
    ("12.3 to 17.8", (12.3, 17.8), (12.3, 17.8), (12.3, 17.8), (12.3, 17.8)),
    ("12.3 TO 17.8", (12.3, 17.8), (12.3, 17.8), NONE, (12.3, 17.8)),
    ("00:12 to 00:17", (12, 17), (12, 0), (12, 0), (12, 17)),
    ("01:02:03.5 to 1:02:10", (3723.5, 3730), (3.5, 1), (3.5, 1), (3723.5, 3730)),
    ("00:12 - 00:17", NONE, NONE, NONE, (12, 17)),
    ("12:75 to 13:00", NONE, (75, 13), (75, 13), NONE),
    ("1:75:00 to 2:00:00", NONE, (0, 2), (0, 2), NONE),
    ("-5 to 10", NONE, (5, 10), (5, 10), NONE),
    ("5 to -10", NONE, NONE, NONE, NONE),
    ("−5 to 10", NONE, (5, 10), (5, 10), NONE),
    ("12,5 to 17,8", (12.5, 17.8), (5, 17), (5, 17), (12.5, 17.8)),
    ("1,234.5 to 1,240.0", (1234.5, 1240), (234.5, 1), (234.5, 1), (1234.5, 1240)),
    ("1,234 to 1,240", (1234, 1240), (234, 1), (234, 1), (1234, 1240)),
    ("1e1 to 2e1", (10, 20), (1, 2), (1, 2), (10, 20)),
    ("5 m 3 s to 5 m 10 s", (303, 310), NONE, NONE, (303, 310)),
    ("5m3s to 5m10s", (303, 310), NONE, NONE, (303, 310)),
    ("1 h 2 min to 1 h 3 min 5 s", (3720, 3785), NONE, NONE, (3720, 3785)),
    ("5 to 10 minutes", (300, 600), (5, 10), (5, 10), (300, 600)),
    ("5 minutes to 10 minutes", (300, 600), NONE, NONE, (300, 600)),
    ("4 secs to 6.5 secs", (4, 6.5), NONE, NONE, (4, 6.5)),
    ("4 seconds and 6.5 seconds", (4, 6.5), NONE, NONE, (4, 6.5)),
    (".5 to .9", (0.5, 0.9), NONE, NONE, (0.5, 0.9)),
    ("5. to 6.", NONE, (5, 6), (5, 6), NONE),
    ("10% to 20%", NONE, NONE, NONE, NONE),
    ("10 to 20 %", NONE, (10, 20), (10, 20), NONE),
    ("1 to 2, or -5 to 10", NONE, (5, 10), (5, 10), NONE),
    ("1 to 2 and no more", (1, 2), (1, 2), (1, 2), (1, 2)),
    ("1 to 2 to 3", (1, 2), (1, 2), (1, 2), (1, 2)),
    ("between 3 and 9", (3, 9), (3, 9), (3, 9), (3, 9)),
    ("1.2.3 to 4", NONE, (2.3, 4), (2.3, 4), NONE),
    ("4 to 1.2.3", NONE, (4, 1.2), (4, 1.2), NONE),
    ("12  to 17", (12, 17), NONE, NONE, (12, 17)),
    ("10 to 20 men", (10, 20), (10, 20), (10, 20), (10, 20)),
    ("[3,4]", NONE, NONE, NONE, (3, 4)),
    ("3.2-4.8", NONE, NONE, NONE, (3.2, 4.8)),
    ("-5 - 10", NONE, NONE, NONE, NONE),
]


@pytest.mark.parametrize(("said", "plain", "trainer", "evaluation", "any_notation"), SAID)
def test_times_as_people_write_them(said: str, plain: object, trainer: object, evaluation: object, any_notation: object) -> None:
    text = f"<think>so</think><answer>{said}</answer>"
    wanted = {"plain": plain, "timer1_direct": plain, "timer1": trainer, "timer1_eval": evaluation, "timelens": any_notation}
    for way, span in wanted.items():
        assert READINGS[way].read(text) == ([] if span is None else [pytest.approx(span)]), way
    assert FORMS["brief"].reading == READINGS["plain"]


PIECES_OF_TIMES = [
    "1",
    "23",
    ".",
    ".5",
    ",",
    ":",
    "-",
    "%",
    " ",
    "  ",
    " to ",
    " and ",
    "To",
    "e1",
    "s",
    " m ",
    "x",
    "<answer>",
    "</answer>",
]


@given(st.lists(st.sampled_from(PIECES_OF_TIMES), max_size=30).map("".join), st.booleans())
@settings(max_examples=300)
def test_the_published_rules_are_read_to_the_letter(inside: str, closed: bool) -> None:
    text = f"<answer>{inside}" + "</answer>" * closed
    number = r"(\d+(?:\.\d*)?)"
    blocks = re.findall("<answer>(.*?)</answer>", text, re.DOTALL)
    trainer = re.findall(f"{number} (?:to|and) {number}", blocks[-1], re.IGNORECASE) if blocks else []
    evaluation = re.findall(f"{number} (?:to|and) {number}", text)
    for way, pairs in (("timer1", trainer), ("timer1_eval", evaluation)):
        assert READINGS[way].read(text) == [(float(a), float(b)) for a, b in pairs[-1:]]


def clock_time(seconds: int) -> str:
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


@given(st.integers(0, 99_999), st.integers(0, 99_999))
@settings(max_examples=100)
def test_one_time_in_every_notation_is_one_time(start: int, end: int) -> None:
    def in_units(seconds: int) -> str:
        return f"{seconds // 3600} h {seconds // 60 % 60} min {seconds % 60} s"

    for write in (str, clock_time, in_units, "{:,}".format, "{:.1f} secs".format, lambda x: f"{x}s"):
        said = f"{write(start)} to {write(end)}"
        assert READINGS["plain"].read(f"<answer>{said}</answer>") == [(start, end)], said
        assert READINGS["timelens"].read(said) == [(start, end)], said


WAYS = st.builds(
    replace, st.sampled_from(list(READINGS.values())), counts=st.sampled_from(["last", "first"]), loose=st.booleans()
)


@given(st.text(max_size=300), WAYS)
@example("<answer>nan to inf</answer>", READINGS["timer1"])
@example("<answer>-5 to -3</answer>", READINGS["timer1"])
@example("\ud800<answer>1 to 2</answer>", READINGS["timer1"])
@example("<answer>٣ to ٤</answer>", READINGS["timer1"])
@example("</time><time>[1, 2]", replace(READINGS["tvg_r1"], counts="first"))
def test_any_text_gives_a_defined_result(text: str, way: forms.Reading) -> None:
    assert isinstance(way.fits(text), bool)
    found = way.read(text)
    assert len(found) <= 1
    assert all(math.isfinite(value) and value >= 0 for window in found for value in window)


PIECES = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "<time>",
    "</time>",
    "1 to 2",
    "[3, 4]",
    "5",
    ".",
    "-",
    " and ",
    "\n",
    "\\boxed{A}",
    "nan",
]


@given(st.lists(st.sampled_from(PIECES), max_size=40), WAYS)
def test_any_arrangement_of_tags_gives_a_defined_result(pieces: list[str], way: forms.Reading) -> None:
    text = "".join(pieces)
    assert len(way.read(text)) <= 1
    if way == READINGS["timer1"] and way.fits(text):
        # An independent statement of the form: the tags stand once each, in this order, with nothing outside.
        assert re.findall(r"</?(?:think|answer)>", text) == ["<think>", "</think>", "<answer>", "</answer>"]
        assert text.strip().startswith("<think>")
        assert text.strip().endswith("</answer>")
    if way.loose and way.way == "tvg_r1":
        assert way.fits(text) == bool(re.fullmatch("<think>.*</think>.*<time>.*</time>.*", text, re.DOTALL))
    if way.loose and way.way == "timer1":
        assert way.fits(text) == bool(re.fullmatch(r"<think>.*?</think>\s*<answer>.*?</answer>", text.strip(), re.DOTALL))
    if way.fits(text) and (way.way != "tvg_r1" or text.startswith("<think>")):  # TVG-R1's check takes no space before it
        assert replace(way, loose=True).fits(text), "what is in the strict form is in the loose one"


@pytest.mark.parametrize("counts", ["last", "first"])
@pytest.mark.parametrize("way", READINGS)
@pytest.mark.parametrize(
    "unit", ["1", "1.", "1 to ", "<answer>", "<think>", "<answer>1 to 2</answer>", " ", "1, ", "\\boxed{", "[1, ", "é", "1 s "]
)
def test_a_hundred_kilobytes_are_read_in_no_time(unit: str, way: str, counts: forms.reading.Counts) -> None:
    text = (unit * (100_000 // len(unit) + 1))[:100_000]
    reading = replace(READINGS[way], counts=counts)
    started = time.perf_counter()
    reading.read(text)
    assert reading.fits(text) is False, "a text this long has no form"
    assert time.perf_counter() - started < 1.0


def test_an_answer_at_the_end_of_a_long_text_is_found() -> None:
    text = "thinking " * MAX_CHARACTERS + "<answer>1.00 to 2.00</answer>"
    assert FORMS["timer1"].span(text) == (1.0, 2.0)


def test_the_first_answer_counts_where_a_form_says_so() -> None:
    text = "<think>a</think><time>[1, 2] [3, 4]</time> so <time>[5, 6]</time>"
    assert FORMS["tvg_r1"].span(text) == (5.0, 6.0)
    assert replace(READINGS["tvg_r1"], counts="first").read(text) == [(1.0, 2.0)]
    assert replace(READINGS["timelens"], counts="first").read("at 1 - 2, or 3 - 4 seconds") == [(1.0, 2.0)]
    assert FORMS["timelens"].span("at 1 - 2, or 3 - 4 seconds") == (3.0, 4.0)


@given(st.floats(0, 9_999, allow_nan=False), st.floats(0, 9_999, allow_nan=False))
@settings(max_examples=50)
def test_what_is_written_is_read_back(start: float, end: float) -> None:
    a, b = f"{start:.2f}", f"{end:.2f}"
    assert FORMS["timer1"].span(f"<think>so</think><answer>{a} to {b}</answer>") == (float(a), float(b))
    assert FORMS["tvg_r1"].span(f"<think>so</think><time>[{a}, {b}]</time>") == (float(a), float(b))
    assert FORMS["timelens"].span(f"{a} - {b} seconds") == (float(a), float(b))


OPTIONS = ["a cat", "a dog"]
LISTED = "What jumps?\nA. a cat\nB. a dog\n"
PLAIN = f"{LISTED}Answer with the letter of the right option only."
BOTH = (
    f"{LISTED}Reason between <think> and </think>, give the part of the video that shows the answer in seconds "
    "as <time>[12.54, 17.83]</time>, then the letter of the right option as \\boxed{A}."
)
FIND = (
    'Find the part of this video that shows: "A cat jumps". The video lasts 12.3 seconds. First think it through between '
    "<think> and </think>, naming the times you noticed. Then give start and end in seconds with two decimals, as "
    "<answer>12.54 to 17.83</answer>."
)


@pytest.mark.parametrize(
    ("name", "query", "question", "grounded"),
    [
        ("brief", "when: A cat jumps?", f"{LISTED}letter:", f"{LISTED}when, letter:"),
        ("timer1", FIND, PLAIN, BOTH),
        ("timer1_eval", FIND, PLAIN, BOTH),
        (
            "timer1_direct",
            'Find the part of this video that shows: "A cat jumps". The video lasts 12.3 seconds. '
            "Answer with start and end in seconds only, as <answer>12.54 to 17.83</answer>.",
            PLAIN,
            BOTH,
        ),
        (
            "tvg_r1",
            'When in this video does the following happen: "A cat jumps"? The video lasts 12.3 seconds. '
            "Reason between <think> and </think>, then answer in seconds as <time>[12.54, 17.83]</time>.",
            PLAIN,
            BOTH,
        ),
        (
            "timelens",
            'Give the time span of the event "A cat jumps" in seconds, as "12.5 - 17.8 seconds". Answer with the span alone.',
            PLAIN,
            BOTH,
        ),
        ("grounded_qa", None, BOTH, BOTH),
        ("brief_grounded", None, f"{LISTED}when, letter:", f"{LISTED}when, letter:"),
    ],
)
def test_what_is_asked_to_the_letter(name: str, query: str | None, question: str, grounded: str) -> None:
    form = FORMS[name]
    if query is not None:
        assert form.ask(" A cat jumps... ", 12.345) == Prompt(query)
    else:
        with pytest.raises(Timer1Error, match="no options"):
            form.ask("A cat jumps", 12.345)
    assert form.ask("What jumps?.", 9.0, ["x"]).text.startswith("What jumps??\nA. x\n"), "as it always was"
    assert form.ask("What jumps?", 9.0, OPTIONS) == Prompt(question)
    assert form.ask("What jumps?", None, OPTIONS, grounded=True) == Prompt(grounded)


def test_fields_are_filled_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("Q: {query} D: {duration} keep {this} \\boxed{}")
    form = forms.load(str(path))
    assert form.ask("who {duration}?.", 12.345).text == "Q: who {duration}? D: 12.3 keep {this} \\boxed{}"
    assert (form.reading, form.written) == (FORMS["timer1"].reading, FORMS["timer1"].written)
    assert "unknown" in FORMS["timer1"].ask("a", None).text
    assert FORMS["timer1"].ask("q", 1.0, ["{query}"]).text.startswith("q?\nA. {query}\n")


SAMPLE = Sample("1", "v", " A <cat>  jumps. ", 30.0, [(3.04, 9.96)])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("brief", "<think>seen from 3.0 to 10.0</think><answer>3.0 to 10.0</answer>"),
        (
            "timer1",
            "<think>The question is about: A (cat) jumps. From 0.00 to 3.04 seconds it does not happen yet. Then, in "
            "<timestep>3.04 to 9.96</timestep>, it happens. From 9.96 to 30.00 seconds it is over. So the moment lasts from "
            "3.04 to 9.96 seconds.</think><answer>3.04 to 9.96</answer>",
        ),
        ("timer1_direct", "<answer>3.04 to 9.96</answer>"),
        (
            "tvg_r1",
            "<think>The question is about: A (cat) jumps. From 0.00 to 3.04 seconds it does not happen yet. Then, from 3.04 to "
            "9.96 seconds, it happens. From 9.96 to 30.00 seconds it is over.</think> <time>[3.04, 9.96]</time>",
        ),
        ("timelens", "3.0 - 10.0 seconds"),
    ],
)
def test_what_is_written_to_the_letter(name: str, text: str) -> None:
    assert FORMS[name].write(SAMPLE, (3.04, 9.96)) == text
    assert FORMS[name].fits(text)


def test_questions_that_ask_for_the_window_are_answered_in_tvg_r1s_form() -> None:
    question = Sample("q", "v", "what?", options=OPTIONS, answer=0)
    for form in FORMS.values():
        assert form.of_sample(SAMPLE, grounded=True) is form
        assert form.of_sample(question, grounded=False) is form
        assert form.of_sample(question, grounded=True).reading == READINGS["tvg_r1"]
    with pytest.raises(Timer1Error, match="has no `write`"):
        FORMS["grounded_qa"].write(SAMPLE, (1.0, 2.0))


def test_published_prompts_can_be_said_in_a_file(tmp_path: Path) -> None:
    time_r1 = tmp_path / "time_r1.yaml"
    time_r1.write_text("ask: 'To locate: {query}'\nread: timer1\ntext_first: true\nlower_case: true\nfull_stop: last\n")
    assert forms.load(str(time_r1)).ask("A Cat jumps..", 3.0) == Prompt("To locate: a cat jumps.", None, text_first=True)
    tvg_r1 = tmp_path / "tvg_r1.yml"
    tvg_r1.write_text("ask: '{query}'\nsystem: Think first.\nread: tvg_r1\ncounts: first\nloose: true\nfull_stop: keep\n")
    form = forms.load(str(tvg_r1))
    assert form.ask("A cat.", 3.0) == Prompt("A cat.", "Think first.")
    assert form.ask("A cat?", 3.0, OPTIONS).system is None
    text = "<think>a</think> it is <time>[1, 2]</time>, no, <time>[3, 4]</time>"
    assert not form.fits(f"Well: {text}")
    assert form.span(text) == (1.0, 2.0)
    assert form.fits(text)
    assert not FORMS["tvg_r1"].fits(text)
    question = Sample("q", "v", "what?", options=OPTIONS, answer=0)
    assert form.of_sample(question, grounded=True).reading == form.reading


def test_a_form_counts_by_its_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    for path in (one, two):
        path.write_text("ask: 'where: {query}'\nread: brief\n")
    first = forms.load(str(one))
    assert first.identity() == forms.load(str(two)).identity()
    assert first.name == str(one)
    assert first.written == FORMS["brief"].written, "what a file leaves out is as in the form that it is read as"
    for form in (first, *FORMS.values()):
        assert from_identity(form.name, json.loads(json.dumps(form.identity()))) == form
    changes = {
        "lower_case: true", "text_first: true", "full_stop: last", "counts: first", "loose: true", "decimals: 3", "system: a",
        "write: '{start} {end}'", "question: '{query} {options}'", "grounded: '{query} {options}'",
    }  # fmt: skip
    seen = {json.dumps(first.identity())}
    for change in changes:
        two.write_text(f"ask: 'where: {{query}}'\nread: brief\n{change}\n")
        seen.add(json.dumps(forms.load(str(two)).identity()))
    assert len(seen) == len(changes) + 1
    with pytest.raises(Timer1Error, match="another version"):
        from_identity("x", {"reading": {}})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("aks: '{query}'", ["unknown field 'aks'", "did you mean 'ask'"]),
        ("zzz: 1", ["unknown field 'zzz'", "the fields are ask, system"]),
        ("ask: no field", ["`ask` needs the field {query}"]),
        ("question: '{query}'", ["`question` needs the field {options}"]),
        ("write: '<answer>{start}</answer>'", ["`write` needs the field {end}"]),
        ("write: '{start} {end} {mood}'", ["`write` has an unknown field {mood}"]),
        ("read: time_r1", ["'read' is one of", "timer1_eval", "given 'time_r1'"]),
        ("read: [timer1]", ["'read' is one of"]),
        ("counts: middle", ["'counts' is one of last, first"]),
        ("decimals: 9", ["'decimals' is 0 to 6"]),
        ("decimals: true", ["'decimals' must be a whole number"]),
        ("text_first: 1", ["'text_first' must be true or false"]),
        ("ask: 5", ["'ask' must be text"]),
        ("- a", ["a form file is a mapping"]),
        ("ask: '{query}'\nask: '{query}'", ["'ask' stands twice"]),
        ("ask: {", ["not YAML"]),
    ],
)
def test_mistakes_in_a_form_file_are_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(text)
    with pytest.raises(Timer1Error) as caught:
        forms.load(str(path))
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message


def test_a_form_that_is_not_there(tmp_path: Path) -> None:
    for bad in ("timer2", "x" * 5000, "a\0b", str(tmp_path)):
        with pytest.raises(Timer1Error, match="form "):
            forms.load(bad)
    with pytest.raises(Timer1Error, match="did you mean 'timer1_direct'"):
        forms.load("timer1_drect")
    (tmp_path / "t.txt").write_text("no field")
    with pytest.raises(Timer1Error, match=r"needs the field \{query\}"):
        forms.load(str(tmp_path / "t.txt"))
    (tmp_path / "t.txt").write_bytes(b"\xff\xfe{query}")
    with pytest.raises(Timer1Error, match="cannot be read"):
        forms.load(str(tmp_path / "t.txt"))
    assert all(isinstance(form, AnswerForm) and forms.load(name) is form for name, form in FORMS.items())


@pytest.mark.parametrize("text", ["96 to 140 ms", "96 ms to 140 ms", "0.1 to 0.2 milliseconds"])
def test_milliseconds_are_not_read_as_minutes(text: str) -> None:
    assert FORMS["brief"].read(f"<think>a</think><answer>{text}</answer>") == []
