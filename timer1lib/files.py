"""Reading and writing files so that a killed process never leaves half of one."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from timer1lib.errors import Timer1Error


def project_root() -> Path:
    """The folder that holds `notebooks/` and `params/`: found upward from here, else from the package."""
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / "notebooks").is_dir() and (folder / "timer1lib").is_dir():
                return folder
    raise Timer1Error("no project folder found (one with notebooks/ and timer1lib/); run from inside the checkout")


def resolve(path: str | Path) -> Path:
    """`path` as it is where absolute or found from here, else from the project's root."""
    candidate = Path(path).expanduser()
    if candidate.is_absolute() or candidate.exists():
        return candidate
    return project_root() / candidate


def read_yaml(path: str | Path, what: str = "YAML file") -> Any:
    """The content of a YAML file. A key that stands twice is an error: the second would silently win.

    Raises:
        Timer1Error: no such file (named as `what`), or not YAML.
    """
    import yaml

    class Strict(yaml.SafeLoader):
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
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Timer1Error(f"{path}: not YAML: {' '.join(str(error).split())}") from error


def atomic_write_bytes(path: str | Path, content: bytes) -> None:
    """Write beside the target, then rename: readers see the old file or the new one, never a part."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def atomic_write_text(path: str | Path, text: str) -> None:
    atomic_write_bytes(path, _utf8(text))


def atomic_write_json(path: str | Path, value: Any) -> None:
    atomic_write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def atomic_write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    atomic_write_text(path, "\n".join(lines) + ("\n" if lines else ""))


def append_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append whole lines in one write. A kill can tear only the last line, which `read_jsonl(torn_tail=True)` drops.

    A torn last line that is already there is cut off first (or ended, where only its line feed is missing), so that it
    cannot spoil the line after it.
    """
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as stream:
        _mend_last_line(stream)
        stream.write(_utf8(text))
        stream.flush()
        os.fsync(stream.fileno())


def read_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise Timer1Error(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Timer1Error(f"{path}: not JSON: {error}") from error


def read_jsonl(path: str | Path, *, torn_tail: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file; blank lines are passed over.

    Args:
        torn_tail: leave out an unreadable last line, as an append that was killed leaves it.

    Raises:
        Timer1Error: names the file and the line.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise Timer1Error(f"{path}: no such file") from None
    # Only a line feed ends a row: text inside one may hold the other characters that Python counts as line ends.
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            if torn_tail and number == len(lines):
                return
            what = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else "not JSON"
            raise Timer1Error(f"{path}, line {number}: {what}: {error}") from error
        if not isinstance(row, dict):
            raise Timer1Error(f"{path}, line {number}: a row must be a JSON object")
        yield row


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
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        stream.truncate(end - len(tail))
    else:
        stream.write(b"\n")


def _utf8(text: str) -> bytes:
    """Text as bytes; half a surrogate pair, which JSON can hold and UTF-8 cannot, becomes a question mark."""
    return text.encode("utf-8", "replace")


def sha256_file(path: str | Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_sample(path: str | Path, length: int = 1 << 16) -> str:
    """Digest of a file's size and its first and last `length` bytes: tells large files such as videos apart, and no copies."""
    size = Path(path).stat().st_size
    with open(path, "rb") as stream:
        digest = hashlib.sha256(f"{size}\0".encode() + stream.read(length))
        stream.seek(max(0, size - length))
        digest.update(stream.read(length))
    return digest.hexdigest()


def safe_join(root: str | Path, relative: str) -> Path:
    """`root / relative`, refused where it leaves `root` (links are followed first).

    Raises:
        Timer1Error: the path is outside the root.
    """
    base = Path(root).expanduser().resolve()
    target = (base / relative).resolve()
    if not target.is_relative_to(base):
        raise Timer1Error(f"video path {relative!r} leaves the video folder {base}; paths must stay inside it")
    return target
