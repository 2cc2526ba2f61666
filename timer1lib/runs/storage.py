"""A sweep's artefacts where machines share no disk: finished stages by key, and their files by content, under one URL.

`<URL>/stages/04_grpo-<key>.json` is a stage's stamp and comes last; its files are `<URL>/blobs/<sha256>`, written once.
What a row's process wrote beside its stages lies in `<URL>/rows/<sweep>/<row>/`. Any file system of fsspec: a folder, s3://, gs://.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from timer1lib.errors import Timer1Error, shown
from timer1lib.files import atomic_write_bytes, atomic_write_json, read_json, safe_join, sha256_file
from timer1lib.runfolder import RunFolder
from timer1lib.runs.graph import STAGES, StageRef
from timer1lib.runs.stamps import Store, damaged, entry_name, read_stamp

_BUCKETS = {"s3", "gs", "gcs", "abfs", "az", "oci", "oss"}
_BESIDE = ("params.yaml", "manifest.json", "report.html", "run.log")


class Storage:
    """Files by name under a URL. What goes wrong is an OSError."""

    def __init__(self, url: str) -> None:
        """A Timer1Error says what is wrong with the URL."""
        import fsspec

        try:
            self._fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        except (ImportError, ValueError) as error:
            more = "; pip install 'timer1lib[s3]'" if url.startswith("s3") else ""
            raise Timer1Error(f"--storage {shown(url)}: {' '.join(str(error).split())}{more}") from None
        self.url, self._root = url, root.rstrip("/")

    def check(self) -> None:
        """Write and read a file; a Timer1Error where that does not work."""
        try:
            self.write("check", b"timer1")
            if self.read("check") == b"timer1":
                return
            wrong = "what was written is not what is read"
        except Exception as error:  # each file system has errors of its own
            wrong = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise Timer1Error(f"--storage {shown(self.url)}: cannot be used: {wrong}")

    def read(self, name: str) -> bytes | None:
        """A file's content; None where it is not there."""
        try:
            return bytes(self._fs.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        path = f"{self._root}/{name}"
        self._folder(path)
        self._fs.pipe_file(path, content)

    def send(self, source: Path, name: str) -> None:
        """Copy a file there, unless one of its size is there already: names of large files are their content's."""
        path = f"{self._root}/{name}"
        with contextlib.suppress(FileNotFoundError):
            if self._fs.info(path)["size"] == source.stat().st_size:
                return
        self._folder(path)
        self._fs.put_file(str(source), path)

    def _folder(self, path: str) -> None:
        """Make a file's folder; an object store has none, and would make a bucket of its own."""
        if not _BUCKETS & {self._fs.protocol, *self._fs.protocol}:
            self._fs.makedirs(os.path.dirname(path), exist_ok=True)

    def fetch(self, name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self._fs.get_file(f"{self._root}/{name}", str(target))


class StoredStages(Store):
    """A `Store` on this machine's disk that brings what it lacks from a storage, and puts there what is new."""

    def __init__(self, root: Path, url: str, sweep: str) -> None:
        super().__init__(root)
        self.storage, self._rows = Storage(url), f"rows/{sweep}"

    def line(self, row: str) -> str:
        """The newest line of a row that runs somewhere; nothing where none is known."""
        with contextlib.suppress(Exception):  # each file system has errors of its own
            return (self.storage.read(f"{self._rows}/{row}/line") or b"").decode(errors="replace")
        return ""

    def find(self, stage: StageRef, key: str) -> RunFolder | None:
        if found := super().find(stage, key):
            return found
        locks = self.root / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"{entry_name(stage, key)}.bring"):  # one row fetches what several take
            return super().find(stage, key) or (super().find(stage, key) if self._bring(stage, key) else None)

    def put(self, run: RunFolder, stage: StageRef) -> None:
        stamp = read_stamp(run, stage)
        if stamp is None:
            return
        notebook = run.notebook(stage.notebook)
        for name, output in stamp.outputs.items():
            self.storage.send(run.root / name, f"blobs/{output.sha256}")
        digest = sha256_file(notebook)
        self.storage.send(notebook, f"blobs/{digest}")
        row = {"stamp": asdict(replace(stamp, reused_from=run.root.name)), "notebook": digest}
        atomic_write_json(path := run.root / f".{stage.notebook}.entry", row)
        self.storage.write(f"stages/{entry_name(stage, stamp.key)}.json", path.read_bytes())
        path.unlink()

    def send_row(self, out: Path) -> None:
        """Bring what a row's process wrote beside its stages to the storage."""
        for path in [*(out / name for name in _BESIDE), *out.glob("notebooks/*.failed.ipynb")]:
            if path.is_file():
                self.storage.write(f"{self._rows}/{out.name}/{path.relative_to(out).as_posix()}", path.read_bytes())

    def fetch_row(self, out: RunFolder, stages: Mapping[str, Mapping[str, Any]]) -> None:
        """Have a row that ran elsewhere stand here as an ordinary run. A Timer1Error names what is no longer there."""
        for stage in (stage for stage in STAGES if stage.notebook in stages):
            key = str(stages[stage.notebook]["key"])
            stamp = read_stamp(out, stage)
            if stamp is not None and stamp.key == key and not damaged(out, stamp):
                continue
            entry = self.find(stage, key)
            if entry is None:
                raise Timer1Error(f"{self.storage.url}: {stage.notebook} of {out.root.name} is not there; run the sweep again")
            self.take(entry, out, stage)
        for name in _BESIDE:
            if (content := self.storage.read(f"{self._rows}/{out.root.name}/{name}")) is not None:
                atomic_write_bytes(out.root / name, content)

    def _bring(self, stage: StageRef, key: str) -> bool:
        """Copy an entry here; False where there is none, or it is not what its stamp says."""
        content = self.storage.read(f"stages/{entry_name(stage, key)}.json")
        if content is None:
            return False
        self.root.mkdir(parents=True, exist_ok=True)
        folder = RunFolder(Path(tempfile.mkdtemp(dir=self.root, prefix=".new-")))
        try:
            entry = folder.root / "entry.json"
            entry.write_bytes(content)
            row = read_json(entry)
            entry.unlink()
            for name, output in row["stamp"]["outputs"].items():
                self._blob(str(output["sha256"]), path := safe_join(folder.root, name))
                os.utime(path, ns=(output["mtime_ns"], output["mtime_ns"]))
            self._blob(str(row["notebook"]), folder.notebook(stage.notebook))
            atomic_write_json(folder.stamp(stage.notebook), row["stamp"])
            target = self.root / entry_name(stage, key)
            shutil.rmtree(target, ignore_errors=True)
            os.replace(folder.root, target)
        except (FileNotFoundError, Timer1Error, KeyError, TypeError, AttributeError):
            shutil.rmtree(folder.root, ignore_errors=True)
            return False
        return True

    def _blob(self, digest: str, target: Path) -> None:
        self.storage.fetch(f"blobs/{digest}", target)
        if sha256_file(target) != digest:
            raise Timer1Error(f"{self.storage.url}: blob {digest} is damaged")


def scratch(job: Mapping[str, Any], node: str) -> Path:
    """This node's folder for a row whose artefacts lie in a storage: the same one when the row comes again."""
    base = Path(tempfile.gettempdir()) / f"timer1-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    if base.is_symlink() or base.stat().st_uid != os.getuid():
        raise Timer1Error(f"{base}: belongs to somebody else; set TMPDIR to a folder of your own")
    name = hashlib.sha256(f"{job['storage']}\0{job['sweep']}\0{node}".encode()).hexdigest()[:16]
    return base / name / str(job["row"])


def send_line(job: Mapping[str, Any], line: str) -> None:
    """The newest line of a running row, for the sweep's live table; a storage that fails just now is tried again later."""
    with contextlib.suppress(Exception):
        Storage(job["storage"]).write(f"rows/{job['sweep']}/{job['row']}/line", line.encode())
