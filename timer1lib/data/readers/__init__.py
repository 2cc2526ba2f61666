"""Annotation files and hub data sets of the field, read into one schema (`timer1lib.schema.Sample`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from timer1lib.data.readers.base import Reader, ReadResult, kind, read_rows
from timer1lib.data.readers.grounding import GROUNDING
from timer1lib.data.readers.plain import PLAIN
from timer1lib.data.readers.questions import QUESTIONS
from timer1lib.data.readers.scan import Broken, Item
from timer1lib.data.readers.source import Source, csv_header, open_source
from timer1lib.errors import Timer1Error, did_you_mean

__all__ = ["FORMATS", "ReadResult", "Reader", "hub_samples", "read_annotations", "recognise"]

FORMATS: dict[str, Reader] = {**GROUNDING, **QUESTIONS, **PLAIN}
"""Every format by name. The order is the order in which they are tried on an unknown file: the special before the plain."""


def read_annotations(path: str | Path, format: str | None = None) -> ReadResult:
    """Read an annotation file of any known format.

    Args:
        format: a name in `FORMATS`; None recognises it from the file's content.

    Raises:
        Timer1Error: no such file, empty, binary, no such format, or none that fits.
    """
    if format is not None and format not in FORMATS:
        hint = did_you_mean(format, FORMATS)
        raise Timer1Error(f"format {format!r}: not known{f'; {hint}' if hint else ''} One of {', '.join(FORMATS)}")
    source = open_source(path)
    name = format or recognise(source)
    reader = FORMATS[name]
    if not _fits(source, reader):
        raise Timer1Error(f"{path}: not a file of format {name!r}, which is {reader.about}; it holds {_looks(source, [])}")
    return read_rows(source.items(), reader, name, str(path), reader.companions(Path(path)))


def hub_samples(
    id: str, split: str, *, format: str | None = None, config: str | None = None, revision: str | None = None
) -> ReadResult:
    """Read a data set of the hub, streaming; nothing in it is run.

    `id` is such as "lmms-lab/Video-MME", `revision` a commit or tag to pin.

    Raises:
        Timer1Error: offline, no such data set or split, or no known format.
    """
    where = f"hub data set {id!r}, split {split!r}"
    try:
        import datasets

        stream = datasets.load_dataset(id, config, split=split, revision=revision, streaming=True)
        # Media columns are left encoded: only the annotation is wanted here.
        stream = stream.select_columns([name for name in (stream.column_names or []) if name not in ("image", "video_bytes")])
        rows = list(stream)
    except ImportError:
        raise Timer1Error(f"{where}: the package 'datasets' is not installed") from None
    except Exception as error:  # the hub's client raises many kinds; one line is what a person needs
        reason = " ".join(str(error).split())[:200]
        raise Timer1Error(f"{where}: cannot be read ({type(error).__name__}: {reason}); is this machine online?") from error

    items = [Item(dict(row), number) for number, row in enumerate(rows, 1)]
    if format is None:
        votes = {
            name: sum(reader.matches(item.value) for item in items)
            for name, reader in FORMATS.items()
            if reader.container in ("rows", "any") and not reader.textual
        }
        format = max(votes, key=lambda name: votes[name])
        if not votes[format]:
            raise Timer1Error(f"{where}: no known format: rows with the fields {', '.join(rows[0]) if rows else '(none)'}")
    elif format not in FORMATS:
        raise Timer1Error(f"format {format!r}: not known; one of {', '.join(FORMATS)}")
    return read_rows(items, FORMATS[format], format, f"{id}/{split}", {})


def recognise(source: Source) -> str:
    """The format that most of the first rows look like; where none fits, a Timer1Error says what they look like."""
    entries = list(islice(source.items(), 50))
    rows = [item for item in entries if isinstance(item, Item)]
    votes = {name: sum(reader.matches(row.value) for row in rows) for name, reader in FORMATS.items() if _fits(source, reader)}
    most = max(votes.values(), default=0)
    if most == 0:
        raise Timer1Error(
            f"{source.path}: no known format: {_looks(source, entries)}; give --format, one of {', '.join(FORMATS)}"
        )
    # Damaged rows look like the plain format: the special one wins where at least half of them are its own.
    return next(name for name, count in votes.items() if count >= most / 2)


def _fits(source: Source, reader: Reader) -> bool:
    if source.container == "csv":
        return reader.textual
    if source.container == "text":
        return reader.container == "text"
    if reader.textual or reader.container == "text":
        return False
    mapped = source.container == "object" and not source.row_lists
    return reader.container in ("any", "map" if mapped else "rows")


def _looks(source: Source, entries: Sequence[Item | Broken]) -> str:
    first = next((entry for entry in entries if isinstance(entry, Item)), None)
    broken = next((entry for entry in entries if isinstance(entry, Broken)), None)
    if source.container == "csv":
        return f"CSV with the columns {', '.join(csv_header(source))} (needed: video, query, start, end)"
    if source.container == "text":
        return "text lines"
    if first is None:
        return f"no readable row (line {broken.line}: {broken})" if broken else f"an empty JSON {source.container}"
    if isinstance(first.value, dict):
        return f"rows with the fields {', '.join(' '.join(str(name).split())[:40] for name in list(first.value)[:8])}"
    return f"rows that are {kind(first.value)}"
