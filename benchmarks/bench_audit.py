"""17,000 rows read, checked and written: `python benchmarks/bench_audit.py [ANNOTATIONS]`.

Without a file it makes one in ActivityNet Captions' layout, of the same size (4,885 videos, 17,031 queries).
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from pathlib import Path

from timer1lib.data.audit import audit_files
from timer1lib.files import atomic_write_json, atomic_write_jsonl


def make(path: Path) -> None:
    """A file like val_2: 3 to 4 sentences a video."""
    rng = random.Random(0)
    words = [
        "a",
        "man",
        "woman",
        "dog",
        "is",
        "seen",
        "walking",
        "into",
        "the",
        "room",
        "and",
        "holding",
        "up",
        "ball",
        "while",
        "people",
        "watch",
        "him",
        "on",
        "field",
        "then",
    ]
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
            "sentences": [" ".join(rng.choices(words, k=13)) for _ in range(count)],
        }
    path.write_text(json.dumps(table))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "annotations.json"
        if len(sys.argv) == 1:
            make(path)
        for _ in range(3):
            begin = time.perf_counter()
            report = audit_files([path])
            middle = time.perf_counter()
            (samples,) = report.samples.values()
            atomic_write_jsonl(Path(folder) / "out.jsonl", (sample.to_json() for sample in samples))
            atomic_write_json(Path(folder) / "audit.json", report.to_json())
            end = time.perf_counter()
            parts = f"read and audited {middle - begin:.2f} s, written {end - middle:.2f} s, all {end - begin:.2f} s"
            print(f"{report.rows['in']} rows: {parts}")


if __name__ == "__main__":
    main()
