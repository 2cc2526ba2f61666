"""Files survive kills and odd text; rows survive a round trip; progress says what it should."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from timer1lib.errors import Timer1Error
from timer1lib.files import append_jsonl, atomic_write_jsonl, atomic_write_text, read_json, read_jsonl, read_numbered, safe_join
from timer1lib.progress import BEACON_VARIABLE, RUNNER_VARIABLE, Progress, clock
from timer1lib.schema import Prediction, Sample

IN_TMP = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None)
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.dictionaries(TEXT, st.one_of(TEXT, NUMBER, st.none()), max_size=4), max_size=5))
@IN_TMP
def test_rows_come_back_whatever_they_hold(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    path = tmp_path / "rows.jsonl"
    atomic_write_jsonl(path, rows)
    assert list(read_jsonl(path)) == rows
    append_jsonl(path, rows)
    assert list(read_jsonl(path)) == rows + rows


def test_line_ends_inside_a_row_do_not_end_it(tmp_path: Path) -> None:
    rows = [{"completion": "a\u2028b\u2029c\x85d\x0be\x1cf\r\ng"}]
    atomic_write_jsonl(tmp_path / "rows.jsonl", rows)
    assert list(read_jsonl(tmp_path / "rows.jsonl")) == rows


def test_half_a_surrogate_pair_can_be_written(tmp_path: Path) -> None:
    atomic_write_jsonl(tmp_path / "rows.jsonl", [{"completion": json.loads(r'"\ud800x"')}])
    assert list(read_jsonl(tmp_path / "rows.jsonl")) == [{"completion": "?x"}]


def test_every_torn_tail_is_left_out_and_mended(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    first, second = {"id": "a", "text": "é\u2028"}, {"id": "b", "text": "ü"}
    whole = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in (first, second))
    boundary = whole.index(b"\n") + 1
    for cut in range(boundary, len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = [first, second] if cut >= len(whole) - 1 else [first]
        assert list(read_jsonl(path, torn_tail=True)) == kept
        append_jsonl(path, [{"id": "c"}])
        assert list(read_jsonl(path)) == [*kept, {"id": "c"}], f"cut at {cut}"


def test_mistakes_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\nnot json\n')
    with pytest.raises(Timer1Error, match=r"rows\.jsonl, line 3: not JSON"):
        list(read_jsonl(path))
    path.write_text("[1]\n")
    with pytest.raises(Timer1Error, match="line 1: a row must be a JSON object"):
        list(read_jsonl(path))
    path.write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(Timer1Error, match="line 1: not UTF-8"):
        list(read_jsonl(path))
    path.write_text("[" * 100_000)
    with pytest.raises(Timer1Error, match="line 1"):
        list(read_jsonl(path))


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    code = "import sys; from timer1lib.files import atomic_write_text\nn = 0\n"
    code += "while True:\n    n += 1; atomic_write_text(sys.argv[1], str(n % 10) * 300_000)"
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)])
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    for _ in range(30):
        assert len(set(path.read_text())) == 1
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    text = path.read_text()
    assert (len(text), len(set(text))) == (300_000, 1)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "rows.jsonl", "old")
    with pytest.raises(ValueError, match="JSON compliant"):
        atomic_write_jsonl(tmp_path / "rows.jsonl", [{"x": math.nan}])
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
    assert (tmp_path / "rows.jsonl").read_text() == "old"


@pytest.mark.parametrize("bad", ["../x.mp4", "/etc/passwd", "a/../../x", "link/x"])
def test_paths_that_leave_the_root_are_refused(tmp_path: Path, bad: str) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(Timer1Error, match="leaves the video folder"):
        safe_join(root, bad)
    assert safe_join(root, "a/../b.mp4") == root.resolve() / "b.mp4"


EDGE = st.one_of(NUMBER, st.integers(-5, 100))


@given(
    st.builds(
        Sample, id=TEXT, video=TEXT, query=TEXT, duration=st.none() | NUMBER, windows=st.lists(st.tuples(NUMBER, NUMBER), max_size=3),
        type=TEXT, source=TEXT, split=TEXT, video_start=st.none() | EDGE, video_end=st.none() | EDGE,
        options=st.none() | st.lists(TEXT, min_size=1, max_size=4), answer=st.none() | st.integers(0, 3),
        extra=st.dictionaries(TEXT, TEXT, max_size=2),
    )
)  # fmt: skip
def test_samples_come_back(sample: Sample) -> None:
    assert Sample.from_json(json.loads(json.dumps(sample.to_json(), allow_nan=False))) == sample


@given(
    st.builds(
        Prediction, id=TEXT, start=st.none() | NUMBER, end=st.none() | NUMBER, completion=TEXT, parser=TEXT, model=TEXT,
        windows=st.lists(st.tuples(NUMBER, NUMBER, NUMBER), max_size=3), answer=st.none() | st.integers(0, 3),
        seconds=st.none() | NUMBER, error=st.none() | st.text(min_size=1),
    )
)  # fmt: skip
def test_predictions_come_back(prediction: Prediction) -> None:
    assert Prediction.from_json(json.loads(json.dumps(prediction.to_json(), allow_nan=False))) == prediction


def test_numbers_that_are_none_are_written_as_null() -> None:
    sample = Sample("a", "v", "q", duration=math.inf, windows=[(math.nan, 5.0)], extra={"x": [math.nan, {"y": math.inf}]})
    row = json.loads(json.dumps(sample.to_json(), allow_nan=False))
    assert row["windows"] == [[None, 5.0]]
    assert row["extra"] == {"x": [None, {"y": None}]}
    back = Sample.from_json(row)
    assert math.isnan(back.windows[0][0])
    assert back.windows[0][1] == 5.0
    prediction = Prediction("a", math.nan, 3.0, windows=[(0.0, 1.0, math.nan)], seconds=math.inf)
    assert json.loads(json.dumps(prediction.to_json(), allow_nan=False))["start"] is None


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ({"id": 3, "video": "v", "query": "q"}, "'id' must be text"),
        ({"id": "a", "video": "v"}, "query"),
        ({"id": "a", "video": "v", "query": "q", "windows": [[1]]}, "not a sample row"),
        ({"id": "a", "video": "v", "query": "q", "windows": [["x", 2]]}, "not a sample row"),
        ({"id": "a", "video": "v", "query": "q", "wndows": []}, "unknown field 'wndows'"),
        ({"id": "a", "video": "v", "query": "q", "duration": "ten"}, "'duration' must be a number"),
    ],
)
def test_bad_sample_rows_are_one_line(row: dict[str, object], word: str) -> None:
    with pytest.raises(Timer1Error, match=word) as caught:
        Sample.from_json(row, "train.jsonl, row 7")
    assert str(caught.value).startswith("train.jsonl, row 7: ")


@pytest.mark.parametrize("bad", [{"start": "1"}, {"start": True}, {"completion": None}, {"windows": [[1, 2]]}, {"strat": 1}])
def test_bad_prediction_rows_are_one_line(bad: dict[str, object]) -> None:
    with pytest.raises(Timer1Error, match="p, row 1: "):
        Prediction.from_json({"id": "a", **bad}, "p, row 1")


def test_progress_in_a_log_is_few_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("timer1lib.progress.time.monotonic", lambda: now[0])
    monkeypatch.setenv(BEACON_VARIABLE, str(tmp_path / "beacon"))
    stream = io.StringIO()
    progress = Progress("GRPO", 100, stream)
    for step in range(100):
        now[0] += 1.0
        progress.update(reward=step / 100)
        if step == 29:
            assert (tmp_path / "beacon").read_text() == "GRPO: 30/100  0:30 elapsed, 1:10 left  reward 0.290"
    lines = stream.getvalue().splitlines()
    assert len(lines) == 8, "one at the start, one each 15 s, one at the end"
    assert lines[-1] == "GRPO: 100/100  1:40 elapsed, 0:00 left  reward 0.990"


def test_progress_goes_on_from_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("timer1lib.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = Progress("x", 10, stream, done=8)
    now[0] = 5.0
    progress.update()
    # One of two steps took 5 s, so one more takes 5 s.
    assert stream.getvalue() == "x: 9/10  0:05 elapsed, 0:05 left\n"
    Progress("empty", 0, stream).update(0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_in_a_terminal_is_one_line_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    progress = Progress("GRPO", 4, stream, done=1)
    for step in range(3):
        progress.update(reward=step / 2)
    shown = stream.getvalue()
    assert shown.count("\n") == 1
    assert shown.endswith("\n")
    last = shown.rstrip("\n").split("\r")[-1]
    assert "GRPO: [####################] 4/4" in last
    assert " left" in last
    assert "reward 1.000" in last


def test_progress_in_jupyterlab_is_one_output_that_is_replaced_and_log_lines_under_a_runner() -> None:
    import nbformat
    from nbclient import NotebookClient

    code = "from timer1lib.progress import Progress\nprogress = Progress('GRPO', 4)\n"
    code += "for step in range(4): progress.update(reward=step / 3)"

    def outputs(**environment: str) -> list[dict[str, Any]]:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
        kept = {key: value for key, value in os.environ.items() if key not in (RUNNER_VARIABLE, BEACON_VARIABLE)}
        client = NotebookClient(notebook, kernel_name="python3")
        client.execute(env={**kept, "PYTHONPATH": os.pathsep.join(sys.path), **environment})
        return list(notebook.cells[0].outputs)

    last = "GRPO: 4/4  0:00 elapsed, 0:00 left  reward 1.000"
    (line,) = outputs()
    assert line["output_type"] == "display_data"
    assert line["data"] == {"text/plain": last}
    logged = outputs(**{RUNNER_VARIABLE: "1"})
    assert {output["name"] for output in logged} == {"stdout"}, "notebooks show stderr in red"
    lines = "".join(output["text"] for output in logged).splitlines()
    assert (len(lines), lines[-1]) == (2, last), "one at the start and one at the end"


def test_clock() -> None:
    assert [clock(x) for x in (0, 59.6, 75.2, 3661, -3)] == ["0:00", "1:00", "1:15", "1:01:01", "0:00"]


def test_what_is_broken_is_said_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.part.jsonl"
    path.write_bytes(b'{"id": "a"}\n{"id": "b", \n[1]\n\n{"id": ' + b"1" * 5000 + b'}\n{"id": "\xff"}\n{"id": "c"}\n{"id": "d')
    broken: list[str] = []
    assert list(read_jsonl(path, torn_tail=True, broken=broken)) == [{"id": "a"}, {"id": "c"}]
    assert [line.partition(": ")[0] for line in broken] == [f"{path}, line {n}" for n in (2, 3, 5, 6)]
    assert all("\n" not in line for line in broken)
    assert "more than 4,300 digits" in broken[2]
    assert [number for number, _ in read_numbered(path, broken=broken)] == [1, 7]
    assert broken[-1].startswith(f"{path}, line 8: not JSON")
    with pytest.raises(Timer1Error, match="line 2: not JSON"):
        list(read_jsonl(path, torn_tail=True))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": 1,\n "b": ' + b"7" * 4301 + b"}", "line 2: a whole number of more than 4,300 digits"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b'{"a": 1,\n "b": "\xff"}', "line 2: not UTF-8 text"),
        (b'{"a": 1,\n "b" 2}', "not JSON: .*line 2"),
        (b"", "not JSON"),
    ],
)
def test_json_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "facts.json"
    path.write_bytes(content)
    with pytest.raises(Timer1Error, match=said) as caught:
        read_json(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path) == {"a": 1}


LIMITED = """
import resource, sys
from timer1lib.files import append_jsonl, atomic_write_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
for write, what in ((atomic_write_bytes, b"x" * 5000), (append_jsonl, [{"x": "y" * 4990}])):
    try:
        write(sys.argv[1], what)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}")
"""


def test_a_write_that_does_not_fit_names_file_folder_and_bytes_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"x": "old"}\n')
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True)
    said = f"{path}: File too large: 5,000 bytes were to be written into the folder {tmp_path}\n"
    assert done.stdout == said * 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]
    assert path.read_text() == '{"x": "old"}\n'


def test_a_full_disk_says_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("timer1lib.files.os.fsync", full)
    for write in (lambda: atomic_write_text(tmp_path / "a.txt", "12345"), lambda: append_jsonl(tmp_path / "b.jsonl", [{}])):
        with pytest.raises(OSError, match=r"No space left on device: \d bytes .* has [\d,]+ bytes left") as caught:
            write()
        assert caught.value.errno == errno.ENOSPC
        assert Path(caught.value.filename).parent == tmp_path
    assert {entry.name: entry.stat().st_size for entry in tmp_path.iterdir()} == {"b.jsonl": 0}


def test_a_folder_that_takes_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError) as caught:
        atomic_write_text(tmp_path / "file" / "x.json", "{}")
    assert caught.value.filename == str(tmp_path / "file" / "x.json")
    assert f"2 bytes were to be written into the folder {tmp_path / 'file'}" in str(caught.value)


@pytest.mark.parametrize("bad", [{"duration": 10**400}, {"windows": [[0, 10**400]]}, {"options": 5}, {"options": ["a", 1]}, {"extra": []}, {"type": 3}])  # fmt: skip
def test_samples_of_the_wrong_kind_are_one_line(bad: dict[str, object]) -> None:
    with pytest.raises(Timer1Error, match="s, row 1: "):
        Sample.from_json({"id": "a", "video": "v", "query": "q", **bad}, "s, row 1")


@pytest.mark.parametrize("bad", [{"start": 10**400}, {"windows": [[0, 1, 10**400]]}, {"parser": 3}, {"model": None}])
def test_predictions_of_the_wrong_kind_are_one_line(bad: dict[str, object]) -> None:
    with pytest.raises(Timer1Error, match="p, row 1: "):
        Prediction.from_json({"id": "a", **bad}, "p, row 1")
