"""How long 01's audit takes: rows alone, and rows with their videos in one process and in several.

    python benchmarks/bench_audit.py [ANNOTATIONS]
    python benchmarks/bench_audit.py --videos 12000 [--workers 2]

Without a file the first makes one in ActivityNet Captions' layout, of the same size (4,885 videos, 17,031 queries). The
second makes small videos (10 frames, 64 x 48) in two splits, a tenth of them with a twin of the same length in the other,
and runs the look-up, probing, fingerprints and clock once in place and once in worker processes; the results must be equal.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

from timer1lib.clock import Sampling
from timer1lib.data.audit import audit_files
from timer1lib.files import atomic_write_json, atomic_write_jsonl
from timer1lib.inference.clock_report import max_clock_error
from timer1lib.schema import Sample

WORDS = ("a", "man", "dog", "is", "seen", "walking", "into", "the", "room", "and", "holding", "up", "ball", "while", "people")


def make(path: Path) -> None:
    """A file like val_2: 3 to 4 sentences a video."""
    rng = random.Random(0)
    table = {}
    left = 17_031
    for i in range(4_885):
        count = 4 if left - 4 >= 3 * (4_884 - i) else 3
        count = left if i == 4_884 else count
        left -= count
        duration = round(rng.uniform(10, 220), 2)
        starts = [round(rng.uniform(0, duration * 0.8), 2) for _ in range(count)]
        table[f"v_{i:011d}"] = {
            "duration": duration,
            "timestamps": [[s, round(min(duration, s + rng.uniform(1, duration / 2)), 2)] for s in starts],
            "sentences": [" ".join(rng.choices(WORDS, k=13)) for _ in range(count)],
        }
    path.write_text(json.dumps(table))


def rows_alone(path: Path | None, folder: Path) -> None:
    if path is None:
        make(path := folder / "annotations.json")
    for _ in range(3):
        begin = time.perf_counter()
        report = audit_files([path])
        middle = time.perf_counter()
        (samples,) = report.samples.values()
        atomic_write_jsonl(folder / "out.jsonl", (sample.to_json() for sample in samples))
        atomic_write_json(folder / "audit.json", report.to_json())
        end = time.perf_counter()
        parts = f"read and audited {middle - begin:.2f} s, written {end - middle:.2f} s, all {end - begin:.2f} s"
        print(f"{report.rows['in']} rows: {parts}")


def small_video(path: Path, milliseconds: int, number: int) -> None:
    """Ten frames spread over a duration; what they show differs by number."""
    import av
    import numpy as np

    rng = np.random.default_rng(number)
    pictures = np.kron(rng.integers(0, 255, (10, 6, 8, 3), dtype=np.uint8), np.ones((1, 8, 8, 1), dtype=np.uint8))
    clock = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(25), options={"preset": "ultrafast", "bf": "0", "sc_threshold": "0"}
        )
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = clock
        stream.time_base = clock
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base, frame.duration = i * milliseconds // 10, clock, milliseconds // 10
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def with_videos(count: int, workers: int, folder: Path) -> None:
    begin = time.perf_counter()
    rows: list[dict[str, Any]] = []
    for i in range(count):
        twin = i % 10 == 9
        # lengths a second apart, which nothing but a twin shares
        small_video(folder / f"{i}.mp4", 2000 + 1000 * (i - twin), i - twin if i % 20 == 9 else i)
        rows.append({"id": str(i), "video": f"{i}.mp4", "query": f"thing {i} moves about", "windows": [[0.2, 1.5]]})
        rows[-1]["split"] = "test" if twin else "train"
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"{count} videos made in {time.perf_counter() - begin:.0f} s")
    samples = [Sample(row["id"], row["video"], row["query"], 1.0) for row in rows]
    results = []
    for name, many in (("one process", 0), (f"{workers} processes", workers)):
        begin = time.perf_counter()
        report = audit_files([folder / "rows.jsonl"], videos=folder, workers=many)
        middle = time.perf_counter()
        sampling = Sampling("frames", frames=8, factor=28)
        clock = max_clock_error(samples, folder, sampling, "assets/tiny-qwen3-vl", workers=many)
        end = time.perf_counter()
        results.append((report.to_json(), clock))
        print(f"{name}: probed and compared {middle - begin:.1f} s, clocks {end - middle:.1f} s, all {end - begin:.1f} s")
    print("findings:", results[0][0]["findings"], "| equal:", results[0] == results[1])
    assert results[0] == results[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path, nargs="?")
    parser.add_argument("--videos", type=int, default=0, help="make so many videos and look at them too")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        if given.videos:
            with_videos(given.videos, given.workers, Path(place))
        else:
            rows_alone(given.annotations, Path(place))


if __name__ == "__main__":
    main()
