"""Every published layout, on small files of our own making with the values worked out by hand."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from timer1lib.data.readers import FORMATS, ReadResult, hub_samples, read_annotations
from timer1lib.data.readers.scan import Broken
from timer1lib.data.readers.source import open_source
from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_jsonl
from timer1lib.schema import Sample


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def only(result: ReadResult) -> Sample:
    assert result.rows_in == len(result.samples) == 1, result.problems
    return result.samples[0]


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_tvgbench(tmp_path: Path) -> None:
    row = {"path": "./a/b/KW.mp4", "question": "sit down", "answer": "3.5-8.25", "start": 10.0, "end": 40.0, "duration": 30.0,
           "qsemtype": "Human Pose", "dataset_name": "hirest", "bins": {"qlen": 7}}  # fmt: skip
    result = read_annotations(write(tmp_path, "x.json", [row, {**row, "answer": "1-2"}]))
    assert result.format == "tvgbench"
    first, second = result.samples
    assert (first.windows, first.duration, first.video_start, first.video_end) == ([(3.5, 8.25)], 30.0, 10.0, 40.0)
    assert (first.type, first.source, first.id, second.id) == ("Human Pose", "hirest", "KW#0", "KW#1")
    assert not result.problems


def test_tvgbench_says_which_field_is_absent(tmp_path: Path) -> None:
    row = {"path": "K.mp4", "question": "q", "answer": "0-1", "start": None, "end": None, "duration": 5.0, "qsemtype": "x"}
    result = read_annotations(write(tmp_path, "x.json", [row]))
    assert [(p.code, p.repair, p.message) for p in result.problems] == [("missing_field", "keep", "no dataset_name")]
    assert len(result.samples) == 1


def test_timerft_keeps_the_base_models_answer(tmp_path: Path) -> None:
    row = {"video": "v.mp4", "duration": 9.5, "timestamp": [1.0, 4.0], "sentence": "s", "qid": "my|cosmo|v|s", "video_start": None,
           "video_end": None, "difficulty": 50.0, "pred": [0.0, 3.0]}  # fmt: skip
    sample = only(read_annotations(write(tmp_path, "x.json", [row])))
    assert (sample.id, sample.source, sample.extra) == ("my|cosmo|v|s", "cosmo", {"difficulty": 50.0, "pred": [0.0, 3.0]})
    assert sample.video_start is None
    assert sample.windows == [(1.0, 4.0)]


def test_captions_layout_pairs_sentences_and_timestamps(tmp_path: Path) -> None:
    table = {
        "v_a": {"duration": 20.5, "timestamps": [[0, 4.14], [2, 5]], "sentences": [" One.", "Two."]},
        "v_b": {"duration": 8, "timestamps": [[1, 2], [3, 4]], "sentences": ["Only one."]},
        "v_c": 7,
        "v_d": {"duration": 8, "sentences": ["no times"]},
    }
    result = read_annotations(write(tmp_path, "x.json", table))
    assert result.format == "captions"
    assert [(s.id, s.query, s.windows) for s in result.samples] == [
        ("v_a#0", "One.", [(0.0, 4.14)]), ("v_a#1", "Two.", [(2.0, 5.0)]), ("v_b#0", "Only one.", [(1.0, 2.0)]),
    ]  # fmt: skip
    assert [p.code for p in result.problems] == ["missing_field", "unreadable", "missing_field"]
    assert result.rows_in == 6


def test_charades_text_takes_durations_from_the_csv_beside_it(tmp_path: Path) -> None:
    write(tmp_path, "Charades_v1_test.csv", "id,subject,length\nAO8RW,HR43,33.67\n")
    path = write(
        tmp_path, "charades_sta_test.txt", "AO8RW 0.0 6.9##a person is putting a book on a shelf.\nZZZZZ 1 2##other\nbroken\n"
    )
    result = read_annotations(path)
    assert result.format == "charades_sta"
    assert (result.samples[0].duration, result.samples[0].windows) == (33.67, [(0.0, 6.9)])
    assert result.samples[0].query == "a person is putting a book on a shelf."
    assert result.samples[1].duration is None
    assert [(p.code, p.line) for p in result.problems] == [("no_duration", 2), ("unreadable", 3)]
    assert result.rows_in == 3


def test_qvhighlights_and_lighthouse(tmp_path: Path) -> None:
    row = {"qid": 2579, "query": "q", "duration": 150, "vid": "N_60.0_210.0", "relevant_windows": [[2, 10], [20, 30]]}
    plain = read_annotations(write(tmp_path, "a.jsonl", jsonl(row)))
    full = read_annotations(write(tmp_path, "b.jsonl", jsonl({**row, "saliency_scores": [[1, 2, 3]], "relevant_clip_ids": [1]})))
    assert (plain.format, full.format) == ("lighthouse", "qvhighlights")
    assert only(plain).windows == only(full).windows == [(2.0, 10.0), (20.0, 30.0)]
    assert only(plain).id == "2579"
    assert only(full).extra["saliency_scores"] == [[1, 2, 3]]


def test_didemo_takes_the_majority_in_five_second_segments(tmp_path: Path) -> None:
    row = {"annotation_id": 7, "video": "a.m4v", "description": "d", "num_segments": 6, "times": [[0, 0], [2, 3], [2, 3], [5, 5]]}
    sample = only(read_annotations(write(tmp_path, "x.json", [row])))
    assert (sample.windows, sample.duration, sample.id) == ([(10.0, 20.0)], 30.0, "7")


def test_hirest_leaves_out_videos_without_a_moment(tmp_path: Path) -> None:
    table = {
        "make tea": {
            "a.mp4": {"relevant": True, "clip": True, "v_duration": 300, "bounds": [14, 218], "steps": []},
            "b.mp4": {"relevant": True, "clip": False, "v_duration": 50},
            "c.mp4": {"relevant": False, "clip": False, "v_duration": 50},
        }
    }
    sample = only(read_annotations(write(tmp_path, "x.json", table)))
    assert (sample.query, sample.video, sample.windows, sample.duration) == ("make tea", "a.mp4", [(14.0, 218.0)], 300.0)


def test_rextime_and_nextgqa_hold_window_and_answer(tmp_path: Path) -> None:
    rextime = {"qid": "q1", "vid": "v", "duration": 150, "question": "why?", "answer": "From <s0> to <e0>, <option>.", "source": "anet",
               "category": "sequential", "options": ["a", "b", "c", "d"], "span": [0, 28], "ans": "C"}  # fmt: skip
    sample = only(read_annotations(write(tmp_path, "a.json", [rextime])))
    assert (sample.windows, sample.options, sample.answer, sample.type) == ([(0.0, 28.0)], ["a", "b", "c", "d"], 2, "sequential")
    nextgqa = {"id": "1_2", "video": "1/2.mp4", "question": "how?", "options": ["(A) x", "(B) A. y"], "duration": 90,
               "glue": [[1, 2], [3, 4]], "type": "CW", "answer": "(B)"}  # fmt: skip
    sample = only(read_annotations(write(tmp_path, "b.json", [nextgqa])))
    assert (sample.windows, sample.options, sample.answer) == ([(1.0, 2.0), (3.0, 4.0)], ["x", "A. y"], 1)


def test_multiple_choice_without_windows(tmp_path: Path) -> None:
    mvbench = {
        "video": "1.mp4",
        "question": "q?",
        "candidates": ["Yes", "No", "Both"],
        "answer": "Both",
        "start": 1.5,
        "end": 4.0,
    }
    sample = only(read_annotations(write(tmp_path, "a.json", [mvbench])))
    assert (sample.answer, sample.video_start, sample.video_end, sample.windows) == (2, 1.5, 4.0, [])

    tempcompass = {"10": {"speed": [{"question": "How fast?\nA. slow\nB. fast", "answer": "B. fast"}], "order": []}}
    sample = only(read_annotations(write(tmp_path, "b.json", tempcompass)))
    assert (sample.query, sample.options, sample.answer, sample.type, sample.id) == (
        "How fast?",
        ["slow", "fast"],
        1,
        "speed",
        "10#speed0",
    )

    question = {"question_id": "001-1", "task_type": "Counting", "question": "q?", "options": ["A. 1.", "B. 2."], "answer": "B"}
    nested = [{"video_id": "001", "videoID": "fFj", "duration": "short", "domain": "K", "questions": [question]}]
    sample = only(read_annotations(write(tmp_path, "c.json", nested)))
    assert (sample.video, sample.options, sample.answer, sample.duration) == ("fFj", ["1.", "2."], 1, None)
    flat = only(
        read_annotations(write(tmp_path, "d.json", [{**question, "video_id": "001", "videoID": "fFj", "duration": "short"}]))
    )
    assert flat == sample or flat.extra["length"] == "short"

    egoschema = [
        {"q_uid": u, "google_drive_id": "g", "question": "q?", **{f"option {i}": f"o{i}" for i in range(5)}} for u in ("u1", "u2")
    ]
    write(tmp_path, "subset_answers.json", {"u1": 3})
    result = read_annotations(write(tmp_path, "questions.json", egoschema))
    assert result.format == "egoschema"
    assert [s.answer for s in result.samples] == [3, None]
    assert [(p.code, p.id) for p in result.problems] == [("missing_field", "u2")]


def test_plain_jsonl_and_csv_say_the_same(tmp_path: Path) -> None:
    rows = [{"video": "a.mp4", "query": "x, y", "start": 1, "end": 2.5, "duration": 9, "id": "k"}]
    one = only(read_annotations(write(tmp_path, "a.jsonl", jsonl(*rows))))
    two = only(read_annotations(write(tmp_path, "a.csv", 'video,query,start,end,duration,id\na.mp4,"x, y",1,2.5,9,k\n')))
    three = only(
        read_annotations(write(tmp_path, "b.csv", "vid;sentence;start_time;end_time;duration;qid\na.mp4;x, y;1;2.5;9;k\n"))
    )
    assert one == two == three == Sample("k", "a.mp4", "x, y", 9.0, [(1.0, 2.5)])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            Sample,
            id=st.text(min_size=1, alphabet=st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp", "Zs"))),
            video=st.text(min_size=1, alphabet="abc/._-0"),
            query=st.text(alphabet=st.characters(blacklist_categories=("Cs",))),
            duration=st.floats(0.1, 1e5),
            windows=st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e5)), min_size=1, max_size=3),
            split=st.sampled_from(["", "train"]),
        ),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_our_own_rows_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]) -> None:
    path = tmp_path_factory.mktemp("own") / "s.jsonl"
    atomic_write_jsonl(path, [sample.to_json() for sample in samples])
    result = read_annotations(path)
    assert result.format == "timer1"
    assert result.samples == samples


@pytest.mark.parametrize(
    "content",
    ["", "  \n", "[]", "{}", "\x00\x01binary", "just words\nno table", "a,b,c\n1,2,3\n", '[{"foo": 1}]', "[1, 2]", "7", '"x"'],
)
def test_a_file_without_annotations_is_one_clear_error(tmp_path: Path, content: str) -> None:
    path = write(tmp_path, "bad.json", content)
    with pytest.raises(Timer1Error, match=r"bad\.json"):
        read_annotations(path)


def test_missing_file_folder_and_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(Timer1Error, match="no such file"):
        read_annotations(tmp_path / "none.json")
    with pytest.raises(Timer1Error, match="cannot be read"):
        read_annotations(tmp_path)
    with pytest.raises(Timer1Error, match="did you mean 'tvgbench'"):
        read_annotations(tmp_path / "none.json", "tvgbensch")
    with pytest.raises(Timer1Error, match="not a file of format 'charades_sta'"):
        read_annotations(write(tmp_path, "x.jsonl", jsonl({"video": "a", "query": "q", "start": 0, "end": 1})), "charades_sta")


ROW = {"video": "a.mp4", "query": "q", "windows": [[1.0, 2.0]], "duration": 5.0, "id": "1"}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("{broken", "unreadable"),
        ("[1, 2]", "unreadable"),
        ("null", "unreadable"),
        ("[" * 100_000, "unreadable"),
        (json.dumps({**ROW, "windows": "soon"}), "unreadable"),
        (json.dumps({**ROW, "windows": [[1.0, True]]}), "unreadable"),
        (json.dumps({**ROW, "windows": [[1.0, 2.0], 7]}), "unreadable"),
        (json.dumps({**ROW, "windows": [{"start": 1}]}), "unreadable"),
        (json.dumps({**ROW, "windows": [[1.0, None]]}), "missing_field"),
        (json.dumps({**ROW, "windows": []}), "missing_field"),
        (json.dumps({**ROW, "video": None}), "missing_field"),
        (json.dumps({**ROW, "video": ["a"]}), "unreadable"),
        (json.dumps({**ROW, "query": 7}), "bad_query"),
        (json.dumps({**ROW, "query": None}), "bad_query"),
        (json.dumps({k: v for k, v in ROW.items() if k != "query"}), "missing_field"),
        (json.dumps({**ROW, "query": "\ud800"}), "unreadable"),
        (json.dumps({**ROW, "duration": "long"}), "unreadable"),
        (json.dumps({**ROW, "duration": {}}), "unreadable"),
    ],
)
def test_a_bad_row_is_named_and_the_others_are_read(tmp_path: Path, line: str, code: str) -> None:
    path = write(
        tmp_path,
        "x.jsonl",
        json.dumps(ROW) + "\n" + line + "\n\n" + json.dumps({**ROW, "id": "2"}) + "\n" + json.dumps({**ROW, "id": "3"}),
    )
    result = read_annotations(path)
    assert [sample.id for sample in result.samples] == ["1", "2", "3"]
    assert result.rows_in == 4
    assert result.dropped == 1
    (problem,) = result.problems
    assert (problem.code, problem.line, problem.row, problem.file, problem.repair) == (code, 2, 2, str(path), "drop")


def test_text_numbers_are_read_and_said(tmp_path: Path) -> None:
    path = write(tmp_path, "x.jsonl", jsonl({**ROW, "windows": [["1.5", "2"]], "duration": "5"}))
    result = read_annotations(path)
    assert only(result).windows == [(1.5, 2.0)]
    assert only(result).duration == 5.0
    assert [p.code for p in result.problems] == ["text_number"] * 3


def test_endless_and_huge_numbers_reach_the_audit(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(
        '{"video": "a", "query": "q", "windows": [[NaN, 2]], "duration": 1e999}\n{"video": "a", "query": "q", "windows": [[0, 1'
        + "0" * 400
        + "]]}\n"
    )
    first, second = read_annotations(path).samples
    assert first.windows[0][0] != first.windows[0][0]
    assert first.duration == float("inf")
    assert second.windows == [(0.0, float("inf"))]


def test_bytes_that_are_not_utf8_cost_only_their_row(tmp_path: Path) -> None:
    for name, brackets in (("x.jsonl", False), ("x.json", True)):
        rows = [
            json.dumps(ROW).encode(),
            json.dumps(ROW).replace('"q"', '"caf\\u00e9"').encode().replace(b"\\u00e9", b"\xe9"),
            json.dumps(ROW).encode(),
        ]
        path = tmp_path / name
        path.write_bytes(b"[" + b",\n".join(rows) + b"]" if brackets else b"\n".join(rows))
        result = read_annotations(path)
        assert (result.rows_in, len(result.samples)) == (3, 2)
        assert [(p.code, p.line) for p in result.problems] == [("unreadable", 2)]


def test_byte_order_marks_and_utf16(tmp_path: Path) -> None:
    text = jsonl(ROW, {**ROW, "query": "größer"})
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (tmp_path / "b.jsonl").write_bytes(text.encode("utf-16"))
    assert len(read_annotations(tmp_path / "a.jsonl").samples) == len(read_annotations(tmp_path / "b.jsonl").samples) == 2


def test_a_damaged_json_array_loses_only_what_is_damaged(tmp_path: Path) -> None:
    good = json.dumps(ROW)
    damaged = "[\n" + good + ",\n" + good.replace('"q"', "q") + ",\n" + good + ",\n" + good[:30]
    result = read_annotations(write(tmp_path, "x.json", damaged))
    assert len(result.samples) == 2
    assert [p.line for p in result.problems] == [3, 5]
    assert result.rows_in == 4


def test_one_pretty_object_is_one_row_and_wrapped_rows_are_found(tmp_path: Path) -> None:
    assert only(read_annotations(write(tmp_path, "a.json", json.dumps(ROW, indent=2)))).id == "1"
    assert only(read_annotations(write(tmp_path, "b.json", {"version": 1, "info": {"x": 1}, "annotations": [ROW]}))).id == "1"


@settings(max_examples=100, deadline=None)
@example(b"\x01\r\t")
@example(b'"a\nb"\tc\n1\t2\n')
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_give_rows_or_one_clear_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "x.json"
    path.write_bytes(content)
    for name in (None, *FORMATS):
        said = ""
        try:
            result = read_annotations(path, name)
        except Timer1Error as error:
            said = str(error)
        assert "\n" not in said
        if not said:
            assert result.rows_in == len(result.samples) + result.dropped
            assert result.dropped == len({p.row for p in result.problems if p.repair == "drop"})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from([n for n in FORMATS if n not in ("csv", "charades_sta")]), st.data())
def test_any_values_in_the_right_fields_give_rows_or_problems(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    fields = ["id", "qid", "video", "vid", "path", "query", "question", "sentence", "answer", "ans", "duration", "timestamp", "timestamps", "sentences",
              "windows", "relevant_windows", "span", "glue", "options", "candidates", "start", "end", "times", "num_segments", "bounds", "questions",
              "q_uid", "option 0", "option 1", "video_id", "dim", "description", "extra", "split"]  # fmt: skip
    record = data.draw(st.dictionaries(st.sampled_from(fields), _JSON, min_size=1))
    content = {"k": record, "l": {"m": record}} if FORMATS[name].container == "map" else [record]
    path = tmp_path_factory.mktemp("any") / "x.json"
    path.write_text(json.dumps(content))
    result = read_annotations(path, name)
    assert result.rows_in == len(result.samples) + result.dropped
    for sample in result.samples:
        assert isinstance(sample.video, str)
        assert isinstance(sample.query, str)
        assert isinstance(sample.id, str)
        assert all(isinstance(t, float) for window in sample.windows for t in window)


def test_hub_says_clearly_that_it_is_not_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach the Hugging Face Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(Timer1Error, match=r"hub data set 'a/b', split 'test': cannot be read .*online"):
        hub_samples("a/b", "test")


def test_hub_rows_go_through_the_same_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = [{"vid": "v", "query": "q", "duration": 9.0, "relevant_windows": [[1.0, 2.0]], "qid": 4}]

    def load(id: str, config: Any, *, split: str, revision: Any, streaming: bool) -> Any:
        return datasets.Dataset.from_list(rows).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    result = hub_samples("a/b", "test")
    assert result.format == "lighthouse"
    assert only(result).windows == [(1.0, 2.0)]


def numbered(first: int, count: int) -> list[dict[str, Any]]:
    return [
        {"video": f"v{i}.mp4", "query": f"look at q{i:04};", "start": 1.0, "end": 2.5, "duration": 30.0, "id": f"i{i}"}
        for i in range(first, first + count)
    ]


def records(first: int, count: int) -> dict[str, Any]:
    return {
        f"v{i}": {"duration": 30, "timestamps": [[1, 9]], "sentences": [f"look at q{i:04};"]} for i in range(first, first + count)
    }


A, B = numbered(0, 4), numbered(4, 3)
LISTS = {
    "two arrays": json.dumps(A) + "\n" + json.dumps(B),
    "two arrays with a comma": json.dumps(A) + ",\n" + json.dumps(B) + "\n",
    "an array, then rows": json.dumps(A) + "".join("\n" + json.dumps(row) for row in B),
    "an array of arrays": json.dumps([A, B]),
    "arrays three deep": json.dumps([[A], [[B]]]),
    "a bracket too many": "[" + json.dumps([*A, *B]) + "]]",
    "no comma between rows": json.dumps([*A, *B]).replace("}, {", "} {"),
    "rows over many lines": "\n".join(json.dumps(row, indent=1) for row in [*A, *B]),
    "two lists in an object": json.dumps({"data": A, "results": B}),
    "lists by split": json.dumps({"version": 2, "train": A, "test": B}, indent=1),
    "lists of any name": json.dumps({"mine": A, "yours": B}),
    "objects with a list each": json.dumps({"data": A}, indent=1) + "\n" + json.dumps({"data": B}, indent=1),
    "a second byte order mark": "\ufeff" + jsonl(*A) + "\ufeff" + jsonl(*B),
    "two rows a line": json.dumps(A[0]) + json.dumps(A[1]) + "\n" + json.dumps(A[2]) + ", " + json.dumps(A[3]) + "\n" + jsonl(*B),
    "a list a line": json.dumps(A[0]) + "\n" + json.dumps(A[1:]) + "\n" + jsonl(*B),
    "old line ends": jsonl(*A, *B).replace("\n", "\r"),
    "mixed line ends": jsonl(*A).replace("\n", "\r\n") + jsonl(*B).replace("\n", "\r"),
}


@pytest.mark.parametrize("ending", [".json", ".jsonl"])
@pytest.mark.parametrize("layout", LISTS)
def test_every_list_of_a_file_is_read(tmp_path: Path, layout: str, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    path.write_bytes(LISTS[layout].encode())
    result = read_annotations(path)
    assert [sample.query for sample in result.samples] == [row["query"] for row in [*A, *B]]
    assert result.rows_in == 7, [str(problem) for problem in result.problems]


def test_lists_by_split_give_their_rows_the_split(tmp_path: Path) -> None:
    result = read_annotations(write(tmp_path, "x.json", {"train": A, "test": [*B, {**A[0], "split": "val"}], "data": []}))
    assert [sample.split for sample in result.samples] == ["train"] * 4 + ["test"] * 3 + ["val"]
    assert {sample.split for sample in read_annotations(write(tmp_path, "y.json", {"data": A})).samples} == {""}


def test_several_mappings_in_one_file_are_read(tmp_path: Path) -> None:
    for glue, ending in (("\n", ".json"), ("", ".json"), (",\n", ".json"), ("\n", ".jsonl")):
        path = write(tmp_path, f"x{ending}", json.dumps(records(0, 4)) + glue + json.dumps(records(4, 3)))
        assert [sample.id for sample in read_annotations(path).samples] == [f"v{i}#0" for i in range(7)]
    twice = read_annotations(write(tmp_path, "y.json", json.dumps(records(0, 2))[:-1] + "," + json.dumps(records(0, 2))[1:]))
    assert [sample.id for sample in twice.samples] == ["v0#0", "v1#0"] * 2


def test_what_is_not_read_is_named_with_its_line(tmp_path: Path) -> None:
    def said(content: str, name: str = "x.json") -> tuple[int, list[tuple[int | None, str]]]:
        result = read_annotations(write(tmp_path, name, content))
        assert result.rows_in == len(result.samples) + len(result.problems)
        return len(result.samples), [(problem.line, problem.message) for problem in result.problems]

    assert said(json.dumps(A) + "\nthe end") == (4, [(2, "not JSON: Expecting value")])
    assert said(json.dumps(A) + "\n2024 exported") == (4, [(2, "not a row: '2024 exported'")])
    more = json.dumps({"annotations": A, "videos": [{"file": "a", "size": 3}]}).replace(', "videos"', ',\n"videos"')
    assert said(more) == (4, [(2, "the member 'videos' with its 1 entries is not read: rows are in annotations")])
    cut = "[\n" + ",\n".join(map(json.dumps, A))
    assert said(cut) == (4, [(5, "the file ends inside its list of rows: it was cut off")])
    count, problems = said(cut.replace('q0001;"', "q0001;"))
    assert (count, [line for line, _ in problems]) == (3, [3, 5])
    assert said(jsonl(*A) + json.dumps(B[0])[:40], "x.jsonl")[1][0][0] == 5


def test_a_field_that_stands_twice_costs_the_row(tmp_path: Path) -> None:
    row = '{"video": "a", "query": "q", "start": 1, "end": 2, "start": 5, "duration": 9}'
    result = read_annotations(write(tmp_path, "x.json", f"[{json.dumps(A[0])},\n{row},\n{json.dumps(A[1])}]"))
    assert len(result.samples) == 2
    assert [str(problem) for problem in result.problems] == [
        f"{tmp_path / 'x.json'}, line 2: unreadable: the field 'start' stands in it twice"
    ]


@pytest.mark.parametrize(
    ("bad", "word"),
    [("1" * 5000, "more than 4,300 digits"), ("[" * 100_000, "nested too deep"), ('{"a":' * 100_000, "nested too deep")],
)
@pytest.mark.parametrize("layout", ["x.json", "x.jsonl", "map.json", "data.json"])
def test_numbers_without_end_and_bottomless_lists_cost_one_row(tmp_path: Path, bad: str, word: str, layout: str) -> None:
    if layout == "map.json":
        good = [json.dumps(records(i, 1))[1:-1] for i in range(3)]
        lines = "{\n" + ",\n".join([good[0], '"v9": {"duration": ' + bad + "}", *good[1:]]) + "}"
    else:
        rows = [json.dumps(row) for row in A[:3]]
        rows.insert(1, json.dumps(B[0]).replace("30.0", bad))
        lines = "\n".join(rows) if layout == "x.jsonl" else "[\n" + ",\n".join(rows) + "]"
        lines = '{"data": ' + lines + "}" if layout == "data.json" else lines
    result = read_annotations(write(tmp_path, layout, lines))
    assert [sample.query for sample in result.samples] == ["look at q0000;", "look at q0001;", "look at q0002;"]
    (problem,) = result.problems
    assert (problem.line, problem.code) == (2 if layout == "x.jsonl" else 3, "unreadable")
    assert word in problem.message


CSV = "video,query,start,end,duration\n"


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("v9,q9,1,2", "4 columns, the header has 5"),
        ("v9,q9,1,2,30,7", "6 columns, the header has 5"),
        ("v\0,q9,1,2,30", "NUL"),
        ('v9,"q9,1,2,30', "a quote is not closed"),
        ('v9,"q"9,1,2,30', "not CSV"),
        ("v9,q9,soon,2,30", "not a number"),
        ("v9,q9,1_0,2,30", "not a number"),
        ("x" * 100_000, "1 columns"),
        ('v9,"' + "x" * 200_000 + '",1,2,30', "field larger than field limit"),
    ],
)
def test_a_bad_csv_line_costs_itself_only(tmp_path: Path, line: str, word: str) -> None:
    good = [f"v{i},look at q{i:04};,1,2.5,30" for i in range(6)]
    result = read_annotations(write(tmp_path, "x.csv", CSV + "\n".join([*good[:2], line, *good[2:]]) + "\n"))
    assert [sample.video for sample in result.samples] == [f"v{i}" for i in range(6)]
    (problem,) = result.problems
    assert (problem.line, problem.repair) == (4, "drop")
    assert word in problem.message


def test_columns_of_one_name_are_no_choice(tmp_path: Path) -> None:
    path = write(tmp_path, "x.csv", "video,query,start,end,end\na,q,1,2,2\nb,q,1,2,3\n")
    result = read_annotations(path)
    assert [sample.video for sample in result.samples] == ["a"]
    assert "two columns are called 'end'" in result.problems[-1].message


ROWS = [*A, *B]
FILES = {
    "array.json": "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    "line.json": json.dumps(ROWS),
    "rows.jsonl": jsonl(*ROWS),
    "data.json": json.dumps({"version": 1, "data": ROWS[:4], "results": ROWS[4:]}).replace("}, {", "},\n{"),
    "map.json": json.dumps(records(0, 7)).replace("}, ", "},\n"),
    "table.csv": CSV + "".join(f"v{i},look at q{i:04};,1,2.5,30\n" for i in range(7)),
    "charades.txt": "".join(f"v{i} 1.0 2.5##look at q{i:04};\n" for i in range(7)),
}
NASTY = ["", "\0", "]", "}", "{", "[", '"', ",", "\n", "\r", "\ufeff", "] [", "}{", '","', "[[[", '{"a":', " words ", "1" * 5000, "\\", "NaN", "##", ":", "null"]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(FILES)), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), st.sampled_from(NASTY)), min_size=1, max_size=4))  # fmt: skip
def test_whatever_stands_in_a_damaged_file_is_read_or_reported(
    tmp_path_factory: pytest.TempPathFactory, name: str, damage: list[tuple[float, int, str]]
) -> None:
    text = FILES[name]
    start = len(CSV) if name == "table.csv" else 1
    for place, length, put in damage:
        at = start + int(place * (len(text) - start))
        text = text[:at] + put + text[at + length :]
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_bytes(text.encode())
    read, lost = "", []
    for entry in open_source(path).items():
        if isinstance(entry, Broken):
            assert 1 <= entry.line <= max(entry.last, entry.line)
            lost.append((entry.line, max(entry.last, entry.line)))
        else:
            read += f"{entry.key} {entry.value!r} "
    for token in re.finditer(r"q\d{4};", text):
        line = len(re.findall(r"\r\n|\r|\n", text[: token.start()])) + 1
        assert token[0] in read or any(first <= line <= last for first, last in lost), (token, line, text)
    try:
        result = read_annotations(path)
    except Timer1Error:
        return  # no known format, in one line: see test_any_bytes_give_rows_or_one_clear_error
    assert result.rows_in == len(result.samples) + result.dropped
    assert result.dropped == len({problem.row for problem in result.problems if problem.repair == "drop"})


def test_thousands_of_broken_rows_on_one_line_take_no_minutes(tmp_path: Path) -> None:
    rows = [json.dumps(row) if i % 2 else json.dumps(row).replace("look", '"look') for i, row in enumerate(numbered(0, 20_000))]
    path = write(tmp_path, "x.json", "[" + ",".join(rows) + "]")
    start = time.monotonic()
    result = read_annotations(path)
    assert (result.rows_in, len(result.samples)) == (20_000, 10_000)
    assert time.monotonic() - start < 15, "1 s alone; 34 s where each error counts the lines before it"
