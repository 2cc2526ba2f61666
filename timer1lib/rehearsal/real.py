"""What the real thing takes and meets, looked up before anything is rented: memory, hours, disk, files, rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from timer1lib.data.audit import AuditReport, audit_results
from timer1lib.data.checks import Limits
from timer1lib.data.readers import ReadResult, read_annotations
from timer1lib.data.video_checks import VideoFolder
from timer1lib.errors import Timer1Error
from timer1lib.files import resolve
from timer1lib.models.config import architecture_of, base_name
from timer1lib.models.load import local_folder
from timer1lib.params import split_list
from timer1lib.params.sections import Params
from timer1lib.stages.curate import treatments
from timer1lib.training.estimate import estimate, format_estimate

BF16 = 2


def training_files(params: Params) -> list[str]:
    """The entries of a recipe's training files; none where it only tests."""
    return [] if params.curate.tests_only else split_list(params.curate.train_files)


def named_files(params: Params) -> dict[str, tuple[str, Path]]:
    """{entry of the recipe: (the split's name where one is given, path)} of its annotation files, training first."""
    found = {entry: ("", resolve(entry)) for entry in training_files(params)}
    for entry in split_list(params.curate.test_files):
        name, equals, path = entry.rpartition("=")
        found[entry] = (name.strip(), resolve(path.strip() if equals and not resolve(entry).exists() else entry))
    return found


def real_thing(params: Params, root: Path, card: str) -> dict[str, Any]:
    """What differs from the rehearsal: {missing, videos, rows, free GB, caches GB, estimate}, each as it is told to a person.

    Annotation files that are here are audited whole, by the recipe's own treatments, without opening a video.
    """
    told: dict[str, Any] = {"missing": missing(params)}
    told |= _rows(params) if params.curate.source == "files" else {}
    there = next(parent for parent in (root.resolve(), *root.resolve().parents) if parent.exists())
    told |= {"free GB": shutil.disk_usage(there).free / 1e9, "caches GB": 2 * params.shared.cache_gb}
    try:
        told["estimate"] = estimate(params, card)
    except Timer1Error as error:
        told["estimate"] = {"verdict": str(error)}
    return told


def missing(params: Params) -> list[str]:
    """Everything that the recipe names and this machine has not."""
    curate, found = params.curate, []
    name = base_name(params.shared)
    if not Path(local_folder(name)).is_dir():
        size = architecture_of(name).parameters() * BF16 / 1e9
        found.append(f"shared.model {name}: {size:.1f} GB to fetch from the hub")
    if curate.source == "files":
        found += [f"annotations {path}" for _, path in named_files(params).values() if not path.is_file()]
        found += [f"hub data set {entry}" for entry in (*split_list(curate.hub_train), *split_list(curate.hub_test))]
        if not curate.videos or not resolve(curate.videos).is_dir():
            found.append(f"the folder of the videos, curate.videos {curate.videos!r}")
    named = {
        "cold_start_file": curate.cold_start_file if curate.cold_start == "annotations" else "",
        "notes_file": curate.notes_file,
    }
    return found + [f"curate.{key} {text}" for key, text in named.items() if text and not resolve(text).is_file()]


def _rows(params: Params) -> dict[str, Any]:
    curate = params.curate
    reader = None if curate.format == "auto" else curate.format
    results: list[ReadResult] = []
    train = set(training_files(params))
    tests: list[str] = []
    for entry, (name, path) in named_files(params).items():
        if path.is_file():
            results.append(read_annotations(path, reader))
            for sample in results[-1].samples:
                sample.split = "train" if entry in train else name or path.stem
            tests += [] if entry in train or curate.repair_test else [results[-1].file]
    if not results:
        return {}
    limits = Limits(curate.end_tolerance, curate.short_window, curate.whole_share, curate.duration_tolerance)
    report = audit_results(results, None, treatments(curate), limits, as_published=tests, only_listed=tests)
    told: dict[str, Any] = {"rows": _account(report)}
    if curate.videos and resolve(curate.videos).is_dir():
        folder = VideoFolder(resolve(curate.videos))
        names = [sample.video for result in results for sample in result.samples]
        gone = {name for name in dict.fromkeys(names) if _absent(folder, name)}
        told["videos"] = {"named": len(set(names)), "missing": len(gone), "rows about them": sum(name in gone for name in names)}
    return told


def _absent(folder: VideoFolder, name: str) -> bool:
    try:
        return folder.find(name) is None
    except Timer1Error:
        return True


def _account(report: AuditReport) -> dict[str, Any]:
    return {"files": report.files, "dropped by": report.dropped_by, "found": report.findings}


def real_lines(told: dict[str, Any]) -> list[str]:
    """For a terminal."""
    lines = [f"missing: {what}" for what in told["missing"]] or ["missing: nothing"]
    if "videos" in told:
        v = told["videos"]
        lines.append(
            f"videos: {v['missing']} of {v['named']} named are not in the folder; {v['rows about them']} rows are about them"
        )
    for file in told.get("rows", {}).get("files", ()):
        fates = f"{file['kept']} kept, {file['repaired']} repaired, {file['dropped']} dropped"
        lines.append(f"rows: {file['file']}: {file['in']} in, {fates} (its videos were not opened)")
    dropped = told.get("rows", {}).get("dropped by", {})
    if dropped:
        lines.append("rows dropped for: " + ", ".join(f"{code} {n}" for code, n in dropped.items()))
    need = told["estimate"].get("disk GB", 0.0) + told["caches GB"]
    verdict = "" if need <= told["free GB"] else ": not enough"
    lines.append(
        f"disk: up to {need:.0f} GB, {told['caches GB']:.0f} of them caches; {told['free GB']:.0f} GB are free here{verdict}"
    )
    return [*lines, *format_estimate(told["estimate"]).splitlines()]
