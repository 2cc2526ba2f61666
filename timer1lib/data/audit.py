"""Every flaw of annotation files, with its code, place and proposed repair; and the rows as the treatments leave them."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from timer1lib.data.checks import Limits, check_duplicates, check_leakage, check_row
from timer1lib.data.findings import CODES, Code, Finding, Record, Treatment, resolve_treatments
from timer1lib.data.notes import Note, apply_notes
from timer1lib.data.readers import ReadResult, read_annotations
from timer1lib.data.video_checks import ProbeSeconds, VideoFolder, check_videos, probe_seconds
from timer1lib.errors import Timer1Error
from timer1lib.progress import Progress
from timer1lib.rules import Audited, NoPictures, OwnCheck
from timer1lib.schema import Sample

if TYPE_CHECKING:
    from timer1lib.video.store import FrameStore

FILE_CODES = ("missing_video", "undecodable", "outside_root")
"""Flaws of video files: no treatment on annotations makes such a row usable."""

EXAMPLES = 3
"""Findings of each code that the text form shows."""


@dataclass(slots=True)
class AuditReport:
    """What the audit found. `rows["in"] == rows["kept"] + rows["repaired"] + rows["dropped"]`, for each file too.

    `samples[file]` are the rows that stay, repaired as the treatments say; `changes` lists every value that differs.
    """

    rows: dict[str, int]
    files: list[dict[str, Any]]
    details: list[Finding]
    changes: list[dict[str, Any]]
    treatments: dict[str, Treatment]
    samples: dict[str, list[Sample]] = field(repr=False)
    dropped_by: dict[str, int] = field(default_factory=dict)
    unknown_notes: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    """What a deep check found, by the video's path below the video folder."""
    codes: Mapping[str, Code] = field(default_factory=lambda: CODES, repr=False)
    """What each finding means: the library's, then those of a person's own checks, by their names."""

    @property
    def findings(self) -> dict[str, int]:
        """{code: count}, in the order of `codes`."""
        counts: Counter[str] = Counter()
        for finding in self.details:
            counts[finding.code] += finding.count
        return {code: counts[code] for code in self.codes if counts[code]}

    def to_json(self, details: bool = True) -> dict[str, Any]:
        report: dict[str, Any] = {
            "rows": self.rows,
            "findings": self.findings,
            "dropped_by": self.dropped_by,
            "files": self.files,
            "treatments": {code: self.treatments[code] for code in self.findings},
        }
        if self.unknown_notes:
            report["notes_without_a_row"] = self.unknown_notes
        if details:
            report["details"] = [finding.to_json() for finding in self.details]
            report["changes"] = self.changes
        return report

    def __str__(self) -> str:
        """For a terminal: the account of rows, then each code with its count, proposed repair and first examples."""
        rows = self.rows
        lines = [f"{entry['file']}: format {entry['format']}, {entry['in']} rows" for entry in self.files]
        account = f"{rows['in']} rows in = {rows['kept']} kept + {rows['repaired']} repaired + {rows['dropped']} dropped"
        lines.append(f"{account} (proposed; no file is changed)")
        if not self.details:
            lines.append("nothing found")
        order = {"error": 0, "warning": 1, "info": 2}
        for code, count in sorted(self.findings.items(), key=lambda item: (order[self.codes[item[0]].severity], -item[1])):
            found = [finding for finding in self.details if finding.code == code]
            repaired: Counter[str] = Counter()
            for finding in found:
                repaired[finding.repair] += finding.count
            repairs = ", ".join(f"{repair} {n}" for repair, n in repaired.most_common())
            lines.append(f"\n{self.codes[code].severity:7} {code}: {count}  ({repairs})  {self.codes[code].meaning}")
            lines += [f"        {finding.where}: {finding.message}" for finding in found[:EXAMPLES]]
            if len(found) > EXAMPLES:
                lines.append(f"        ... and {len(found) - EXAMPLES} more")
        return "\n".join(lines)


def audit_files(
    paths: Sequence[str | Path],
    format: str | None = None,
    videos: str | Path | None = None,
    treatments: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    notes: Sequence[Note] = (),
    probe: ProbeSeconds = probe_seconds,
    deep: FrameStore | None = None,
    workers: int = 0,
    checks: Sequence[OwnCheck] = (),
) -> AuditReport:
    """Read and audit annotation files together; files count as different splits unless their rows name one.

    Args:
        videos: folder of the videos; with it files are looked up, probed and compared by content.
        deep: decodes every video whole to find damage behind the first frame.
        workers: processes that look at the videos; 0 does so in place.
        checks: a person's own (docs/ideas.md), which see the rows that are left as the treatments repaired them.
        treatments: {code: keep | clip | swap | drop}, over the defaults in `findings.CODES`.

    Raises:
        Timer1Error: a file that cannot be read at all, an unknown treatment, no such folder.
    """
    results = [read_annotations(path, format) for path in dict.fromkeys(map(str, paths))]
    return audit_results(results, videos, treatments, limits, notes, probe, deep=deep, workers=workers, checks=checks)


def audit_results(
    results: Sequence[ReadResult],
    videos: str | Path | None = None,
    treatments: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    notes: Sequence[Note] = (),
    probe: ProbeSeconds = probe_seconds,
    as_published: Sequence[str] = (),
    deep: FrameStore | None = None,
    only_listed: Sequence[str] = (),
    workers: int = 0,
    checks: Sequence[OwnCheck] = (),
) -> AuditReport:
    """`audit_files` for files that were read already.

    Args:
        as_published: files (`ReadResult.file`) or splits whose rows are reported on but stay as they are wherever that is
            possible: a benchmark's test split, whose scores would otherwise not compare with anybody's.
        only_listed: files or splits whose notes are reported on and change nothing: every test split.

    Raises:
        Timer1Error: a person's own check that fails, with the row; such a check with the name of one of the library's.
    """
    chosen = resolve_treatments(treatments)
    hands_off: dict[str, Treatment] = {code: "keep" if "keep" in CODES[code].allowed else chosen[code] for code in CODES}
    hands_off |= {code: chosen[code] for code in FILE_CODES}
    listing: dict[str, Treatment] = {**chosen, "wrong_label": "keep", "ambiguous": "keep"}
    limits = limits or Limits()
    own = {check.name: Code("warning", check.treatment, ("keep", "drop"), check.about) for check in checks}
    if taken := sorted(set(own) & set(CODES)):
        raise Timer1Error(f"check {taken[0]!r}: one of the audit's own findings has that name; call it otherwise")

    def treated(file: str, split: str) -> Mapping[str, Treatment]:
        return hands_off if {file, split} & {*as_published} else listing if {file, split} & {*only_listed} else chosen

    records = [record for r in results for record in _records(r, treated, own)]
    unknown = apply_notes(records, notes)
    contents = None
    if videos is not None:
        contents = check_videos(records, VideoFolder(Path(videos).expanduser()), limits, probe, deep, workers)
    for record in records:
        check_row(record, limits)
    check_duplicates(records, limits)
    if len({record.split for record in records}) > 1:
        check_leakage(records, contents)
    untouched = {record.split for record in records if {record.file, record.split} & {*as_published}}
    _own_checks(records, checks, untouched, None if videos is None else Path(videos).expanduser())
    return _report(results, records, chosen | {name: code.default for name, code in own.items()}, unknown, {**CODES, **own})


def _own_checks(records: Sequence[Record], checks: Sequence[OwnCheck], untouched: Collection[str], root: Path | None) -> None:
    """Have a person's checks look at the rows that are left; in splits that are `untouched` a finding changes nothing."""
    left = [record for record in records if checks and not record.dropped_by]
    progress = Progress("your checks", len(left)) if left else None
    last: tuple[object, Any] = (None, None)

    def frames(record: Record, count: int) -> NDArray[np.uint8]:
        """The last video's pictures are kept: queries about one video mostly stand together."""
        nonlocal last
        if root is None:
            raise Timer1Error("there are no videos to look at; name their folder, and leave check_videos on")
        if record.readable_video is None:
            raise NoPictures(f"{record.sample.video}: no such file")
        asked = (record.readable_video, record.sample.video_start, record.sample.video_end, count)
        if last[0] != asked:
            last = asked, _pictures(root / asked[0], asked[1:3], count)
        return cast("NDArray[np.uint8]", last[1])

    for record in left:
        row = Audited.of(record.sample, record.split, partial(frames, record))
        for check in checks:
            if wrong := check.find(row):
                record.find(check.name, wrong, repair="keep" if record.split in untouched else check.treatment)
        if progress is not None:
            progress.update()


def _pictures(path: Path, clip: tuple[float | None, float | None], count: int) -> NDArray[np.uint8]:
    from timer1lib.clock.frames import Sampling
    from timer1lib.video.decode import read_frames

    sampling = Sampling("frames", frames=count, min_frame_pixels=56 * 56, total_pixels=count * 224 * 224, factor=28)
    try:
        pixels = read_frames(path, sampling, clip, temporal_patch=1).pixels
    except Timer1Error as error:
        raise NoPictures(str(error)) from error
    return np.asarray(pixels.take(np.linspace(0, len(pixels) - 1, count).round().astype(int), axis=0), dtype=np.uint8)


def _records(result: ReadResult, treated: Callable[[str, str], Mapping[str, Treatment]], own: Mapping[str, Code]) -> list[Record]:
    records = [
        Record(sample, copy.copy(sample), result.file, row, line, treated(result.file, sample.split), own=own)
        for sample, row, line in zip(result.samples, result.rows, result.lines, strict=True)
    ]
    by_row = {record.row: record for record in records}
    for problem in result.problems:
        if owner := by_row.get(problem.row or 0):
            treatment = owner.find(problem.code, problem.message, severity=problem.severity)
            if problem.code == "text_number" and treatment != "drop":
                owner.change("text_number", problem.message.split(" is ")[0], "text", "number")
    return records


def _report(
    results: Sequence[ReadResult],
    records: Sequence[Record],
    treatments: dict[str, Treatment],
    unknown: list[str],
    codes: Mapping[str, Code],
) -> AuditReport:
    details: list[Finding] = []
    files: list[dict[str, Any]] = []
    samples: dict[str, list[Sample]] = {}
    total: Counter[str] = Counter({"in": 0, "kept": 0, "repaired": 0, "dropped": 0})
    dropped_by: Counter[str] = Counter()
    for result in results:
        own = [record for record in records if record.file == result.file]
        rows = {record.row for record in own}
        unread = [problem for problem in result.problems if problem.row not in rows]
        fates = Counter([*(record.fate for record in own), *("dropped" for _ in unread)])
        account = {"in": result.rows_in, **{fate: fates[fate] for fate in ("kept", "repaired", "dropped")}}
        assert account["in"] == account["kept"] + account["repaired"] + account["dropped"], account
        total.update(account)
        dropped_by.update([*(p.code for p in unread), *(record.dropped_by for record in own if record.dropped_by)])
        files.append({"file": result.file, "format": result.format, **account})
        found = unread + _together(own, "no_duration")
        details += sorted(found, key=lambda finding: finding.row or 0)
        samples[result.file] = [record.sample for record in own if not record.dropped_by]
    changes = [change for record in records if not record.dropped_by for change in record.changes]
    damaged = {r.sample.video: found.message for r in records for found in r.findings if found.code == "damaged"}
    return AuditReport(dict(total), files, details, changes, treatments, samples, dict(dropped_by), unknown, damaged, codes)


def _together(records: Sequence[Record], code: str) -> list[Finding]:
    """The findings of a file's rows, those of one code as one with a count: where it is every row's it would hide the others."""
    found = [(record, finding) for record in records for finding in record.findings]
    same = [(record, finding) for record, finding in found if finding.code == code]
    others = [finding for _, finding in found if finding.code != code]
    if len(same) < 2:
        return [finding for _, finding in found]
    known = sum(record.sample.duration is not None for record, _ in same)
    first = same[0][1]
    message = f"{len(same)} rows name no duration; {known} of them have their video file's own now"
    message += "" if known else " (name the folder of the videos, and they do)"
    return [replace(first, message=message, row=None, line=None, id="", count=len(same)), *others]
