"""A folder of images as a video: which frames there are, when each is, and its pixels.

Times come from one of these, the first that is there:

    times.json        {"frame_0001.jpg": 0.0, ...}, or [0.0, 0.5, ...] in the order of the names, or {"fps": 2.0};
                      with "duration" beside it (and the first two under "times") the length is stated too
    times.csv         columns `file` and `seconds`
    timestamps.txt    a number of seconds a line, in the order of the names
    the names         seconds with a decimal point at the end: frame_000012.5.jpg

Names are ordered by the numbers in them. As in a file, times count from the first frame. The last frame is shown until the
stated duration, else as long as the median frame.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timer1lib.errors import Timer1Error
from timer1lib.files import read_json, sha256_file

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
TIMES = ("times.json", "times.csv", "timestamps.txt")
MICROSECONDS = 1e-6
_SECONDS = re.compile(r"(?:^|[^\d.])(\d+\.\d+)$")


def is_image(name: str) -> bool:
    return name.lower().endswith(IMAGES) and not name.startswith(".")


def is_frame_folder(path: str | Path) -> bool:
    """Whether a path is a folder that holds images."""
    try:
        with os.scandir(path) as entries:
            return any(is_image(entry.name) for entry in entries)
    except OSError:
        return False


def image_files(folder: str | Path) -> list[Path]:
    """The images of a folder in order; links are none, since they might lead anywhere."""
    names = [entry.name for entry in os.scandir(folder) if is_image(entry.name) and entry.is_file(follow_symlinks=False)]
    return [Path(folder, name) for name in sorted(names, key=_by_number)]


def frame_times(folder: str | Path) -> tuple[list[Path], NDArray[np.float64], float]:
    """Images in the order of their times, float64 [M] seconds (ascending, as they are written), seconds of the whole.

    Raises:
        Timer1Error: no images, no times, times that do not fit the images, or are no times.
    """
    files = image_files(folder)
    if not files:
        raise Timer1Error(f"{folder}: no image in the folder ({', '.join(IMAGES)})")
    by_name, duration = _read_times(Path(folder), [file.name for file in files])
    missing = [file.name for file in files if file.name not in by_name]
    strangers = sorted(set(by_name) - {file.name for file in files})
    if missing or strangers:
        wrong = f"{missing[0]} has no time" if missing else f"a time is given for {strangers[0]!r}, which is not there"
        raise Timer1Error(f"{folder}: {wrong}")
    ordered = sorted(files, key=lambda file: by_name[file.name])
    times = np.array([by_name[file.name] for file in ordered], dtype=np.float64)
    if not np.isfinite(times).all() or (times < 0).any() or (np.diff(times) < MICROSECONDS).any():
        raise Timer1Error(f"{folder}: frame times must be seconds of 0 or more, no two the same")
    shown = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    length = float(times[-1] - times[0]) + shown if duration is None else duration
    if not math.isfinite(length) or length < times[-1] - times[0]:
        raise Timer1Error(f"{folder}: the duration {length:g} s is over before the last frame")
    return ordered, times, length


def folder_facts(folder: str | Path) -> tuple[int, int]:
    """Bytes of the images and times of a folder, and the time of the last change of any of them in ns."""
    stats = [file.stat() for file in _content(folder)]
    return sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in [os.stat(folder), *stats])


def content_digest(path: str | Path) -> str:
    """SHA-256 of a video file's bytes; of a folder's images and times, their names included."""
    if not os.path.isdir(path):
        return sha256_file(path)
    digest = hashlib.sha256()
    for file in _content(path):
        digest.update(f"{file.name}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def read_image(path: Path) -> NDArray[np.uint8]:
    """uint8 [H, W, 3], RGB; a Timer1Error names an image that cannot be decoded."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Timer1Error(f"{path}: the image cannot be decoded: {' '.join(str(error).split())[:160]}") from error


def _content(folder: str | Path) -> list[Path]:
    return [*image_files(folder), *(file for name in TIMES if (file := Path(folder, name)).is_file() and not file.is_symlink())]


def _by_number(name: str) -> list[Any]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _read_times(folder: Path, names: list[str]) -> tuple[dict[str, float], float | None]:
    """Seconds by image name, and the stated duration."""
    source = next((folder / name for name in TIMES if (folder / name).is_file() and not (folder / name).is_symlink()), None)
    if source is None:
        found = {name: match[1] for name in names if (match := _SECONDS.search(os.path.splitext(name)[0]))}
        if len(found) < len(names):
            how = 'write times.json ({"fps": 2.0}, or seconds by name), times.csv or timestamps.txt, or name them frame_12.5.jpg'
            raise Timer1Error(f"{folder}: when is {next(n for n in names if n not in found)}? {how}")
        return {name: float(text) for name, text in found.items()}, None
    try:
        if source.name == "times.json":
            return _from_json(read_json(source), names)
        text = source.read_text(encoding="utf-8-sig")
        if source.name == "times.csv":
            rows = list(csv.DictReader(io.StringIO(text)))
            return {row["file"]: float(row["seconds"]) for row in rows}, None
        return _in_order([float(line) for line in text.split()], names), None
    except (ValueError, KeyError, TypeError, OSError, csv.Error) as error:
        raise Timer1Error(f"{source}: no frame times: {' '.join(str(error).split())[:160]}") from error


def _from_json(value: Any, names: list[str]) -> tuple[dict[str, float], float | None]:
    duration = None
    if isinstance(value, Mapping) and ("times" in value or "fps" in value):
        duration = float(value["duration"]) if value.get("duration") is not None else None
        if "fps" in value:
            rate = float(value["fps"])
            if not 0 < rate < 1e4:
                raise ValueError(f"fps {rate:g} is no frame rate")
            duration = len(names) / rate if duration is None else duration
            return {name: i / rate for i, name in enumerate(names)}, duration
        value = value["times"]
    if isinstance(value, Mapping):
        return {str(name): float(seconds) for name, seconds in value.items()}, duration
    return _in_order([float(seconds) for seconds in value], names), duration


def _in_order(seconds: list[float], names: list[str]) -> dict[str, float]:
    if len(seconds) != len(names):
        raise ValueError(f"{len(seconds)} times for {len(names)} images")
    return dict(zip(names, seconds, strict=True))
