"""Answer forms and audit checks of one's own, one file divided into train and test, and rows without a duration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from make_videos import write_video

from timer1lib import forms
from timer1lib.cli import main
from timer1lib.data.audit import audit_files
from timer1lib.data.coldstart import from_form
from timer1lib.errors import Timer1Error
from timer1lib.evaluation.scored import join
from timer1lib.files import read_json, read_jsonl
from timer1lib.params.load import load_params, validated
from timer1lib.params.sections import CurateParams, Params, SharedParams
from timer1lib.rewards import REWARDS, RewardInput
from timer1lib.rules import Audited, parse_checks
from timer1lib.runfolder import RunFolder
from timer1lib.runs.graph import STAGES, find_stage
from timer1lib.runs.keys import given_parameters, input_files
from timer1lib.schema import Prediction, Sample
from timer1lib.stages import Stage, curate

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = Sample("a", "a.mp4", "a dog runs", 20.0, [(5.0, 10.0)])
FORM = """from timer1lib.forms import OwnForm
def ask(query, duration): return f"when: {query}"
def read(text, duration): return [(3.0, 6.0)] if "3" in text else []
def write(sample, window): return f"{window[0]} to {window[1]}"
other = 1
mine = OwnForm(ask, read, write)
"""


def wrong(tmp_path: Path, override: str) -> str:
    params = tmp_path / "p.yaml"
    params.write_text("name: x")
    with pytest.raises(Timer1Error) as caught:
        load_params(params, [override])
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------ answer forms


def test_the_shipped_form_asks_reads_and_writes_percent() -> None:
    form = forms.load("ideas/percent.py:percent")
    assert form.ask("a dog runs", 20.0).text == "when, in percent: a dog runs?"
    (row,) = from_form([SAMPLE], form)
    assert row["completion"] == "from 25.0% to 50.0%"
    assert form.span(row["completion"]) is None, "nobody knows how long the video is"
    x = RewardInput.of("it runs, from 10% to 20%, no: from 25% to 45%", SAMPLE, form)
    assert x.span == pytest.approx((5.0, 9.0))
    assert REWARDS["iou"](x) == pytest.approx(4 / 5)
    assert [REWARDS["format"](RewardInput.of(text, SAMPLE, form)) for text in (row["completion"], "12.0 to 15.0")] == [1.0, 0.0]
    scored = join([SAMPLE], [Prediction("a", 5.0, 9.0, "from 25% to 45%")], form)
    assert scored.form.tolist() == [True]


def test_questions_are_asked_as_every_form_asks_them() -> None:
    form = forms.load("ideas/percent.py:percent")
    question = Sample("q", "a.mp4", "What runs?", 20.0, [(5.0, 10.0)], options=["a dog", "a cat"], answer=0)
    assert "A. a dog" in form.ask(question.query, 20.0, question.options).text
    assert form.of_sample(question, grounded=True).span("<think>x</think> <time>[5.0, 10.0]</time>") == (5.0, 10.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (FORM.replace("mine =", "yours ="), ["no 'mine'"]),
        (FORM.replace("OwnForm(ask, read, write)", "ask"), ["must be an OwnForm"]),
        (FORM.replace("def ask(query, duration)", "def ask(query)"), ["mine: ask", "takes two arguments"]),
        (FORM.replace('f"when: {query}"', "None"), ["ask gives None, no text"]),
        (FORM.replace("if \"3\" in text else []", "if \"3\" in text else None"), ["read gives None", "on ''"]),
        (FORM.replace("return [(3.0, 6.0)]", "return [(3.0,)]"), ["read gives [(3.0,)], no list of (start, end)"]),
        (FORM.replace('"3" in text', 'text[0] == "3"'), ["mine: read, line 3: IndexError", "on ''"]),
        (FORM.replace("{window[0]} to", "{window[0] + 1} to").replace('"3" in', '"3." in'), ["what it writes", "read as None"]),
    ],
)  # fmt: skip
def test_a_wrong_form_is_one_line_when_parameters_are_loaded(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "f.py").write_text(text)
    said = wrong(tmp_path, f"shared.form={tmp_path}/f.py:mine")
    assert all(word in said for word in words), said


def test_a_form_is_named_behind_its_file(tmp_path: Path) -> None:
    assert "comes behind a colon" in wrong(tmp_path, "shared.form=ideas/percent.py")
    assert "no such file" in wrong(tmp_path, "shared.form=ideas/none.py:mine")


def test_an_edit_of_a_form_is_known_to_what_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "f.py"

    def marks() -> Mapping[str, Any]:
        params = Params.model_validate({"shared": {"form": f"{path}:mine"}})
        return {stage.name: input_files(given_parameters(params, stage)).get("form") for stage in STAGES}

    path.write_text(FORM)
    before, form = marks(), forms.load(f"{path}:mine")
    assert {name for name, mark in before.items() if mark} == {"curate", "sft", "difficulty", "grpo", "evaluate", "inspect"}
    path.write_text(FORM.replace("other = 1", "other = 2  # beside it"))
    assert marks() == before
    assert forms.from_identity(form.name, form.identity()).span("3") == (3.0, 6.0)
    path.write_text(FORM.replace("(3.0, 6.0)", "(3.0, 6.4)"))
    assert all(mark != before[name] for name, mark in marks().items() if mark)
    assert forms.load(f"{path}:mine").identity() != form.identity()
    with pytest.raises(Timer1Error, match="says something else"):
        forms.from_identity(form.name, form.identity())


# ------------------------------------------------------------------------------------------------------------ audit checks


def still(path: Path, seconds: int = 4) -> None:
    """A grey picture for all the time."""
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 256, 64, "yuv420p"
        for _ in range(10 * seconds):
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 256, 3), 90, np.uint8), format="rgb24")))
        sink.mux(stream.encode())


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of 4 to 4.7 s whose pictures change, one whose pictures do not, and a CSV that names no durations."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "clips").mkdir()
    for i in range(8):
        write_video(folder / "clips" / f"bars{i}.mp4", [100 * k for k in range(40 + i)], size=(64, 256))
    still(folder / "clips" / "still.mp4")
    rows = [f"bars{i}.mp4,{0.2 * i:.1f},{0.2 * i + 2:.1f},bars {i} flash" for i in range(8)]
    rows += [f"bars{i}.mp4,1.0,3.0,the stripes change for the {i} time" for i in range(8)]
    rows[3] = "bars3.mp4,3.0,1.0,bars three and then four flash"
    rows[5] = "bars5.mp4,1.0,9.0,bars five flash"
    (folder / "mine.csv").write_text("\n".join(["video,start,end,query", *rows, "still.mp4,0.5,2.0,nothing moves"]) + "\n")
    return folder


def stage(folder: Path, out: Path, **params: Any) -> Stage[CurateParams]:
    shared = SharedParams(cache_dir=str(out / "cache"), frames=8, workers=0)
    given = {"source": "files", "train_files": str(folder / "mine.csv"), "videos": str(folder / "clips"), **params}
    return Stage("curate", RunFolder(out / "run"), shared, validated(CurateParams, given, "params.yaml"))


def test_what_a_check_of_ones_own_finds_are_rows_by_its_name(clips: Path, tmp_path: Path) -> None:
    check = "ideas/my_check.py:too_still:drop, ideas/my_check.py:two_events"
    report = audit_files([clips / "mine.csv"], videos=clips / "clips", checks=parse_checks(check))
    assert report.findings == {"past_end": 1, "reversed": 1, "no_duration": 17, "too_still": 1, "two_events": 1}
    assert report.rows == {"in": 17, "kept": 14, "repaired": 2, "dropped": 1}
    assert report.dropped_by == {"too_still": 1}
    still, events = (next(f for f in report.details if f.code == code) for code in ("too_still", "two_events"))
    assert (still.row, still.line, still.repair, events.row, events.repair) == (17, 18, "drop", 4, "keep")
    assert "warning too_still: 1  (drop 1)  Nothing moves in the video" in str(report)
    assert report.to_json()["treatments"] | {"past_end": "", "reversed": "", "no_duration": ""} == {
        "past_end": "", "reversed": "", "no_duration": "", "too_still": "drop", "two_events": "keep",
    }  # fmt: skip


def test_rows_without_a_duration_are_one_finding_and_take_the_files(clips: Path) -> None:
    report = audit_files([clips / "mine.csv"], videos=clips / "clips")
    (finding,) = [finding for finding in report.details if finding.code == "no_duration"]
    assert (finding.count, finding.row, report.findings["no_duration"]) == (17, None, 17)
    assert str(report).count("duration") == 3, "the code, its meaning, one line"
    durations = [sample.duration for sample in next(iter(report.samples.values()))]
    assert durations[:3] == pytest.approx([3.94, 4.04, 4.14])  # to the end of the last frame, 40 ms after it begins
    alone = audit_files([clips / "mine.csv"])
    assert "0 of them" in str(alone)
    assert alone.rows["kept"] == 16
    dropped = audit_files([clips / "mine.csv"], treatments={"no_duration": "drop"})
    assert (dropped.rows["dropped"], dropped.dropped_by) == (17, {"no_duration": 17})


def test_an_empty_cell_of_a_csv_is_no_duration_too(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("video,start,end,query,duration\na.mp4,1,2,one runs,\nb.mp4,1,2,two run,9\nc.mp4,1,2,three run,\n")
    report = audit_files([path])
    assert (report.findings, report.rows["kept"]) == ({"no_duration": 2}, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ideas/none.py:f", ["no such file"]),
        ("ideas/my_check.py:too_stil", ["no 'too_stil'", "did you mean 'too_still'"]),
        ("ideas/my_check.py:too_still:clip", ["kept or dropped", "'clip'"]),
        ("too_still", ["ideas/my_check.py:name"]),
        ("{0}:two", ["takes one argument"]),
        ("{0}:number", ["gives 3, neither text nor None", "row 'a'"]),
        ("{0}:fails", ["line 3: AttributeError", "row 'a'"]),
        ("{0}:question", ["line 4: IndexError", "row 'b'"]),
    ],
)
def test_a_wrong_check_is_one_line_when_parameters_are_loaded(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "c.py"
    path.write_text("def two(a, b): return ''\ndef number(row): return 3\ndef fails(row): return row.qery\n")
    path.write_text(path.read_text() + "def question(row): return str(row.windows[0])\n")
    said = wrong(tmp_path, f"curate.checks={text.format(path)}")
    assert all(word in said for word in words), said


def test_a_check_that_fails_names_the_row_and_needs_videos_for_pictures(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text("def f(row): return str(1 / (len(row.query) - 12)) if row.windows else ''")
    with pytest.raises(Timer1Error, match=r"c.py:f, line 1: ZeroDivisionError.*row 'bars0#0'"):
        audit_files([clips / "mine.csv"], checks=parse_checks(f"{tmp_path}/c.py:f"))
    with pytest.raises(Timer1Error, match="no videos to look at"):
        audit_files([clips / "mine.csv"], checks=parse_checks("ideas/my_check.py:too_still"))
    (tmp_path / "c.py").write_text("def duplicate(row): return ''")
    with pytest.raises(Timer1Error, match="audit's own findings"):
        audit_files([clips / "mine.csv"], checks=parse_checks(f"{tmp_path}/c.py:duplicate"))


def test_an_edit_of_a_check_runs_01_again(tmp_path: Path) -> None:
    path = tmp_path / "c.py"
    path.write_text("LEAST = 3\ndef short(row):\n    return 'short' if len(row.query) < LEAST else ''\n")
    given = given_parameters(Params.model_validate({"curate": {"checks": f"{path}:short:drop"}}), find_stage("curate"))
    before = input_files(given)["checks"]
    path.write_text("# remark\n" + path.read_text())
    assert input_files(given)["checks"] == before
    path.write_text(path.read_text().replace("= 3", "= 4"))
    assert input_files(given)["checks"] != before


def test_a_cell_gives_a_check_and_it_is_written_down(clips: Path, tmp_path: Path) -> None:
    def long_query(row: Audited) -> str:
        return "too long" if len(row.query) > 25 else ""

    opened = stage(clips, tmp_path)
    report = curate.audit(opened, curate.gather(opened), checks={"long_query": (long_query, "drop")})
    assert report.dropped_by == {"long_query": 9}
    assert opened.params.checks == f"{opened.run.root}/ideas/long_query.py:long_query:drop"
    assert read_json(opened.run.data("audit.json"))["findings"]["long_query"] == 9


# ------------------------------------------------------------------------------------------------------------ one file, two splits


def test_split_divides_by_video_and_repairs_both_sides(clips: Path, tmp_path: Path) -> None:
    def parts(seed: int = 0, share: float = 0.75) -> dict[str, list[dict[str, Any]]]:
        opened = stage(clips, tmp_path / f"{seed}{share}", split=share)
        opened = Stage("curate", opened.run, opened.shared.model_copy(update={"seed": seed}), opened.params)  # type: ignore[arg-type]
        sources = curate.gather(opened)
        splits = curate.write_splits(opened, sources, curate.audit(opened, sources))
        assert list(splits) == ["train", "test"]
        return {name: list(read_jsonl(opened.run.data(name))) for name in splits}

    rows = parts()
    videos = {name: {row["video"] for row in found} for name, found in rows.items()}
    assert (len(videos["train"]), len(videos["test"])) == (7, 2)  # of nine videos, round(0.75 * 9)
    assert not videos["train"] & videos["test"]
    every = {row["id"]: row for found in rows.values() for row in found}
    assert len(every) == 17
    assert every["bars3#0"]["windows"] == [[1.0, 3.0]]
    assert every["bars5#0"]["windows"][0][1] == pytest.approx(4.44)
    assert parts() == rows
    assert any({row["video"] for row in parts(seed)["test"]} != videos["test"] for seed in (1, 2))
    assert {row["video"] for row in parts(share=0.5)["train"]} < videos["train"], "a smaller share is a part of it"


def test_split_needs_two_videos_and_files(tmp_path: Path) -> None:
    assert "needs source=files" in wrong(tmp_path, "curate.split=0.8")
    assert "less than or equal to 1" in wrong(tmp_path, "curate.split=1.5")
    (tmp_path / "mine.csv").write_text("video,start,end,query\na.mp4,1,2,one runs\na.mp4,2,3,two run\n")
    (tmp_path / "clips").mkdir()
    with pytest.raises(Timer1Error, match="divides videos, and there is 1"):
        curate.gather(stage(tmp_path, tmp_path, split=0.5))


def test_the_command_takes_checks_too(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(clips / "mine.csv"), "--checks", "ideas/my_check.py:two_events:drop"]) == 0
    assert "two_events: 1  (drop 1)" in capsys.readouterr().out
    assert main(["audit", str(clips / "mine.csv"), "--checks", "ideas/my_check.py:none"]) == 2
    assert "has no 'none'" in capsys.readouterr().err
