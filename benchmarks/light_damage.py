"""Light damage that still decodes: how much of it the deep check finds, codec by codec.

    python benchmarks/light_damage.py [--files 200] [--seed 0]

Each file has one fault: a flipped bit, or two neighbouring packets' bytes swapped, in the coded pictures (headers and index
are left alone). A file counts where it can be opened and its frames differ from the undamaged file's: another picture (more
than 2 grey levels on average), another count or other times. `found` are those that `damage` or the probe complains about.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import av
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from timer1lib.errors import Timer1Error  # noqa: E402
from timer1lib.video.decode import damage  # noqa: E402

CODECS = {"h264": ("libx264", ".mp4"), "hevc": ("libx265", ".mp4"), "vp8": ("libvpx", ".webm"), "vp9": ("libvpx-vp9", ".webm"),
          "mpeg4": ("mpeg4", ".mkv"), "av1": ("libsvtav1", ".mkv")}  # fmt: skip


def frames_of(path: Path) -> tuple[list[float], list[np.ndarray]]:
    """Times and small grey pictures of every frame, as a player would show them."""
    with av.open(str(path)) as container:
        shown = [(float(f.time or 0), f.to_ndarray(format="gray")[::2, ::2].astype(int)) for f in container.decode(video=0)]
    return [time for time, _ in shown], [grey for _, grey in shown]


def packets_of(path: Path) -> list[tuple[int, int]]:
    """(place, size) in the file of every packet of more than 40 bytes."""
    with av.open(str(path)) as container:
        found = [(p.pos, p.size) for p in container.demux(video=0) if p.size and p.pos is not None and p.pos >= 0]
    raw = path.read_bytes()
    places = []
    with av.open(str(path)) as container:
        for packet, (at, size) in zip((p for p in container.demux(video=0) if p.size), found, strict=True):
            start = raw.find(bytes(packet)[:32], max(0, at))  # Matroska's position is that of the block around it
            if start >= 0 and size > 40:
                places.append((start, size))
    return places


def harmed(raw: bytes, places: list[tuple[int, int]], rng: random.Random, what: str) -> bytes:
    out = bytearray(raw)
    if what == "bit":
        at, size = rng.choice(places)
        out[at + rng.randrange(16, size)] ^= 1 << rng.randrange(8)
        return bytes(out)
    first = rng.randrange(1, len(places) - 1)
    (a, m), (b, n) = places[first], places[first + 1]
    short = min(m, n)
    out[a : a + short], out[b : b + short] = raw[b : b + short], raw[a : a + short]
    return bytes(out)


def wrong(path: Path, truth: tuple[list[float], list[np.ndarray]]) -> bool:
    """Whether a player would show something else, and no error."""
    try:
        times, pictures = frames_of(path)
    except (av.FFmpegError, ValueError):
        return True
    if len(times) != len(truth[0]) or not np.allclose(times, truth[0], atol=2e-3):
        return True
    return any(a.shape != b.shape or np.abs(a - b).mean() > 2 for a, b in zip(pictures, truth[1], strict=True))


def noisy(path: Path, codec: str) -> Path:
    """A film with a moving, textured picture, so that packets hold more than a few bytes."""
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 255, (160, 320, 3), dtype=np.uint8)
    ground = np.repeat(np.repeat(ground[::8, ::8], 8, 0), 8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.gop_size = 192, 96, "yuv420p", 24
        for i in range(60):
            picture = np.ascontiguousarray(ground[i // 2 : i // 2 + 96, 2 * i : 2 * i + 192])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def measured(codec: str, count: int, seed: int, folder: Path) -> Counter[str]:
    encoder, suffix = CODECS[codec]
    source = noisy(folder / f"{codec}{suffix}", encoder)
    truth, raw, places = frames_of(source), source.read_bytes(), packets_of(source)
    assert damage(source) == "", source
    rng, counts = random.Random(f"{seed} {codec}"), Counter[str]()
    for number in range(count):
        what = "bit" if number % 2 else "swap"
        path = folder / f"{codec}_{number}{suffix}"
        path.write_bytes(harmed(raw, places, rng, what))
        try:
            found = bool(damage(path))
        except Timer1Error:
            found = True
        counts[f"{what} tried"] += 1
        if wrong(path, truth):
            counts[f"{what} wrong"] += 1
            counts[f"{what} found"] += found
        path.unlink()
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200, help="damaged files a codec, half of each kind")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    av.logging.set_level(av.logging.PANIC)
    print("| codec | fault | files | with wrong frames | found | missed |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        for codec in CODECS:
            try:
                counts = measured(codec, given.files, given.seed, Path(place))
            except (av.FFmpegError, ValueError) as error:
                print(f"| {codec} | not measured: {error} |")
                continue
            for what, name in (("bit", "one flipped bit"), ("swap", "two packets swapped")):
                tried, bad, found = (counts[f"{what} {kind}"] for kind in ("tried", "wrong", "found"))
                print(f"| {codec} | {name} | {tried} | {bad} | {found} | {bad - found} |", flush=True)


if __name__ == "__main__":
    main()
