"""A small run folder made by code, so that the views can be tried before and without a real run.

Every frame of its videos carries its own number as a row of black and white blocks, so that a test can read from
the screen which frame is really shown.
"""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import numpy as np

from timer1lib.files import atomic_write_json, atomic_write_jsonl
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Prediction, Sample
from timer1lib.spans import iou

WIDTH, HEIGHT, BITS, BLOCK = 192, 108, 10, 12
TYPES = ("object appears", "background changes", "two objects meet", "counting")
COLOURS = {"red": (214, 60, 60), "blue": (60, 110, 220), "green": (60, 170, 90), "yellow": (230, 200, 60)}


def draw_frame(index: int, seconds: float, window: tuple[float, float], colour: tuple[int, int, int]) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) uint8: a disc of the colour while the window lasts, and the frame's number in blocks."""
    image = np.full((HEIGHT, WIDTH, 3), (38, 42, 52), np.uint8)
    image[70:] = (58, 66, 60)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    if window[0] <= seconds < window[1]:
        share = (seconds - window[0]) / (window[1] - window[0])
        centre = 30 + share * (WIDTH - 60)
        image[(x - centre) ** 2 + (y - 58) ** 2 < 22**2] = colour
    drift = 20 + (seconds * 6) % (WIDTH - 40)
    image[(abs(x - drift) < 7) & (abs(y - 88) < 7)] = (150, 150, 160)
    for bit in range(BITS):
        image[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 if index >> bit & 1 else 0
    return image


def write_video(
    path: Path, seconds: float, window: tuple[float, float], colour: tuple[int, int, int], fps: int = 10, codec: str = "libx264"
) -> None:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        stream.options = (
            {"crf": "18", "g": "10"} if codec == "libx264" else {"crf": "24", "b:v": "0", "deadline": "realtime", "cpu-used": "8"}
        )
        for index in range(round(seconds * fps)):
            frame = av.VideoFrame.from_ndarray(draw_frame(index, index / fps, window, colour), format="rgb24")
            frame.pts = index
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode())


def answer(span: tuple[float, float] | None, colour: str, rng: random.Random) -> str:
    if span is None:
        return f"<think>a {colour} disc, perhaps</think><answer>unsure</answer>"
    a, b = max(0.0, span[0] - rng.uniform(0, 2)), span[1] + rng.uniform(0, 2)
    return (
        f"<think>The {colour} disc is not there at first. Something moves from {a:.1f} to {b:.1f} seconds, "
        f"and I see the disc between {span[0]:.1f} and {span[1]:.1f}.</think><answer>{span[0]:.2f} to {span[1]:.2f}</answer>"
    )


def make_run(root: Path, samples: int = 24, videos: int = 6, seed: int = 0) -> RunFolder:
    """A run with `samples` test samples on `videos` videos, three checkpoints, rollouts, logs, metrics and audit."""
    rng = random.Random(seed)
    run = RunFolder(root)
    folder = root / "videos"
    scenes = []
    for i in range(videos):
        seconds = rng.choice([8.0, 10.0, 12.0, 16.0])
        start = round(rng.uniform(1, seconds * 0.5), 1)
        window = (start, round(start + rng.uniform(1.5, seconds * 0.4), 1))
        colour = rng.choice(list(COLOURS))
        name, codec = [("mp4", "libx264"), ("webm", "libvpx-vp9"), ("mkv", "libx264")][i % 3 if i < 3 else 0]
        write_video(folder / f"clip_{i}.{name}", seconds, window, COLOURS[colour], codec=codec)
        scenes.append((f"clip_{i}.{name}", seconds, window, colour))
    run.set_video_root(folder)

    rows: list[Sample] = []
    for i in range(samples):
        video, seconds, window, colour = scenes[i % videos]
        kind = TYPES[i % len(TYPES)]
        rows.append(
            Sample(f"s{i:03d}", video, f"the {colour} disc crosses the field", seconds, [window], kind, "made by code", "test_id")
        )
    half = max(1, samples * 2 // 3)
    for split, part in (("test_id", rows[:half]), ("test_ood", rows[half:])):
        run.write_samples(split, part)
    run.write_samples(
        "train",
        [Sample(f"t{i}", s[0], f"the {s[3]} disc crosses", s[1], [s[2]], TYPES[0], split="train") for i, s in enumerate(scenes)],
    )
    atomic_write_json(
        run.data("splits.json"),
        {
            "train": {"kind": "grounding", "n": videos},
            "test_id": {"kind": "grounding", "n": half},
            "test_ood": {"kind": "grounding", "n": samples - half},
        },
    )

    scores: dict[str, dict[str, list[float]]] = {}
    for name, noise, silent in (("base", 0.30, 0.2), ("sft", 0.16, 0.05), ("grpo", 0.07, 0.0)):
        for split, part in (("test_id", rows[:half]), ("test_ood", rows[half:])):
            predictions = []
            for sample in part:
                width = sample.duration or 1.0
                span: tuple[float, float] | None = None
                if rng.random() >= silent:
                    a = min(max(0.0, sample.window[0] + rng.gauss(0, noise) * width), width - 1)
                    span = (round(a, 2), round(min(width, max(a + 0.6, sample.window[1] + rng.gauss(0, noise) * width)), 2))
                text = answer(span, sample.query.split()[1], rng)
                predictions.append(Prediction(sample.id, *(span or (None, None)), text, "timer1", name))
                scores.setdefault(split, {}).setdefault(name, []).append(iou(span, sample.window))
            atomic_write_jsonl(run.predictions(name, split), (row.to_json() for row in predictions))
    _logs(run, scenes, rng)
    _metrics(run, scores, rows)
    run.params.write_text("name: made-by-code\nshared:\n  model: assets/tiny-qwen3-vl\n  seed: 0\n")
    atomic_write_json(
        run.manifest,
        {
            "git_commit": "0123abcd",
            "seed": 0,
            "started": "2026-11-21T01:00:00Z",
            "packages": {"torch": "2.15.0"},
            "machine": {"cpus": 2},
        },
    )
    return run


def rival(run: RunFolder, root: Path) -> RunFolder:
    """A second run over the same samples and videos: its answers are the first one's, moved; s001's grpo answer is the truth."""
    for path in sorted(run.root.rglob("*.json*")):
        if path.relative_to(run.root).parts[0] in ("data", "predictions", "logs"):
            (root / path.relative_to(run.root)).parent.mkdir(parents=True, exist_ok=True)
            (root / path.relative_to(run.root)).write_bytes(path.read_bytes())
    made, rng = RunFolder(root), random.Random(7)
    made.set_video_root(run.video_root)
    for split in ("test_id", "test_ood"):
        truth = {sample.id: sample.window for sample in run.read_samples(split)}
        for name in ("base", "sft", "grpo"):
            rows = made.read_predictions(name, split)
            for row in rows:
                if row.id == "s001" and name == "grpo":
                    row.start, row.end = truth[row.id]
                elif row.start is not None and row.end is not None:
                    move = rng.uniform(-1.0, 1.0)
                    row.start, row.end = max(0.0, round(row.start + move, 2)), round(row.end + move, 2)
            atomic_write_jsonl(made.predictions(name, split), (row.to_json() for row in rows))
    return made


def spoiled(run: RunFolder) -> RunFolder:
    """Of the run's five videos clip_1 is gone, clip_2 cut off, and clip_3 damaged from its middle on, its index whole."""
    folder = run.video_root
    (folder / "clip_1.webm").unlink()
    cut = (folder / "clip_2.mkv").read_bytes()
    (folder / "clip_2.mkv").write_bytes(cut[: len(cut) // 3])
    damaged = bytearray((folder / "clip_3.mp4").read_bytes())
    start = damaged.index(b"mdat") + 4
    end = damaged.index(b"moov") if damaged.index(b"moov") > start else len(damaged)
    middle = (start + end) // 2
    damaged[middle:end] = bytes(random.Random(0).randbytes(end - middle))
    (folder / "clip_3.mp4").write_bytes(damaged)
    return run


def _logs(run: RunFolder, scenes: list[tuple[str, float, tuple[float, float], str]], rng: random.Random) -> None:
    atomic_write_jsonl(
        run.log("sft"),
        ({"step": s, "loss": 2.4 * 0.97**s + 0.3 + rng.gauss(0, 0.03), "learning_rate": 5e-4} for s in range(1, 101, 2)),
    )
    atomic_write_jsonl(
        run.log("grpo"),
        (
            {"step": s, "loss": rng.gauss(0, 0.02), "reward": 0.5 + 0.6 * (1 - 0.95**s) + rng.gauss(0, 0.04), "reward_std": 0.25, "kl": 0.002 * s,
             "rewards/tiou": 0.25 + 0.3 * (1 - 0.95**s) + rng.gauss(0, 0.03), "completions/mean_length": 40 + rng.gauss(0, 2), "clip_ratio": 0.01}
            for s in range(1, 61)
        ),
    )  # fmt: skip
    groups = []
    for step in (1, 10, 20, 40):
        for i, (_, seconds, window, colour) in enumerate(scenes[:3]):
            spans, texts, rewards = [], [], []
            for g in range(8):
                a = min(max(0.0, window[0] + rng.gauss(0, 3.0 / step**0.4)), seconds - 1)
                span = None if g == 7 and step == 1 else (round(a, 2), round(min(seconds, a + rng.uniform(1, 5)), 2))
                spans.append(span)
                texts.append(answer(span, colour, rng))
                rewards.append(round(iou(span, window) + (1.0 if span else 0.0), 4))
            groups.append(
                {"step": step, "id": f"t{i}", "gt": list(window), "completions": texts, "rewards": rewards, "spans": spans}
            )
    atomic_write_jsonl(run.log("rollouts"), groups)
    atomic_write_jsonl(
        run.data("difficulty"),
        ({"id": f"t{i}", "iou": rng.random() ** 1.5, "start": 0.0, "end": 1.0, "completion": ""} for i in range(200)),
    )
    for epoch in (1, 2, 3):
        rows = [
            {"id": f"t{i}", "iou": rng.random() ** (1.4 - 0.2 * epoch), "kept": True, "reason": ""}
            for i in range(120 - 20 * epoch)
        ]
        for row in rows:
            row["kept"] = 0 < row["iou"] <= 0.7
            row["reason"] = "" if row["kept"] else "too easy" if row["iou"] > 0.7 else "too hard"
        atomic_write_jsonl(run.data(f"filter_epoch{epoch}"), rows)


def _metrics(run: RunFolder, scores: dict[str, dict[str, list[float]]], rows: list[Sample]) -> None:
    splits: dict[str, dict[str, object]] = {}
    for split, by_name in scores.items():
        splits[split] = {}
        for name, values in by_name.items():
            a = np.array(values)
            entry: dict[str, object] = {"n": len(a), "answered": len(a), "unparsable": 0, "missing": 0, "comparison": ">=", "mIoU": 100 * float(a.mean()), "parse_rate": 100.0, "coverage": 100.0,
                     "form_rate": 96.0, "mean_relative_length": 0.34, "true_relative_length": 0.29, "boundary_error_s": 1.2, "boundary_error_relative": 0.12}  # fmt: skip
            interval = {"mIoU": [100 * float(a.mean()) - 4, 100 * float(a.mean()) + 4]}
            for m in (0.3, 0.5, 0.7):
                entry[f"R1@{m}"] = 100 * float((a >= m).mean())
                interval[f"R1@{m}"] = [100 * float((a >= m).mean()) - 6, 100 * float((a >= m).mean()) + 6]
            entry["interval"] = interval
            entry["by_type"] = {
                kind: {"n": 4, "R1@0.5": 100 * float((a[i::4] >= 0.5).mean()), "mIoU": 100 * float(a[i::4].mean())}
                for i, kind in enumerate(TYPES)
                if len(a[i::4])
            }
            splits[split][name] = entry
    baselines = {split: {"whole video": {"mIoU": 28.6, "R1@0.3": 40.0, "R1@0.5": 12.0, "R1@0.7": 3.0}} for split in splits}
    signatures = {"test_id": {"grpo": {"scale_bias": {"value": 0.12, "interval": [0.05, 0.2], "samples": ["s001", "s003"]}}}}
    failed = [{"id": rows[0].id, "split": "test_id", "error": "clip_9.mp4: no such video"}]
    atomic_write_json(
        run.metrics, {"comparison": ">=", "splits": splits, "baselines": baselines, "signatures": signatures, "failed": failed}
    )
