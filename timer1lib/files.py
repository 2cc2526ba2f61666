"""Reading and writing files so that a killed process never leaves half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import yaml

from timer1lib.errors import Timer1Error

PACKAGE = Path(__file__).resolve().parent
WORKBOOK = ".timer1"
"""Folder that marks what `timer1 init` made, and says what it was made of (timer1lib.workbook)."""


def is_project(folder: Path) -> bool:
    """Whether runs belong here: a checkout, or a workbook that `timer1 init` made."""
    return (folder / "notebooks").is_dir() and ((folder / "timer1lib").is_dir() or (folder / WORKBOOK).is_dir())


def find_project() -> Path | None:
    """The project found upward from here, else the checkout that this package lies in."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents, PACKAGE.parent) if is_project(folder)), None)


def project_root() -> Path:
    """The folder that holds `notebooks/`, `params/` and `outputs/`; a Timer1Error where there is none."""
    if (found := find_project()) is None:
        raise Timer1Error(f"no workbook in {Path.cwd()} or above it: `timer1 init DIR` makes one, then run from inside it")
    return found


def shipped() -> Path:
    """Where `notebooks/`, `params/`, `ideas/` and `assets/` of this version are: in the installed package, or the checkout."""
    inside = PACKAGE / "shipped"
    return inside if inside.is_dir() else PACKAGE.parent


def resolve(path: str | Path) -> Path:
    """`path` as it is where absolute or found from here; else in the project, else among what is shipped (the tiny model)."""
    candidate = Path(path).expanduser()
    if candidate.is_absolute() or candidate.exists():
        return candidate
    root = find_project() or Path()
    return next((base / candidate for base in (root, shipped()) if (base / candidate).exists()), root / candidate)


def read_yaml(path: str | Path, what: str = "YAML file") -> Any:
    """The content of a YAML file (named as `what` in errors). A key that stands twice is one: the second would silently win."""

    class Strict(yaml.SafeLoader):
        def get_single_node(self) -> yaml.Node | None:
            node = super().get_single_node()
            if node is not None and _spread(node, {}) > MOST_NODES:
                raise yaml.constructor.ConstructorError(None, None, f"aliases that stand for over {MOST_NODES:,} values")
            return node

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if not isinstance(key, str):
                    raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not text", key_node.start_mark)
                if key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
                seen.add(key)
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(Path(path).read_text(), Strict)
    except FileNotFoundError:
        raise Timer1Error(f"{path}: no such {what}") from None
    except NOT_YAML as error:
        raise Timer1Error(f"{path}: {why_not_yaml(error)}") from error


MOST_NODES = 1_000_000
"""So many values a YAML file may stand for once its aliases are written out: a few lines of them can stand for billions."""


def _spread(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node stands for, its aliases written out; infinitely many where it holds itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")
        inner = [part for entry in node.value for part in (entry if isinstance(entry, tuple) else (entry,))]
        known[id(node)] = 1 if isinstance(node, yaml.ScalarNode) else 1 + sum(_spread(part, known) for part in inner)
    return known[id(node)]


NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What reading YAML raises for bad input: a wrong encoding, a number too long for int and no real date are ValueErrors."""


def why_not_yaml(error: Exception) -> str:
    """One line that says why a text was refused with one of `NOT_YAML`."""
    if isinstance(error, RecursionError):
        return "YAML nested too deep to be read"
    if "integer string conversion" in str(error):
        return f"a whole number of more than {sys.get_int_max_str_digits():,} digits"
    return f"not YAML: {' '.join(str(error).split())[:300]}"


BYTE_ORDER_MARK = b"\xef\xbb\xbf"

NOT_JSON = (ValueError, RecursionError)
"""What `json.loads` raises for bad input: its own error and a wrong encoding are ValueErrors, as is a number too long for int."""


def why_not_json(error: Exception) -> str:
    """One line that says why a text was refused with one of `NOT_JSON`."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text: {error}"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error}"
    if isinstance(error, RecursionError):
        return "JSON nested too deep to be read"
    return f"a whole number of more than {sys.get_int_max_str_digits():,} digits"


def atomic_write_bytes(path: str | Path, content: bytes) -> None:
    """Write beside the target, then rename: readers see the old file or the new one, never a part, even after an OSError."""
    target = Path(path)
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _not_written(target, len(content), error) from error
        raise


def _not_written(target: Path, size: int, error: OSError) -> OSError:
    """The same error, of the same class, with what a person must know to mend it."""
    if isinstance(error, FileExistsError):
        # A file stands where a folder of the path should.
        error = OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    what = f"{error.strerror or error}: {size:,} bytes were to be written into the folder {target.parent}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        with contextlib.suppress(OSError):
            what += f", which has {shutil.disk_usage(target.parent).free:,} bytes left"
    return OSError(error.errno, what, str(target))


def atomic_write_text(path: str | Path, text: str) -> None:
    atomic_write_bytes(path, _utf8(text))


def atomic_write_json(path: str | Path, value: Any) -> None:
    atomic_write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def atomic_write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    atomic_write_text(path, "\n".join(lines) + ("\n" if lines else ""))


def append_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append whole lines in one write. A kill can tear only the last line, which `read_jsonl(torn_tail=True)` drops.

    A torn last line that is there is cut off first (or ended, where only its line feed is missing).
    """
    content = _utf8("".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "ab+") as stream:
            _mend_last_line(stream)
            stream.flush()
            handle, left = stream.fileno(), memoryview(content)
            size = os.fstat(handle).st_size
            try:
                while left:
                    left = left[os.write(handle, left) :]
                os.fsync(handle)
            except OSError:  # all of it or, where the disk is full, nothing
                with contextlib.suppress(OSError):
                    os.ftruncate(handle, size)
                raise
    except OSError as error:
        raise _not_written(target, len(content), error) from error


def read_json(path: str | Path) -> Any:
    """The value that a file holds; a Timer1Error names the file and, where there is one, the line."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise Timer1Error(f"{path}: no such file") from None
    try:
        return json.loads(content.removeprefix(BYTE_ORDER_MARK))
    except NOT_JSON as error:
        raise Timer1Error(f"{path}{_line_of(error, content)}: {why_not_json(error)}") from error


def _line_of(error: Exception, content: bytes) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f", line {error.object[: error.start].count(10) + 1}"
    if isinstance(error, json.JSONDecodeError | RecursionError):
        return ""
    number = re.search(rb"\d{%d}" % (sys.get_int_max_str_digits() + 1), content)
    return f", line {content.count(10, 0, number.start()) + 1}" if number else ""


def read_jsonl(path: str | Path, *, torn_tail: bool = False, broken: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file; blank lines are passed over, a Timer1Error names the file and the line.

    Args:
        torn_tail: leave out an unreadable last line, as an append that was killed leaves it.
        broken: takes a line of text ("FILE, line 3: not JSON: ...") for each row that cannot be read; None: it is an error.
    """
    return (row for _, row in read_numbered(path, torn_tail=torn_tail, broken=broken))


def read_numbered(
    path: str | Path, *, torn_tail: bool = False, broken: list[str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """`read_jsonl` with the number of each row's line, from 1."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise Timer1Error(f"{path}: no such file") from None
    # Only a line feed ends a row: text inside one may hold the other characters that Python counts as line ends.
    lines = content.removeprefix(BYTE_ORDER_MARK).split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except NOT_JSON as error:
            if torn_tail and number == len(lines):
                return
            wrong = why_not_json(error)
        else:
            if isinstance(row, dict):
                yield number, row
                continue
            wrong = "a row must be a JSON object"
        wrong = f"{path}, line {number}: {wrong}"
        if broken is None:
            raise Timer1Error(wrong)
        broken.append(wrong)


def _mend_last_line(stream: IO[bytes]) -> None:
    position = end = stream.seek(0, os.SEEK_END)
    tail = b""
    while position > 0 and b"\n" not in tail:
        start = max(0, position - 65536)
        stream.seek(start)
        tail = stream.read(position - start) + tail
        position = start
    tail = tail.rpartition(b"\n")[2]
    if not tail:
        return
    try:
        json.loads(tail)
    except NOT_JSON:
        stream.truncate(end - len(tail))
    else:
        stream.write(b"\n")


def _utf8(text: str) -> bytes:
    """Text as bytes; half a surrogate pair, which JSON can hold and UTF-8 cannot, becomes a question mark."""
    return text.encode("utf-8", "replace")


SETTINGS = "settings.json"


def open_work_folder(folder: Path, settings: dict[str, Any]) -> Path:
    """A folder for checkpoints that belong to these settings; what other settings left there is removed."""
    path = folder / SETTINGS
    wanted = json.loads(json.dumps(settings))
    try:
        known = read_json(path) == wanted
    except Timer1Error:
        known = False
    if folder.is_dir() and not known:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_json(path, wanted)
    return folder


def sha256_file(path: str | Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_sample(path: str | Path, length: int = 1 << 16) -> str:
    """Digest of a file's size and its first and last `length` bytes: tells large files such as videos apart, and no copies."""
    size = Path(path).stat().st_size
    with open(path, "rb") as stream:
        digest = hashlib.sha256(f"{size}\0".encode() + stream.read(length))
        stream.seek(max(0, size - length))
        digest.update(stream.read(length))
    return digest.hexdigest()


def safe_join(root: str | Path, relative: str) -> Path:
    """`root / relative`; a Timer1Error where it leaves `root` (links are followed first), or is no path."""
    if "\0" in relative:
        raise Timer1Error(f"video path {relative[:200]!r} holds a NUL character; no file can be called so")
    base = Path(root).expanduser().resolve()
    target = (base / relative).resolve()
    if not target.is_relative_to(base):
        raise Timer1Error(f"video path {relative!r} leaves the video folder {base}; paths must stay inside it")
    return target
