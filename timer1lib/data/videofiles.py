"""From the video named in an annotation to a file below the user's video folder, and whether two names are one video."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from timer1lib.data.readers.row import stem
from timer1lib.errors import Timer1Error
from timer1lib.files import safe_join

ENDINGS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".ts", ".3gp")

_RANGE = re.compile(r"_(?:\d+(?:\.\d+)?_\d+(?:\.\d+)?|\d\d:\d\d:\d\d:\d{3}_\d\d:\d\d:\d\d:\d{3})$")
_GENERIC = re.compile(r"(?:video|vid|clip|sample|train|test|val|scene|synth|world|movie|film|v)?[\W_]*0*\d{0,7}", re.IGNORECASE)


def video_key(name: str) -> str:
    """What makes a video's name the same in two data sets.

    The file's stem, since the folders before it differ between releases; the whole path where the stem is only a
    number, as in `train/000012.mp4`.
    """
    base = stem(name)
    if _GENERIC.fullmatch(base):
        path = PurePosixPath(name.replace("\\", "/"))
        return str(path.with_name(base))
    return base


def source_key(name: str) -> str:
    """`video_key` without a time range at its end: the video that a published clip was cut from.

    `NUsG9BgSes0_60.0_210.0` (QVHighlights) and `4jujhM5qhEc_00:00:39:000_00:01:24:700` (TimeRFT) lose their range,
    an ActivityNet id its `v_`.
    """
    key = _RANGE.sub("", video_key(name))
    return key[2:] if len(key) == 13 and key.startswith("v_") else key


@dataclass(slots=True)
class VideoFolder:
    """The folder that holds the videos. Names from annotation files are looked up in it, never outside.

    A published path such as `./dataset/timer1/videos/tvgbench_data/KWZSA.mp4` is tried whole, then without its
    leading folders one by one; a name without an ending is tried with the usual ones.
    """

    root: Path
    _by_stem: dict[str, list[Path]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise Timer1Error(f"{self.root}: no such video folder")

    def find(self, name: str) -> Path | None:
        """The file's path relative to the root, None where there is no such file.

        Raises:
            Timer1Error: the name leaves the folder.
        """
        if "\x00" in name:
            raise Timer1Error(f"video path {name!r} holds a zero byte")
        parts = PurePosixPath(os.path.normpath(self._inside(name))).parts
        for start in range(len(parts)):
            candidate = "/".join(parts[start:])
            for ending in ("", *ENDINGS):
                try:
                    if (self.root / (candidate + ending)).is_file():
                        safe_join(self.root, candidate + ending)
                        return Path(candidate + ending)
                except OSError:
                    return None
        found = self._stems().get(stem(name), [])
        return found[0] if len(found) == 1 and not _GENERIC.fullmatch(stem(name)) else None

    def _inside(self, name: str) -> str:
        """The name as a relative path.

        Raises:
            Timer1Error: it is absolute and elsewhere, or climbs out with `..` (links are checked once the file is found).
        """
        path = name.replace("\\", "/")
        if re.match(r"[A-Za-z]:/", path) or path.startswith("~"):
            raise Timer1Error(f"video path {name!r} leaves the video folder {self.root}; paths must stay inside it")
        safe_join(self.root, path)
        return os.path.relpath(path, self.root.resolve()) if path.startswith("/") else path

    def _stems(self) -> dict[str, list[Path]]:
        if self._by_stem is None:
            self._by_stem = {}
            for folder, _, files in os.walk(self.root):
                for file in sorted(files):
                    if Path(file).suffix.lower() in ENDINGS:
                        relative = Path(folder, file).relative_to(self.root)
                        self._by_stem.setdefault(stem(file), []).append(relative)
        return self._by_stem


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes: the same content under another name."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
