"""The fault campaign: everything that has ever broken, done on purpose, many times, with named seeds.

    python benchmarks/faults.py [--small] [--only answers,videos,...] [--seed 0] [--jobs 2] [--json OUT] [--folder DIR]

One line a part: how many faults were tried, how many came out right, how many were refused cleanly (one line that names the
culprit, exit status 2), and what must be 0:

    crashed         a traceback, "a fault of timer1's own", two lines, a line without the culprit; a run that cannot go on
    hung            no end in time, or a process left behind
    silently wrong  a result that contradicts an independent reading, or has other bytes than an undisturbed run
    lost            a row, a file or a finished stage that is gone; an answer beyond doubt that is not read

The exit status is 1 where any of these four is above 0. Nothing is fetched; everything is written into a temporary folder.
Part k draws from `random.Random("SEED/k")`, so that it can be run again alone. What is done to what: `fault_inputs` (answers,
annotations, predictions), `fault_media` (videos, pages), `fault_runs` (kills, disk), and here the command lines.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

from fault_inputs import annotations, answers, as_bytes, made_sources, predictions
from fault_media import pages, videos
from fault_runs import DISK, disk, kills, moments
from fault_tools import TIMER1, Bench, Event, Tally, contents, run_job

TITLES = ("part", "tried", "right", "refused cleanly", "crashed", "hung", "silently wrong", "lost", "time")

# ---------------------------------------------------------------------------------------------------------- command lines

COMMANDS = """
bogus | bogus
run | PARAMS
run tiny.yaml --bogus | --bogus
run nope.yaml | nope.yaml
run folder | folder
run video.mp4 | video.mp4
run empty.yaml | empty.yaml
run list.yaml | list.yaml
run tab.yaml | tab.yaml
run twice.yaml | name
run binary.yaml | binary.yaml
run deep.yaml | deep.yaml
run tag.yaml | tag.yaml
run number.yaml | seed number.yaml
run climbing.yaml | name
run tiny.yaml -p grpo.betta=1 | betta
run tiny.yaml -p grpo.beta | grpo.beta
run tiny.yaml -p grpo.beta=abc | grpo.beta
run tiny.yaml -p sft.steps=1.5 | sft.steps
run tiny.yaml -p sft.learning_rate=.nan | learning_rate
run tiny.yaml -p shared.seed=4294967296 | seed
run tiny.yaml -p shared.seed=HUGE | seed
run tiny.yaml -p shared.cache_dir= | cache_dir
run tiny.yaml -p shared.form=nope | nope
run tiny.yaml -p shared.model=nope --until 02 | nope
run tiny.yaml -p grpo.rewards=tiuo:1.0 | tiuo
run tiny.yaml --from 09 | 09
run tiny.yaml --from 04 --until 02 | 04
run tiny.yaml --from 04 | 01_curate
run tiny.yaml --out video.mp4 | video.mp4
run tiny.yaml --out LONG | LONG name
ground no.mp4 q | no.mp4
ground video.mp4 '' | query
ground video.mp4 q --model nope | nope
ground video.mp4 q --model '' | model
ground video.mp4 BYTES | query UTF-8
ground folder q | folder
score no.jsonl truth.jsonl | no.jsonl
score empty.jsonl truth.jsonl | empty.jsonl
score truth.jsonl truth.jsonl --form nope | nope
score truth.jsonl truth.jsonl --repair x | repair
score video.mp4 truth.jsonl | video.mp4
audit nope.json | nope.json
audit truth.jsonl --format bogus | bogus
audit truth.jsonl --videos nope | nope
audit folder | folder
clock no.mp4 | no.mp4
clock video.mp4 --rule x | rule
synth out --videos 0 | videos
synth out --videos 1 --seed -1 | seed
synth video.mp4 --videos 1 | video.mp4
sweep nope.yaml | nope.yaml
sweep rows.yaml | rows
sweep set.yaml | sft.stepps stepps set
sweep set_other.yaml | other.yaml other
sweep rows.yaml --jobs 0 | jobs
compare nope | nope
inspect nope | nope
estimate nope | nope
pretrain out --steps x | steps
"""
"""A command line, and words of which its one line must hold one."""

PARAMS_FILES: dict[str, bytes] = {
    "tiny.yaml": b"name: tiny\ncurate: {train_videos: 1, test_videos: 1, ood_videos: 0, questions: 0}\n",
    "empty.yaml": b"",
    "list.yaml": b"- a\n- b\n",
    "tab.yaml": b"name: x\nshared:\n\tseed: 1\n",
    "twice.yaml": b"name: x\nname: y\n",
    "binary.yaml": b"\xff\xfe\x00\x01",
    "deep.yaml": b"a: " + b"[" * 5000 + b"]" * 5000,
    "tag.yaml": b"name: !!python/object/apply:os.system ['touch planted']\n",
    "number.yaml": b"name: x\nshared: {seed: " + b"9" * 5000 + b"}\n",
    "climbing.yaml": b"name: ../../evil\n",
    "rows.yaml": b"name: s\nbase: tiny.yaml\nrows: []\n",
    "set.yaml": b"name: s\nbase: tiny.yaml\nrows: [{name: a, set: {sft.stepps: 1}}]\n",
    "set_other.yaml": b"name: s\nbase: tiny.yaml\nrows: [{name: a, set: {other: 1}}]\n",
    "empty.jsonl": b"",
}
SPECIAL = {"HUGE": "9" * 5000, "LONG": "a" * 300, "BYTES": "caf\udce9"}


def commands(bench: Bench, count: int = 60) -> list[Tally]:
    """Mistaken command lines: exit status 2, one line that names the mistake, and nothing written."""
    from make_videos import write_video

    tally, folder, logs = Tally("command lines"), bench.new("commands"), bench.new("command logs")
    for name, content in PARAMS_FILES.items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir()
    (folder / "truth.jsonl").write_bytes(as_bytes(*made_sources()["timer1"]))
    write_video(folder / "video.mp4", range(0, 1000, 40))
    before = contents(folder)
    lines = [line for line in COMMANDS.splitlines() if line]
    picked = lines if count >= len(lines) else bench.rng("commands").sample(lines, count)

    def tried(numbered: tuple[int, str]) -> Event:
        number, line = numbered
        command, _, words = line.partition(" | ")
        typed = [SPECIAL.get(part, part).replace("=HUGE", f"={SPECIAL['HUGE']}") for part in shlex.split(command)]
        out = f"out{number}"
        if typed[0] in ("run", "sweep") and "--out" not in typed and len(typed) > 1:
            typed += ["--out", out]
        result = run_job([*TIMER1, *[out if part == "out" else part for part in typed]], logs, 120.0, cwd=folder)
        if fault := result.fault(*(SPECIAL.get(word, word) for word in words.split())):
            return fault[0], command, fault[1]
        if result.status == 0:
            return "wrong", command, "taken as if it were right"
        written = sorted(path.name for path in (folder / out).rglob("*")) if (folder / out).exists() else []
        return ("wrong", command, f"refused, but wrote {', '.join(written[:5])} first") if written else ("refused", command, "")

    with ThreadPoolExecutor(bench.jobs) as pool:
        for event in pool.map(tried, enumerate(picked)):
            tally.add(*event)
    now = {name: content for name, content in contents(folder).items() if not name.startswith("out")}
    if now != before:
        tally.also("wrong", "files written, changed or gone", ", ".join(sorted(set(now) ^ set(before))[:6]))
    return [tally]


# --------------------------------------------------------------------------------------------------------------- campaign

PARTS: dict[str, tuple[Callable[..., list[Tally]], int, int]] = {
    "answers": (answers, 100_000, 1000),
    "annotations": (annotations, 500, 40),
    "predictions": (predictions, 300, 20),
    "videos": (videos, 250, 14),
    "pages": (pages, 16, 2),
    "commands": (commands, 60, 4),
    "kills": (kills, 20, 1),
    "moments": (moments, 14, 1),
    "disk": (disk, len(DISK), 1),
}
"""What is done, how often, and how often in the small campaign."""


def campaign(bench: Bench, only: Sequence[str]) -> list[Tally]:
    tallies = []
    for name in only:
        part, many, few = PARTS[name]
        begun = time.monotonic()
        for tally in part(bench, few if bench.small else many):
            tally.seed, tally.seconds = f"{bench.seed}/{name}", time.monotonic() - begun
            tallies.append(tally)
            print("  ".join(tally.row()), flush=True, file=sys.stderr)
    return tallies


def report(tallies: Sequence[Tally], bench: Bench) -> str:
    """The table, in Markdown, and below it what was bad, by kind, with the first examples."""
    rows = [list(TITLES), *(tally.row() for tally in tallies)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(TITLES))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    for tally in tallies:
        for note in tally.notes:
            lines.append(f"\n{tally.part}: {note}")
        for kind, count in tally.about.most_common():
            lines.append(f"\n{tally.part}, seed {tally.seed}: {kind}: {count}")
            lines += [f"    {example}" for example in tally.examples[kind][:3]]
    machine = f"{os.cpu_count()} cores, {os.uname().machine}, Python {sys.version.split()[0]}"
    return "\n".join([f"{date.today()}, seed {bench.seed}, {machine}", "", *lines])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="a little of every part, as CI runs it")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="runs that are disturbed at the same time")
    parser.add_argument("--json", type=Path, help="where to write all counts and examples")
    parser.add_argument("--folder", type=Path, help="work here and leave everything, in place of a temporary folder")
    given = parser.parse_args()
    only = given.only.split(",")
    if unknown := sorted(set(only) - set(PARTS)):
        parser.error(f"no part {unknown[0]!r}; the parts are {', '.join(PARTS)}")
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True))
        )
        bench = Bench(folder.resolve(), given.seed, given.jobs, given.small)
        tallies = campaign(bench, only)
    print(report(tallies, bench))
    if given.json:
        given.json.write_text(json.dumps([tally.to_json() for tally in tallies], indent=1))
    return int(any(tally.bad for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
