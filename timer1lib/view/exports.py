"""Windows as files: what the table shows as CSV, and samples for Label Studio and FiftyOne and back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from timer1lib.data.exchange import TOOLS, Labelled, fiftyone, label_studio, placed, read_labels
from timer1lib.data.notes import save_note
from timer1lib.errors import Timer1Error, shown
from timer1lib.evaluation.answers import answered, find_run, predicted
from timer1lib.files import atomic_write_bytes
from timer1lib.params import split_list
from timer1lib.runfolder import RunFolder
from timer1lib.view.items import Item

FORMATS = {
    "csv": ("samples.csv", "text/csv", "a row a sample"),
    "label-studio": ("label-studio.json", "application/json", "tasks of Label Studio"),
    "fiftyone": ("labels.json", "application/json", "labels of FiftyOne's FiftyOneTemporalDetectionDataset"),
}
"""{format: (name of the file, MIME type, what it is)}"""


def export(format: str, run: RunFolder, items: Sequence[Item]) -> tuple[bytes, str]:
    """Items in one of `FORMATS`, and a sentence where something had to be left out."""
    if format == "csv":
        return csv_text(items).encode(), ""
    rows = [placed(x.run or run, x.sample, x.split, {row.label: row.spans for row in x.rows}) for x in items]
    return written(format, rows)


def written(tool: str, rows: Sequence[Labelled]) -> tuple[bytes, str]:
    """A tool's JSON, and a sentence where something had to be left out."""
    value = label_studio(rows) if tool == "label-studio" else fiftyone(rows)
    without = sum(row.rate is None for row in rows) if tool == "label-studio" else 0
    said = f"{without} of {len(rows)} left out: no frame rate, their videos cannot be read" if without else ""
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n", said


def csv_text(items: Sequence[Item]) -> str:
    """A row a sample: what it is, its windows, and start, end and IoU of every answer (seconds, in full)."""
    labels = [row.label for row in items[0].rows] if items else []
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    names = [f"{label}_{what}" for label in labels for what in ("start", "end", "iou")]
    writer.writerow(["id", "split", "video", "query", "type", "duration", "windows", *names, "signatures"])
    for item in items:
        sample = item.sample
        windows = "; ".join(f"{start:g}-{end:g}" for start, end in sample.windows)
        cells: list[object] = [sample.id, item.split, sample.video, sample.query, sample.type, item.duration, windows]
        for row in item.rows:
            cells += [*(row.span or ("", "")), item.iou(row)]
        writer.writerow([*cells, "; ".join(item.tags)])
    return sink.getvalue()


def exchange(run: str | Path, to: Path | None, read: Path | None, tool: str = "label-studio", splits: str = "train") -> str:
    """Write a run's samples for `tool`, or take what was changed there as notes; what was done, in words.

    Raises:
        Timer1Error: neither or both asked for, an unknown tool or split, or a file of another format.
    """
    folder = RunFolder(find_run(run))
    if (to is None) == (read is None):
        raise Timer1Error("labels: give either --to FILE or --from FILE")
    if tool not in TOOLS:
        raise Timer1Error(f"labels: --tool {shown(tool)} is none of {', '.join(TOOLS)}")
    there = [name for name in folder.splits() if folder.data(name).is_file()]
    names = there if to is None else split_list(splits) or ["train"]  # what comes back may be about any split
    rows = []
    for name in names:
        if name not in there:
            raise Timer1Error(f"{folder.root}: no split {shown(name)}; it has {', '.join(there)}")
        answers = {key: {row.id: row.span for row in answered(folder, key, name)} for key in predicted(folder).get(name, ())}
        for sample in folder.read_samples(name):
            if sample.windows:
                given = {key: [span] for key, by_id in answers.items() if (span := by_id.get(sample.id))}
                rows.append(placed(folder, sample, name, given))
    if to is not None:
        content, left_out = written(tool, rows)
        atomic_write_bytes(to, content)
        return f"{to}: {len(rows)} samples for {tool}" + (f"; {left_out}" if left_out else "")
    assert read is not None
    notes = read_labels(read, rows)
    for note in notes:
        save_note(folder.notes, note.id, note.label, note.text, note.window)
    test = {row.sample.id for row in rows if not row.split.startswith("train")}
    listed = sum(note.id in test for note in notes)
    tests = f"; {listed} are of test sets: listed, and changed only with curate.repair_test" if listed else ""
    return f"{folder.notes}: notes on {len(notes)} samples whose windows were changed{tests}"
