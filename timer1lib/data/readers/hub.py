"""Data sets from the Hugging Face hub, by id, through the same readers."""

from __future__ import annotations

from collections.abc import Iterator

from timer1lib.data.readers.base import ReadResult, read_rows
from timer1lib.data.readers.scan import Item
from timer1lib.errors import Timer1Error


def hub_samples(
    id: str, split: str, *, format: str | None = None, config: str | None = None, revision: str | None = None
) -> ReadResult:
    """Read a data set of the hub, streaming; nothing in it is run.

    Args:
        id: such as "lmms-lab/Video-MME"; `config` is its configuration, `revision` a commit or tag to pin.

    Raises:
        Timer1Error: offline, no such data set or split, or no known format.
    """
    from timer1lib.data.readers import FORMATS

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

    def items() -> Iterator[Item]:
        for number, row in enumerate(rows, 1):
            yield Item(dict(row), number)

    if format is None:
        votes = {
            name: sum(reader.matches(item.value) for item in items())
            for name, reader in FORMATS.items()
            if reader.container in ("rows", "any") and not reader.textual
        }
        format = max(votes, key=lambda name: votes[name])
        if not votes[format]:
            raise Timer1Error(f"{where}: no known format: rows with the fields {', '.join(rows[0]) if rows else '(none)'}")
    elif format not in FORMATS:
        raise Timer1Error(f"format {format!r}: not known; one of {', '.join(FORMATS)}")
    return read_rows(items(), FORMATS[format], format, f"{id}/{split}", {})
