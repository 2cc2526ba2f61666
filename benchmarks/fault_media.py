"""Damaged videos, and pages of runs in which scripts are planted, for the fault campaign (see faults.py)."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from fault_inputs import as_bytes
from fault_tools import Bench, Tally, time_limit

VIDEO_SECONDS = 60.0
"""Longest that one damaged video may keep a decoder."""


def drawn_videos(folder: Path, seed: int) -> list[Path]:
    """Small undamaged videos whose pictures say which frame they are: four containers and codecs, and one of the world."""
    from make_videos import write_video

    from timer1lib.world.splits import synth

    steps = range(0, 4000, 40)
    made = [
        write_video(folder / "plain.mp4", steps),
        write_video(folder / "b_frames.mp4", steps, b_frames=2),
        write_video(folder / "h264.mkv", steps),
        write_video(folder / "vp8.webm", steps, codec="libvpx"),
        write_video(folder / "mpeg4.mkv", steps, codec="mpeg4"),
    ]
    synth(folder / "world", 1, seed, longest=12.0, workers=1)
    return [*made, *sorted((folder / "world").rglob("*.mp4"))]


def damaged_video(rng: random.Random, kind: int, source: Path, secret: Path) -> tuple[str, str, bytes]:
    """(what was done, suffix, bytes) of a damaged copy; the playlists among them point at `secret`."""
    raw, suffix = bytearray(source.read_bytes()), source.suffix
    size = len(raw)
    match kind % 12:
        case 0:
            return "cut off", suffix, bytes(raw[: rng.randrange(1, size)])
        case 1 | 2 | 3:
            low, high, name = (
                (0, min(4096, size), "header"),
                (size // 3, 2 * size // 3, "middle"),
                (size - min(4096, size), size, "tail"),
            )[kind % 12 - 1]
            for _ in range(rng.choice((1, 10, 100))):
                raw[rng.randrange(low, high)] = rng.randrange(256)
            return f"bytes flipped in the {name}", suffix, bytes(raw)
        case 4:
            at, length = rng.randrange(size), rng.randrange(1, 20_000)
            raw[at : at + length] = bytes(len(raw[at : at + length]))
            return "zeroed", suffix, bytes(raw)
        case 5:
            at = rng.randrange(size)
            del raw[at : at + rng.randrange(1, size // 5)]
            return "packets cut out", suffix, bytes(raw)
        case 6:
            return "wrong ending", rng.choice((".mp4", ".mkv", ".webm", ".avi")), bytes(raw)
        case 7:
            for name in (b"mvhd", b"mdhd", b"tkhd", b"stts", b"stsz", b"stco", b"stsc", b"ctts", b"elst"):
                at = raw.find(name)
                if at > 0 and rng.random() < 0.3:
                    at += rng.choice((8, 12, 16, 20, 24))
                    raw[at : at + 4] = rng.choice(
                        (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), bytes(3) + b"\1", rng.randbytes(4))
                    )
            return "wrong headers", suffix, bytes(raw)
        case 8:
            return "two files in one", suffix, bytes(raw) + bytes(raw)
        case 9:
            segment = f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{secret}\n#EXT-X-ENDLIST\n".encode()
            suffix, content = rng.choice(
                ((".mp4", segment), (".m3u8", segment), (".mp4", f"ffconcat version 1.0\nfile '{secret}'\n".encode()))
            )
            return "playlist", suffix, content
        case 10:
            others = (
                b"",
                b"hello\n" * 100,
                b"{}",
                bytes(100_000),
                rng.randbytes(100_000),
                b"\0\0\0\x18ftypisom\0\0\0\1isomiso2",
                b"\x1aE\xdf\xa3",
            )
            return "no video", suffix, rng.choice(others)
        case _:
            return "undamaged", suffix, bytes(raw)


def decoded(path: Path, decoder: str = "auto") -> Any:
    from timer1lib.clock.frames import Sampling
    from timer1lib.video.decode import read_frames

    sampling = Sampling(rule="frames", frames=24, min_frame_pixels=32 * 32, total_pixels=24 * 64 * 64)
    return read_frames(path, sampling, decoder=decoder)


def strict_complaint(path: Path) -> str:
    """What a full, strict decoding says about a file; "" where nothing in the file tells that it is damaged."""
    import av

    try:
        with av.open(
            str(path), options={"err_detect": "crccheck+bitstream+buffer+explode", "protocol_whitelist": "file"}
        ) as container:
            stream = container.streams.video[0]
            stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
            shown = sum(1 for packet in container.demux(stream) for frame in packet.decode() if not frame.is_corrupt)
        with av.open(str(path)) as container:
            packets = [p for p in container.demux(container.streams.video[0]) if p.size and not p.is_discard]
        return "" if shown == len(packets) else f"{shown} frames of {len(packets)} packets"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def judge_video(path: Path, source: Path, cache: Path) -> dict[str, str]:
    """What each of the three ways into a file makes of it: probe, frames, the browser's copy."""
    import numpy as np

    from timer1lib.errors import Timer1Error
    from timer1lib.video.probe import timeline
    from timer1lib.view.playable import playable

    result = {}
    for name, look in (("probe", timeline), ("frames", decoded), ("playable", lambda file: playable(file, cache))):
        try:
            found = look(path)
            result[name] = "ok"
        except Timer1Error as error:
            result[name] = "refused" if path.name in str(error) else f"crashed: does not name the file: {error}"
        except Exception as error:
            result[name] = f"crashed: {type(error).__name__}: {error}"
        if name != "frames" or result[name] != "ok":
            continue
        truth = decoded(source, found.decoder)
        same = found.pixels.shape == truth.pixels.shape and np.allclose(found.times_s, truth.times_s, atol=2e-3)
        if not same or np.abs(found.pixels.astype(int) - truth.pixels.astype(int)).mean(axis=(1, 2, 3)).max() > 2.0:
            complaint = strict_complaint(path)
            result[name] = f"wrong: {complaint}" if complaint else "another video"
    return result


def video_worker() -> None:
    """Judge files that stdin names (`damaged`, `undamaged`, `cache`, tabs between), a JSON line each on the real stdout."""
    answers_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        path, source, cache = map(Path, line.rstrip("\n").split("\t"))
        answers_to.write(json.dumps(judge_video(path, source, cache)) + "\n")
        answers_to.flush()


class VideoJudge:
    """`judge_video` in another process, which may crash or hang there."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.process: subprocess.Popen[str] | None = None

    def __call__(self, path: Path, source: Path) -> dict[str, str]:
        if self.process is None or self.process.poll() is not None:
            command = [
                sys.executable,
                "-c",
                f"import sys; sys.path[:0] = {sys.path[:2]!r}; import fault_media; fault_media.video_worker()",
            ]
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=Path(__file__).parent,
            )
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{path}\t{source}\t{self.cache}\n")
        self.process.stdin.flush()
        try:
            with time_limit(VIDEO_SECONDS):
                line = self.process.stdout.readline()
        except TimeoutError:
            self.close()
            return {"frames": f"hung: {VIDEO_SECONDS:.0f} s"}
        return json.loads(line) if line else {"frames": f"crashed: the interpreter died ({self.process.wait()})"}

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def audited(folder: Path, names: Sequence[str], cache: Path) -> set[str]:
    """The videos that the audit drops, decoding them whole as 01_curate does."""
    from timer1lib.data.audit import audit_files
    from timer1lib.video.store import FrameStore

    rows = [{"id": n, "video": n, "query": f"person opens the door {n}", "windows": [[0.5, 2.5]], "duration": 4.0} for n in names]
    (folder / "rows.jsonl").write_bytes(as_bytes(".jsonl", rows))
    with FrameStore(cache, workers=2) as store:
        report = audit_files([folder / "rows.jsonl"], videos=folder, deep=store)
    return {finding.id for finding in report.details if finding.code in ("undecodable", "damaged")}


def videos(bench: Bench, count: int = 250) -> list[Tally]:
    """Damaged videos: refused, by the audit or when they are opened, or the frames of the undamaged file."""
    tally, rng = Tally("videos"), bench.rng("videos")
    sources, folder = drawn_videos(bench.new("undamaged"), bench.seed), bench.new("videos")
    made: dict[str, tuple[str, Path]] = {}
    for number in range(count):
        source = sources[number % len(sources)]
        what, suffix, content = damaged_video(rng, number % 12 if number < 12 else rng.randrange(12), source, sources[0])
        name = f"{number}{suffix}"
        (folder / name).write_bytes(content)
        made[name] = (what, source)
    cache = bench.new("video cache")
    dropped: set[str] = set()
    try:
        with time_limit(count * VIDEO_SECONDS):
            dropped = audited(folder, list(made), cache)
    except Exception as error:
        tally.also("hung" if isinstance(error, TimeoutError) else "crashed", "audit", repr(error))
    judge, late, other = VideoJudge(cache), 0, 0
    for name, (what, source) in made.items():
        result = judge(folder / name, source)
        worst = next((v for way in ("hung", "crashed") for v in result.values() if v.startswith(way)), "")
        frames = result.get("frames", "")
        if worst:
            tally.add(worst.partition(":")[0], what, f"{source.name}: {result}")
        elif what == "playlist" and "ok" in result.values():
            tally.add("wrong", what, f"a playlist was opened, and what it points to: {result}")
        elif what == "undamaged" and (name in dropped or frames != "ok"):
            tally.add("lost", what, f"{source.name}: an undamaged video was refused: {result}")
        elif name in dropped or frames == "refused":
            tally.add("refused", what)
            late += name not in dropped
        else:
            tally.add("wrong" if frames.startswith("wrong") else "right", what, f"{source.name}: {result}")
            other += frames == "another video"
    judge.close()
    tally.notes.append(f"{len(dropped)} refused by the audit, {late} only when they were opened")
    tally.notes.append(
        f"{other} of the right ones show other pictures, but nothing in the file tells: a strict decoding finds no fault"
    )
    return [tally]


PAYLOADS = (
    "<script>planted()</script>", "</script><script>planted()</script>", '<img src=x onerror="planted()">',
    '"><svg onload="planted()">',
    "'><img src=x onerror=planted()>", "</style><script>planted()</script>", "<!--<script>planted()</script>",
    '<a href="javascript:planted()">x</a>', "</title><script>planted()</script>", '<iframe srcdoc="<script>planted()</script>">',
    "</pre></details><script>planted()</script>", "[x](javascript:planted())", "&lt;script&gt;planted()&lt;/script&gt;",
    "\u2028<b onmouseover=planted()>b</b>", "${planted()}`;planted();//", "</textarea><script>planted()</script>",
)  # fmt: skip


class Live(HTMLParser):
    """Places of a page where a planted text would run: an element of its own, a handler, an address."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._script = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._script = tag == "script"
        for name, value in attributes:
            runs = name.startswith("on") or name in ("href", "src", "srcdoc", "action", "formaction")
            if runs and "planted" in (value or ""):
                self.found.append(f"<{tag} {name}={value!r:.80}>")

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        if self._script and data.lstrip().startswith("planted"):
            self.found.append(f"<script>{data[:80]}")


def pages(bench: Bench, count: int = 16) -> list[Tally]:
    """Scripts planted in every text of a run: none may come alive in the report, the inspector or the scrubber."""
    from view_run import make_run

    from timer1lib.view.inspector import Inspector
    from timer1lib.view.items import load_items
    from timer1lib.view.report import write_report
    from timer1lib.view.scrubber import SegmentScrubber

    tally = Tally("pages")
    for number in range(count):
        payload = PAYLOADS[number % len(PAYLOADS)]
        run = make_run(bench.new(f"page{number}"), samples=6, videos=1, seed=bench.seed)
        plant(run.root, payload)
        cache = bench.new("page cache")
        items: list[Any] = []
        for name, make in {
            "report": lambda run=run, cache=cache: write_report(run, cache).read_text(),
            "scrubber": lambda run=run, cache=cache, items=items: SegmentScrubber(run, items, cache).static_html(),
            "inspector": lambda run=run, cache=cache, items=items: Inspector(run, items, cache).static_html(),
        }.items():
            try:
                items[:] = load_items(run)
                live = Live()
                live.feed(make())
            except Exception as error:
                tally.add("crashed", name, f"{payload!r}: {error!r}")
                continue
            tally.add("wrong" if live.found else "right", name, f"{payload!r} runs as {live.found[:2]}")
        shutil.rmtree(run.root)
    return [tally]


def plant(root: Path, payload: str) -> None:
    """Put a text into every free text that a run's files hold."""
    texts = ("query", "type", "source", "completion", "completions", "git_commit", "started", "text", "error")

    def planted(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: planted(inner, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [planted(inner, key) for inner in value]
        return f"{value} {payload}" if isinstance(value, str) and key in texts else value

    for path in [*(root / "data").glob("*.jsonl"), *(root / "predictions").glob("*.jsonl"), *(root / "logs").glob("*.jsonl")]:
        rows = [planted(json.loads(line)) for line in path.read_text().splitlines() if line.strip()]
        path.write_bytes(as_bytes(".jsonl", rows))
    for path in (root / "metrics.json", root / "manifest.json"):
        path.write_text(json.dumps(planted(json.loads(path.read_text()))))
    ids = [json.loads(line)["id"] for line in (root / "data" / "test_id.jsonl").read_text().splitlines()]
    notes = [{"id": name, "label": "note", "text": payload} for name in ids[:3]]
    (root / "notes.jsonl").write_bytes(as_bytes(".jsonl", notes))
