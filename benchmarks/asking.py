"""What sharing a video among its questions saves, on the samples of a finished run.

    python benchmarks/asking.py outputs/tiny [--questions 800] [--frames 32] [--json]

`repeated` asks every question with `generate`, its video's features computed once; `shared_prefix` reads the video once for all
questions about it. Both answer greedily, turn about, one thread, in batches of 64; seconds are of processor time, without
decoding (a first round fills the cache of frames).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from timer1lib.files import read_jsonl
from timer1lib.inference.generate import predict
from timer1lib.models.load import load_model
from timer1lib.params.sections import SharedParams
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Sample

WAYS = ("repeated", "shared_prefix")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run of the embedded world")
    parser.add_argument("--questions", type=int, default=800, help="samples of its training pool")
    parser.add_argument("--frames", type=int, default=32, help="frames a video")
    parser.add_argument("--rounds", type=int, default=3, help="times that each way is timed; the least counts")
    parser.add_argument("--json", action="store_true", help="JSON alone on standard output")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = RunFolder(options.run)
    samples = [Sample.from_json(row) for row in read_jsonl(run.data("train"))][: options.questions]
    loaded = load_model(run.checkpoint("grpo"))
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    said: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as place:
        for turn in range(options.rounds + 1):
            for way in WAYS:
                shared = SharedParams(cache_dir=f"{place}/cache", workers=0, asking=way, frames=options.frames)
                out, begun = Path(place) / f"{way}{turn}.jsonl", time.process_time()
                answers = predict(loaded, samples, run.videos().file, shared, out, max_new_tokens=48, batch_size=64)
                if turn:
                    seconds[way].append(time.process_time() - begun)
                said[way] = [answer.completion for answer in answers]
    result = {
        "questions": len(samples),
        "videos": len({sample.video for sample in samples}),
        "equal": sum(a == b for a, b in zip(*said.values(), strict=True)),
        **{f"{way} ms a question": round(1000 * min(taken) / len(samples), 2) for way, taken in seconds.items()},
    }
    sys.stdout.write((json.dumps(result) if options.json else "\n".join(f"{k}: {v}" for k, v in result.items())) + "\n")


if __name__ == "__main__":
    main()
