"""01_curate: get the data, audit it, repair it by the treatments, look at what it covers, write what SFT imitates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timer1lib import forms
from timer1lib.data.audit import AuditReport, audit_results
from timer1lib.data.checks import Limits, source_key
from timer1lib.data.coldstart import Filter, exact, from_annotations, from_form, told_window
from timer1lib.data.findings import CODES
from timer1lib.data.notes import Note, read_notes
from timer1lib.data.quality import quality_report
from timer1lib.data.readers import ReadResult, hub_samples, read_annotations
from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, atomic_write_jsonl, read_json, resolve
from timer1lib.models.config import base_name, sampling_for
from timer1lib.params import split_list
from timer1lib.params.sections import CurateParams
from timer1lib.rules import parse_checks
from timer1lib.runs.closure import code_hash
from timer1lib.schema import Sample
from timer1lib.stages import Stage, cells
from timer1lib.video.store import FrameStore

CurateStage = Stage[CurateParams]


@dataclass(slots=True)
class Sources:
    """What was read: a result for each file, the split that each goes into, and the folder of the videos.

    Each sample names its split, which differs from its file's where `curate.split` has divided the videos.
    """

    results: list[ReadResult]
    split_of: dict[str, str]
    root: Path | None

    def __post_init__(self) -> None:
        for result in self.results:
            for sample in result.samples:
                sample.split = self.split_of[result.file]


def gather(stage: CurateStage) -> Sources:
    """Build the embedded world, or read the annotation files.

    Raises:
        Timer1Error: a file that cannot be read, no training file, no video folder.
    """
    return _world(stage) if stage.params.source == "world" else _files(stage)


def world_folder(stage: CurateStage) -> Path:
    """Where the world's videos lie, by what they depend on: runs of any size and wording share those of one seed and look."""
    p = stage.params
    asked = [p.world_seed, p.look_alikes, p.pairs]
    name = hashlib.sha256(json.dumps([asked, world_version()]).encode()).hexdigest()[:12]
    return resolve(stage.shared.cache_dir) / f"world-{name}"


def world_version() -> str:
    """Digest of the code that draws, by meaning: another world must not find the old one's videos."""
    return code_hash(Path(__file__).resolve().parents[1], "world.splits", inside="world")


def _world(stage: CurateStage) -> Sources:
    from timer1lib.world.scene import Look
    from timer1lib.world.splits import Variety, build_splits

    p, root = stage.params, world_folder(stage)
    splits = build_splits(
        root, train_videos=p.train_videos, test_videos=p.test_videos, ood_videos=p.ood_videos, questions=p.questions,
        train_questions=p.train_questions, queries_a_video=p.queries_a_video, seed=p.world_seed, workers=stage.shared.workers,
        more_tests=split_list(p.more_tests), variety=Variety(p.phrasings, Look(p.look_alikes, p.pairs)),
    )  # fmt: skip
    results = []
    for name, samples in splits.items():
        rows = list(range(1, len(samples) + 1))
        results.append(ReadResult(f"world/{name}", "timer1", list(samples), [], len(samples), rows, rows))
    return Sources(results, {f"world/{name}": name for name in splits}, root)


def _files(stage: CurateStage) -> Sources:
    p = stage.params
    reader = None if p.format == "auto" else p.format
    results = [read_annotations(resolve(path), reader) for path in split_list("" if p.tests_only else p.train_files)]
    if p.hub_train:
        results.append(_hub(p.hub_train, reader))
    split_of = {result.file: "train" for result in results}
    if not results and not p.tests_only:
        raise Timer1Error("curate.source=files needs curate.train_files (or curate.hub_train)")
    for entry in split_list(p.test_files):
        name, equals, path = entry.rpartition("=")
        results.append(read_annotations(resolve(path if equals else entry), reader))
        split_of[results[-1].file] = _split_name(name.strip() or Path(entry).stem, split_of)
    for entry in split_list(p.hub_test):
        results.append(_hub(entry, reader))
        split_of[results[-1].file] = _split_name(entry.split(":")[0].split("/")[-1], split_of)
    if p.videos and not resolve(p.videos).is_dir():
        raise Timer1Error(f"curate.videos {p.videos!r}: no such folder")
    sources = Sources(results, split_of, resolve(p.videos) if p.videos else None)
    if p.split < 1:
        divide(sources, p.split, stage.shared.seed)
    return sources


def divide(sources: Sources, share: float, seed: int) -> None:
    """Give the samples of all but `share` of the training videos to a split `test`.

    A video, and what was cut from one video, stays together. Which it is is drawn by its name and `seed`, so that videos that
    come later move few of the others.

    Raises:
        Timer1Error: a single video, which cannot stand on both sides.
    """
    samples = [sample for result in sources.results for sample in result.samples if sample.split == "train"]
    videos = {source_key(sample.video) for sample in samples}
    if len(videos) < 2:
        raise Timer1Error(f"curate.split {share:g} divides videos, and there is {len(videos)}: add some, or set it to 1")
    drawn = sorted(videos, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
    kept = set(drawn[: min(len(drawn) - 1, max(1, round(share * len(drawn))))])
    other = _split_name("test", sources.split_of)
    for sample in samples:
        if source_key(sample.video) not in kept:
            sample.split = other


def _hub(entry: str, reader: str | None) -> ReadResult:
    name, colon, split = entry.rpartition(":")
    if not colon:
        raise Timer1Error(f"hub data set {entry!r}: write it as id:split")
    return hub_samples(name, split, format=reader)


def _split_name(wanted: str, taken: Mapping[str, str]) -> str:
    """A split's name: letters, digits, `_` and `-`; unlike those that there are, and unlike the run's own files."""
    name = "".join(c if c.isalnum() or c in "_-" else "_" for c in wanted) or "test"
    name = name if name not in ("train", "cold_start", "difficulty", "selected") else f"{name}_test"
    while name in taken.values():
        name += "_2"
    return name


def treatments(params: CurateParams) -> dict[str, str]:
    """`{code: treatment}` from the fields `on_<code>`."""
    return {code: getattr(params, f"on_{code}") for code in CODES if hasattr(params, f"on_{code}")}


def notes_of(stage: CurateStage) -> list[Note]:
    """Notes on samples: of this run's inspection, and of another run's where one is named."""
    files = [stage.run.notes] if stage.params.use_notes and stage.run.notes.is_file() else []
    if stage.params.notes_file:
        files.append(resolve(stage.params.notes_file))
    return [note for file in files for note in read_notes(file)]


def audit(stage: CurateStage, sources: Sources, checks: cells.GivenChecks | str | None = None) -> AuditReport:
    """Audit everything together, repair copies by the treatments, and write `data/audit.json`.

    `checks` stand in the place of `curate.checks`: {"too_still": my_function} to report, (my_function, "drop") to drop.

    Test sets are reported on and stay as published unless `repair_test` is set: repaired rows make other scores. That holds
    for what people noted on any test set, the world's too. Rows of test sets about damaged videos count with the others,
    answered by an error, where `on_damaged` drops such rows. The test that `curate.split` makes is nobody's benchmark: its
    rows are repaired as those of training are, but for notes, by which one would choose what one is measured on.
    """
    stage.adopt(**({} if checks is None else {"checks": cells.checks_text(stage, checks)}))
    p = stage.params
    training = ("train", "train_qa") if p.source == "world" else ("train",)
    tests = [split for split in sources.split_of.values() if split not in training and not p.repair_test]
    divided = {sample.split for result in sources.results for sample in result.samples} - set(sources.split_of.values())
    # The world's films were drawn just now, are different by construction, and their plain backgrounds would only cost time.
    foreign = p.source == "files"
    shared = stage.shared
    with FrameStore(resolve(shared.cache_dir), shared.cache_gb, shared.workers) as store:
        root, deep = sources.root if p.check_videos else None, store if foreign and p.deep_check else None
        limits = Limits(p.end_tolerance, p.short_window, p.whole_share, p.duration_tolerance, foreign)
        published = tests if foreign else ()
        report = audit_results(
            sources.results,
            root,
            treatments(p),
            limits,
            notes_of(stage),
            as_published=published,
            only_listed=tests if p.repair_test else [*tests, *divided],
            deep=deep,
            workers=shared.workers,
            checks=parse_checks(p.checks),
        )
    _keep(stage, "audit.json", report.to_json())
    return report


def write_splits(stage: CurateStage, sources: Sources, report: AuditReport) -> dict[str, list[Sample]]:
    """Write `data/<split>.jsonl`, `data/splits.json` and `data/videos.json`; `seen` is a part of `train` that 05 asks about.

    Raises:
        Timer1Error: nothing is left to train on; files without a video folder; a test set named `seen` beside that one.
    """
    named = {sample.split for result in sources.results for sample in result.samples}
    splits: dict[str, list[Sample]] = {name: [] for name in dict.fromkeys([*sources.split_of.values(), *sorted(named)])}
    for samples in report.samples.values():
        for sample in samples:
            splits[sample.split].append(sample)
    for name, samples in splits.items():
        if not samples:
            raise Timer1Error(
                f"no row of split {name!r} is left after the audit ({report.dropped_by}); see {stage.run.data('audit.json')}"
            )
        if not stage.finished:
            stage.run.write_samples(name, samples)
    table = {name: {"kind": _kind(samples), "n": len(samples)} for name, samples in splits.items()}
    if seen := first_videos(splits.get("train", []), stage.params.seen_videos):
        if SEEN in splits:
            raise Timer1Error(f"curate.seen_videos makes a split {SEEN!r}, and a test set has that name; give it another one")
        table[SEEN] = {"kind": _kind(seen), "n": len(seen)}
        if not stage.finished:
            stage.run.write_samples(SEEN, seen)
    _keep(stage, "splits.json", table)
    if sources.root is None:
        raise Timer1Error("curate.videos is empty: name the folder that holds the videos")
    if not stage.finished:
        stage.run.set_video_root(sources.root, report.damaged if stage.params.on_damaged == "drop" else {})
    return splits


SEEN = "seen"
"""The split that holds what is trained on: no test, but what a test is held against."""


def first_videos(samples: Sequence[Sample], videos: int) -> list[Sample]:
    """The samples of the first so many videos."""
    kept = set(list(dict.fromkeys(sample.video for sample in samples))[:videos])
    return [sample for sample in samples if sample.video in kept]


def _keep(stage: CurateStage, name: str, value: Any) -> None:
    """Write `data/<name>`; where the stage is finished it stands there already."""
    if not stage.finished:
        atomic_write_json(stage.run.data(name), value)


def _kind(samples: Sequence[Sample]) -> str:
    return "questions" if all(sample.is_question for sample in samples) else "grounding"


def quality(stage: CurateStage, splits: Mapping[str, Sequence[Sample]]) -> dict[str, dict[str, Any]]:
    """A quality report for each split, written to `data/quality.json`; blind answers are fitted on the training split."""
    train = splits.get("train")
    limit, seed = stage.params.blind_limit, stage.shared.seed
    reports = {
        name: quality_report(samples, None if name == "train" else train, limit=limit, seed=seed)
        for name, samples in splits.items()
        if _kind(samples) == "grounding"
    }
    _keep(stage, "quality.json", reports)
    return reports


def cold_start(stage: CurateStage, train: Sequence[Sample]) -> dict[str, Any]:
    """Write `data/cold_start.jsonl`, what SFT imitates; returns where it came from and how many each rule kept."""
    p, form = stage.params, forms.load(stage.shared.form)
    told: dict[str, Any] = {"from": p.cold_start, "pool": len(train)}
    rows: list[dict[str, Any]] = []
    if p.cold_start == "template":
        shared = stage.shared
        by_model = p.cold_start_times == "told"
        times = told_window(stage.run.video, sampling_for(shared), base_name(shared), shared.timestamps) if by_model else exact
        rows = from_form(train, form, p.cold_start_n, shared.seed, times=times)
        told["form"] = form.name
    elif p.cold_start == "annotations":
        if not p.cold_start_file:
            raise Timer1Error("curate.cold_start=annotations needs curate.cold_start_file")
        rules = Filter(p.cold_start_min_iou, p.cold_start_form, p.cold_start_min_chars, p.cold_start_max_chars)
        filtered = from_annotations(resolve(p.cold_start_file), train, form, rules)
        rows = filtered.rows
        told |= {"read": filtered.read, "rules": filtered.rules}
    told["rows"] = len(rows)
    if not stage.finished:
        atomic_write_jsonl(stage.run.data("cold_start"), rows)
    return told


def clock(stage: CurateStage, splits: Mapping[str, Sequence[Sample]]) -> dict[str, Any]:
    """The largest difference between a sampled frame's own time and the time the model is told, over all samples.

    Written to `data/clock.json`; `id` names the sample, `over_limit` counts those with an unexplained difference.
    """
    if stage.finished and (kept := stage.run.data("clock.json")).is_file():
        found: dict[str, Any] = read_json(kept)  # what takes longest of all that a finished 01 shows again
        return found
    from timer1lib.inference.clock_report import max_clock_error

    samples = [sample for rows in splits.values() for sample in rows]
    shared = stage.shared
    told = (base_name(shared), shared.timestamps, shared.workers)
    report = max_clock_error(samples, stage.run.video_root, sampling_for(shared), *told)
    _keep(stage, "clock.json", report)
    return report


def clock_of(stage: CurateStage, sample: Sample) -> dict[str, Any]:
    """What the model is told about one sample's frames, read back from its own tokens and positions."""
    from timer1lib.inference.clock_report import clock_report

    video, shared = stage.run.video(sample), stage.shared
    clip, sampling = (sample.video_start, sample.video_end), sampling_for(shared)
    rule, told = shared.clock_rule, shared.timestamps
    return clock_report(video, base_name(shared), clip=clip, sampling=sampling, clock_rule=rule, timestamps=told)
