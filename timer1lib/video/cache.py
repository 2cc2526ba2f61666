"""A bounded cache of byte strings on disk that survives kills, damage and several processes at once; and what it costs."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from timer1lib.files import atomic_write_bytes, atomic_write_text

log = logging.getLogger(__name__)

SUFFIX = ".entry"
DIGEST_BYTES = 32
CHECK_EVERY = 32
"""Writes between two looks at the size of the whole folder."""
STALE_SECONDS = 3600.0
"""Unfinished files of killed writers go when they are this old."""
KINDS = ("frames", "features", "hashes", "checked", "playable")
"""Folders of a cache that share one limit."""
NOTE_BYTES = 4096
"""Entries up to this size (hashes, verdicts) go last: they cost a file's reading and free nothing."""
DEFAULT_BYTES = 4_000_000_000
MEASURED = 16
"""Hits and misses that must have been timed before a cache is judged not to pay."""


class DiskCache:
    """Entries by name; each file is the SHA-256 of name and content, and the content.

    Writes are atomic, reads verify, and a damaged entry is removed and counts as absent. A folder that cannot be written
    (full, read-only, a file in its place) is logged once, and the work goes on without. Where the folder grows past its
    limit the entries that were used longest ago go first, down to nine tenths of the limit. Several processes may share it.

    Args:
        folders: whose entries count together and go together; without it the folder's own.
    """

    def __init__(self, folder: str | Path, limit_bytes: int, folders: tuple[Path, ...] = ()) -> None:
        self.folder = Path(folder)
        self.folders = folders or (self.folder,)
        self.limit_bytes = limit_bytes
        self._told = False
        self._written_bytes = 0
        self._writes = 0

    @classmethod
    def of(cls, cache_dir: str | Path, kind: str, limit_bytes: int | None = None) -> Self:
        """One kind of a run's cache, under the limit of the whole: the one given, else the one that was given last."""
        root = Path(cache_dir)
        told = root / "limit"
        known = None
        with contextlib.suppress(OSError, ValueError):
            known = int(told.read_text())
        if limit_bytes is not None and limit_bytes != known:
            with contextlib.suppress(OSError):
                atomic_write_text(told, f"{limit_bytes}\n")
        return cls(root / kind, limit_bytes or known or DEFAULT_BYTES, tuple(root / name for name in KINDS))

    def path(self, name: str) -> Path:
        return self.folder / name[:2] / (name + SUFFIX)

    def __contains__(self, name: str) -> bool:
        return self.path(name).is_file()

    def get(self, name: str) -> bytes | None:
        """The content, or None where there is none or it is damaged."""
        path = self.path(name)
        try:
            raw = path.read_bytes()
        except OSError:
            return None
        if len(raw) <= DIGEST_BYTES or _digest(name, memoryview(raw)[DIGEST_BYTES:]) != raw[:DIGEST_BYTES]:
            log.warning("cache entry %s is damaged; it is removed and made again", path)
            _remove(path)
            return None
        with contextlib.suppress(OSError):  # read-only, or evicted meanwhile by another process; what was read is whole
            os.utime(path)
        return raw[DIGEST_BYTES:]

    def put(self, name: str, content: bytes) -> bool:
        """Keep the content; False where the folder cannot be written."""
        try:
            atomic_write_bytes(self.path(name), _digest(name, content) + content)
        except OSError as error:
            if not self._told:
                log.warning("cache %s: cannot write, which costs time and nothing else: %s", self.folder, error)
            self._told = True
            return False
        self._writes += 1
        self._written_bytes += len(content)
        if self._writes % CHECK_EVERY == 1 or self._written_bytes > self.limit_bytes // 10:
            self.trim(keep=name)
        return True

    def size_bytes(self) -> int:
        return sum(size for _, size, _ in self._entries())

    def trim(self, keep: str = "") -> int:
        """Remove the entries that were used longest ago until the limit holds; returns how many went."""
        self._written_bytes = 0
        entries = sorted(self._entries(), key=lambda entry: (entry[1] <= NOTE_BYTES, *entry))
        total = sum(size for _, size, _ in entries)
        removed = 0
        goal = self.limit_bytes if total <= self.limit_bytes else int(0.9 * self.limit_bytes)
        for _, size, path in entries:
            if total <= goal:
                break
            if not (keep and path == self.path(keep)) and _remove(path):
                total -= size
                removed += 1
        return removed

    def _entries(self) -> list[tuple[float, int, Path]]:
        """Time of last use, size and path of every entry; clears away what killed writers left."""
        found = []
        now = time.time()
        for path in (path for folder in self.folders for path in folder.glob("*/*")):
            try:
                stat = path.stat()
            except OSError:
                continue
            if path.suffix == SUFFIX and not path.name.startswith("."):
                found.append((stat.st_mtime, stat.st_size, path))
            elif now - stat.st_mtime > STALE_SECONDS:
                _remove(path)
        return found


def _remove(path: Path) -> bool:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        return True
    return False


def _digest(name: str, content: bytes | memoryview) -> bytes:
    """Of the name too, so that an entry under another's name is not believed."""
    hasher = hashlib.sha256(name.encode())
    hasher.update(content)
    return hasher.digest()


@dataclass
class Costs:
    """Seconds that a cache's hits take, and its misses: the work itself and keeping its result. Threads may share it."""

    hits: int = 0
    hit_s: float = 0.0
    misses: int = 0
    miss_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def hit(self, seconds: float, count: int = 1) -> None:
        with self._lock:
            self.hits, self.hit_s = self.hits + count, self.hit_s + seconds

    def miss(self, seconds: float, count: int = 1) -> None:
        with self._lock:
            self.misses, self.miss_s = self.misses + count, self.miss_s + seconds

    @property
    def pays(self) -> bool:
        """False once enough of both were timed, and a hit takes as long as doing the work."""
        if min(self.hits, self.misses) < MEASURED:
            return True
        return self.hit_s / self.hits < self.miss_s / self.misses

    def __str__(self) -> str:
        each = [f"{n} {what} ({s / n:.4f} s each)" for n, s, what in self._counted() if n]
        if self.hits and self.misses:
            each.append(f"saved {self.hits * self.miss_s / self.misses - self.hit_s:.1f} s")
        return ", ".join(each) or "not used"

    def _counted(self) -> list[tuple[int, float, str]]:
        return [(self.hits, self.hit_s, "hits"), (self.misses, self.miss_s, "misses")]
