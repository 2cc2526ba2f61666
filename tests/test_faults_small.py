"""A little of the fault campaign (benchmarks/faults.py) with fixed seeds, and that the campaign sees a fault where there is one."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import fault_inputs
import fault_media
import fault_runs
import faults
from fault_tools import Bench, Job, Outcome, Tally, compared
from make_videos import write_video


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, seed=0, small=True)


def nothing_bad(tallies: list[Tally]) -> None:
    for tally in tallies:
        assert tally.counts["tried"] > 0
        assert not tally.bad, f"{tally.part}: {dict(tally.about)} {tally.examples}"


@pytest.mark.parametrize(("part", "count"), [("answers", 1500), ("annotations", 51), ("predictions", 15), ("pages", 2)])
def test_a_little_of_what_is_read(bench: Bench, part: str, count: int) -> None:
    nothing_bad(faults.PARTS[part][0](bench, count))


def test_a_little_of_the_videos(bench: Bench) -> None:
    nothing_bad(fault_media.videos(bench, 12))


def test_a_few_command_lines(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "COMMANDS", "run twice.yaml | name\nscore truth.jsonl truth.jsonl --form nope | nope\n")
    nothing_bad(faults.commands(bench, 2))


def test_a_kill_changes_no_byte_and_leaves_nobody(bench: Bench) -> None:
    tally = fault_runs.disturbed(
        bench, Tally("kills at random moments"), [], [fault_runs.Kill("runner", signal.SIGKILL, r"notebooks/\.?02")]
    )
    nothing_bad([tally])


def test_the_same_seed_gives_the_same_faults(bench: Bench) -> None:
    def drawn(seed: int) -> list[object]:
        rng = Bench(bench.folder, seed).rng("x")
        sources = sorted(fault_inputs.made_sources().items())
        files = [fault_inputs.mutated(rng, kind, *source) for kind in range(14) for _, source in sources]
        return [fault_inputs.written_times(rng), fault_inputs.broken_text(rng, 6), files]

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


def test_written_times_mean_what_they_say() -> None:
    rng = Bench(Path()).rng("written")
    seen = {}
    for _ in range(3000):
        notation, text, (start, end) = fault_inputs.written_times(rng)
        seen[notation] = (text, start, end)
    text, start, end = seen["clock"]
    minutes, seconds = map(int, text.split(" to ")[0].split(":"))
    assert start == 60 * minutes + seconds
    text, start, end = seen["decimal comma"]
    assert [float(part.replace(",", ".")) for part in text.split(" to ")] == [start, end]
    text, start, end = seen["thousands"]
    assert "," in text
    assert float(text.split(" to ")[1].replace(",", "")) == end
    assert len(seen) >= 16


def test_the_campaign_sees_a_wrong_span_and_a_lost_one() -> None:
    tally = Tally("x")
    fault_inputs._judge(tally, "f", "clock", "00:12 to 00:17", [(12.0, 0.0)], (12.0, 17.0))
    fault_inputs._judge(tally, "f", "clock", "00:12 to 00:17", [], (12.0, 17.0))
    fault_inputs._judge(tally, "f", "plain", "12 to 17", [], (12.0, 17.0))
    fault_inputs._judge(tally, "f", "plain", "12 to 17", [(12.0, 17.0)], (12.0, 17.0))
    assert {name: tally.counts[name] for name in ("tried", "right", "refused", "wrong", "lost")} == {
        "tried": 4, "right": 1, "refused": 1, "wrong": 1, "lost": 1,
    }  # fmt: skip
    assert tally.bad == 2


def test_the_campaign_sees_what_is_no_clean_refusal() -> None:
    assert Outcome(2, "", "timer1: x.yaml: not YAML\n").fault("x.yaml") is None
    assert Outcome(0, "", "").fault("x.yaml") is None
    for outcome in (
        Outcome(2, "", "timer1: not YAML\n"),
        Outcome(2, "", "a warning\ntimer1: x.yaml: not YAML\n"),
        Outcome(1, "", "timer1: KeyError: 'x.yaml' (a fault of timer1's own)\n"),
        Outcome(2, "", "Traceback (most recent call last) x.yaml\n"),
        Outcome(-11, "", ""),
    ):
        assert (outcome.fault("x.yaml") or ("",))[0] == "crashed"
    assert (Outcome(None, "", "").fault() or ("",))[0] == "hung"


def test_the_campaign_sees_scripts_that_would_run() -> None:
    quiet = fault_media.Live()
    quiet.feed('<p title="planted()">planted()</p><script>var x = "\\u003cscript>planted()";</script>')
    assert not quiet.found
    for payload in fault_media.PAYLOADS[:4]:
        live = fault_media.Live()
        live.feed(f"<p>{payload}</p>")
        assert live.found, payload


def test_the_campaign_sees_other_frames(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", range(0, 4000, 40))
    assert fault_media.strict_complaint(whole) == ""
    assert fault_media.judge_video(whole, whole, tmp_path / "cache")["frames"] == "ok"
    # The same pictures at half the speed: a whole video, but another one.
    other = write_video(tmp_path / "other.mp4", range(0, 8000, 80))
    assert fault_media.judge_video(other, whole, tmp_path / "cache")["frames"] == "another video"


def test_the_campaign_sees_who_is_left_behind(tmp_path: Path) -> None:
    job = Job(["sh", "-c", "sleep 300 & exit 0"], tmp_path)
    assert job.wait(20).status == 0
    assert job.left_behind(0.5) == ["sleep 300"]
    deadline = time.monotonic() + 5
    while job.family() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert job.family() == []


def test_the_campaign_sees_other_bytes_and_lost_files(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "logs").mkdir(parents=True)
    (run / "logs" / "sft.jsonl").write_text('{"loss": 1.5, "step_time": 3.1}\n')
    (run / "metrics.json").write_text('{"mIoU": 3, "seconds": 5}')
    whole = fault_runs.results(run)
    (run / "logs" / "sft.jsonl").write_text('{"loss": 1.5, "step_time": 9.9}\n')
    assert compared("x", whole, fault_runs.results(run)) == []
    (run / "logs" / "sft.jsonl").write_text('{"loss": 1.6, "step_time": 9.9}\n')
    (run / "metrics.json").unlink()
    assert [event[0] for event in compared("x", whole, fault_runs.results(run))] == ["lost", "wrong"]
