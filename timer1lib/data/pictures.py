"""Whether two video files show the same, though their bytes differ: encoded again, scaled, in another container."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timer1lib.errors import Timer1Error

FRAMES, CELLS = 12, 7
CLOSE = 4.0
"""Grey levels (of 255) that cells of the same footage differ by on average at most; encoding again costs one or two."""
PLAIN = 10.0
"""Footage whose cells vary less than this is one plain picture, which says nothing."""

Print = NDArray[np.float64]


def fingerprint(path: Path) -> Print:
    """float64 (FRAMES, CELLS, CELLS): mean grey levels on a grid, of frames spread evenly over the video.

    Raises:
        Timer1Error: the video cannot be decoded.
    """
    from timer1lib.clock.frames import Sampling
    from timer1lib.video.decode import read_frames

    side = 4 * CELLS
    sampling = Sampling("frames", frames=FRAMES, min_frame_pixels=side * side, total_pixels=FRAMES * 4 * side * side, factor=side)
    grey = read_frames(path, sampling, temporal_patch=1).pixels.astype(np.float64).mean(axis=-1)
    n, height, width = grey.shape
    cells: Print = np.asarray(grey.reshape(n, CELLS, height // CELLS, CELLS, width // CELLS).mean(axis=(2, 4)), dtype=np.float64)
    return cells.take(np.linspace(0, n - 1, FRAMES).round().astype(int), axis=0)


def same_footage(a: Print, b: Print) -> bool:
    """Whether two fingerprints are of one film."""
    return bool(min(a.std(), b.std()) >= PLAIN and np.abs(a - b).mean() <= CLOSE)


def look_alikes(root: Path, seconds: Mapping[str, float], splits: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """{path: name of its group} for files of different splits that show the same.

    Only files whose durations agree to a tenth of a second (or half a percent) are decoded and compared.

    Args:
        seconds: duration by path below `root`.
        splits: the splits that each path stands in.
    """
    ordered = sorted(seconds, key=lambda path: (seconds[path], path))
    prints: dict[str, Print | None] = {}
    groups: dict[str, str] = {}
    for i, first in enumerate(ordered):
        for second in ordered[i + 1 :]:
            if seconds[second] - seconds[first] > max(0.1, 0.005 * seconds[first]):
                break
            if splits[first] == splits[second]:
                continue
            for path in (first, second):
                if path not in prints:
                    prints[path] = _print(root / path)
            a, b = prints[first], prints[second]
            if a is not None and b is not None and same_footage(a, b):
                group = groups.get(first) or groups.get(second) or f"footage of {first}"
                groups[first] = groups[second] = group
    return groups


def _print(path: Path) -> Print | None:
    try:
        return fingerprint(path)
    except Timer1Error:
        return None
