"""A predictions file that a killed run goes on with: what it belongs to, what is done, and the finished file.

Beside `base.test.jsonl` stand `base.test.meta.json` (the settings and the weights that the answers come from) and, while
the work is under way, `base.test.part.jsonl` (answers in the order in which they were given). Answers of other settings
are never mixed in: where the key differs, the work starts anew. Lines and settings that a disk has damaged are logged, and
what they held is asked again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from timer1lib import forms
from timer1lib.clock.frames import Frames
from timer1lib.errors import Timer1Error
from timer1lib.files import (
    append_jsonl,
    atomic_write_json,
    atomic_write_jsonl,
    read_json,
    read_jsonl,
    read_numbered,
    resolve,
    sha256_sample,
)
from timer1lib.params import result_parameters
from timer1lib.schema import Prediction, Sample
from timer1lib.video.images import content_digest
from timer1lib.workers.team import team

if TYPE_CHECKING:
    from timer1lib.models.load import LoadedModel
    from timer1lib.params.sections import SharedParams


log = logging.getLogger(__name__)


class Ledger:
    """The answers of one file, `copies` a sample."""

    def __init__(self, path: str | Path, settings: Mapping[str, Any], copies: int = 1, kept: Path | None = None) -> None:
        """`kept` is where the whole file is kept for other runs, and taken from where one has given it: `kept_for_all`."""
        self.path = Path(path)
        self.kept = kept
        self.part = self.path.with_suffix(".part.jsonl")
        self.meta = self.path.with_suffix(".meta.json")
        self.settings = dict(settings)
        self.copies = copies
        # the weights say which model it is; its name is a place, and a run that was moved goes on
        self.key = digest({name: value for name, value in self.settings.items() if name != "model"})
        self.done: dict[str, list[Prediction]] = {}
        self._own = self.part if team.first else self.path.with_suffix(f".rank{team.rank}.part.jsonl")
        self._fresh: dict[str, list[Prediction]] = {}

    def open(self) -> dict[str, list[Prediction]]:
        """What is done already, by sample id; files of other settings are removed. Of several ranks the first one looks."""
        self.done = team.agree(self._open() if team.first else {})
        return self.done

    def _open(self) -> dict[str, list[Prediction]]:
        ranks = sorted(self.path.parent.glob(f"{self.path.stem}.rank*.part.jsonl"))
        if _meta(self.meta).get("key") != self.key:
            # The answers go first: a kill between these lines must not leave old answers under the new key.
            self.path.unlink(missing_ok=True)
            for part in (self.part, *ranks):
                part.unlink(missing_ok=True)
            atomic_write_json(self.meta, {"key": self.key, "settings": self.settings})
        source = self.path if self.path.is_file() else self.part
        rows = _answers(source) if source.is_file() else {}
        if source == self.part:
            rows = {name: answers for part in ranks if part.is_file() for name, answers in _answers(part).items()} | rows
        self.done = {name: answers[: self.copies] for name, answers in rows.items() if len(answers) >= self.copies}
        fresh = self._adopt() if not self.path.is_file() and self.settings.get("shard") is None else {}
        if not (self.done or fresh) and self.kept is not None and self.kept.is_file():
            model = str(self.settings.get("model", ""))  # where these weights lay for the run that asked
            fresh = {name: [replace(answer, model=model) for answer in rows] for name, rows in _answers(self.kept).items()}
        self.done |= fresh
        if source == self.part and (source.is_file() or fresh or ranks):
            # A torn last line must go before anything is appended behind it.
            atomic_write_jsonl(self.part, (answer.to_json() for answers in self.done.values() for answer in answers))
        for part in ranks:
            part.unlink(missing_ok=True)
        return self.done

    def _adopt(self) -> dict[str, list[Prediction]]:
        """Answers that shards of this file have given under the same settings to the same samples."""
        plain = json.loads(json.dumps(self.settings, default=str))  # as JSON gives it back, so that tuples equal lists
        mine = {row[0]: row for row in plain.get("samples", [])}
        per_shard = {"shard": None, "samples": None, "model": None}
        rows: dict[str, list[Prediction]] = {}
        for shard in sorted(self.path.parent.glob(f"{self.path.stem}.*of*{self.path.suffix}")):
            theirs = _meta(shard.with_suffix(".meta.json")).get("settings", {})
            if {**theirs, **per_shard} != {**plain, **per_shard}:
                continue
            same = {row[0] for row in theirs.get("samples", ()) if mine.get(row[0]) == row and row[0] not in self.done}
            for name, answers in _answers(shard).items():
                if name in same:
                    rows.setdefault(name, []).extend(answers)
        return {name: answers for name, answers in rows.items() if len(answers) == self.copies}

    def add(self, answers: Iterable[Prediction]) -> None:
        """Append finished answers; all copies of a sample come in one call."""
        fresh = list(answers)
        append_jsonl(self._own, (answer.to_json() for answer in fresh))
        for answer in fresh:
            self.done.setdefault(answer.id, []).append(answer)
            self._fresh[answer.id] = self.done[answer.id]

    def finish(self, order: Sequence[str]) -> list[Prediction]:
        """Write the whole file in the samples' order and take the part away.

        Raises:
            Timer1Error: an answer is missing.
        """
        for fresh in team.all(self._fresh):
            self.done |= fresh
        missing = [name for name in order if name not in self.done]
        if missing:
            raise Timer1Error(f"{self.path}: no answer for {missing[0]!r} and {len(missing) - 1} more")
        answers = [answer for name in order for answer in self.done[name]]
        if team.first:
            atomic_write_jsonl(self.path, (answer.to_json() for answer in answers))
            if self.kept is not None and not self.kept.is_file() and not any(answer.error for answer in answers):
                atomic_write_jsonl(self.kept, (answer.to_json() for answer in answers))
        team.wait()
        self._own.unlink(missing_ok=True)
        return answers


def _meta(path: Path) -> dict[str, Any]:
    """What a `.meta.json` holds; nothing where it is not there or torn."""
    try:
        value = read_json(path) if path.is_file() else {}
    except Timer1Error as error:
        log.warning("%s; its answers cannot be told to be of these settings", error)
        value = {}
    return value if isinstance(value, dict) else {}


def _answers(path: Path) -> dict[str, list[Prediction]]:
    """The answers in a file by sample id, without lines that cannot be read."""
    broken: list[str] = []
    rows: dict[str, list[Prediction]] = {}
    for number, row in read_numbered(path, torn_tail=True, broken=broken):
        try:
            prediction = Prediction.from_json(row, f"{path}, line {number}")
        except Timer1Error as error:
            broken.append(str(error))
            continue
        rows.setdefault(prediction.id, []).append(prediction)
    for wrong in broken:
        log.warning("%s; its sample is asked again", wrong)
    return rows


def digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:32]


def settings_of(
    loaded: LoadedModel, shared: SharedParams, asked: Sequence[Sample], shard: tuple[int, int] | None, **more: Any
) -> dict[str, Any]:
    """What the answers of a model to some samples depend on, for a `Ledger`: model, samples, the run's settings, `more`."""
    apart = ("model", "seed", "form")  # the weights say which model; who samples gives the seed in `more`
    return {
        "model": loaded.name,
        "weights": weights_digest(loaded.model),
        "rule": str(loaded.rule),
        "samples": [[s.id, s.video, s.query, s.duration, s.video_start, s.video_end, s.options] for s in asked],
        "shared": result_parameters(shared, but=apart),
        "form": forms.load(shared.form).identity(),
        **more,
        "shard": shard,
    }


def kept_for_all(
    shared: SharedParams, settings: Mapping[str, Any], asked: Sequence[Sample], resolve_video: Callable[[Sample], Path]
) -> Path | None:
    """Where a file of greedy answers is kept for all runs: by its settings and its videos' content, whatever the run's seed.

    A file is taken whole or asked whole, so that the answers do not depend on what was kept. None where a video is missing.
    """
    try:
        videos = {str(path): path for path in map(resolve_video, asked)}
        seen = {name: sha256_sample(path) if path.is_file() else content_digest(path) for name, path in videos.items()}
        held = digest({**settings, "model": None, "videos": [seen[str(resolve_video(sample))] for sample in asked]})
    except (Timer1Error, OSError):
        return None
    return resolve(shared.cache_dir) / "answers" / f"{held}.jsonl"


def weights_digest(model: Any, rows: int = 65_536) -> str:
    """A digest of a model's weights: exact bytes of small tensors, an even sample of at most `rows` numbers of large ones.

    It changes with every training step, however the model is named, and costs seconds for 7 billion parameters.
    """
    import torch

    hasher = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().reshape(-1)
        if flat.numel() > rows:
            flat = flat[:: flat.numel() // rows]
        hasher.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        hasher.update(flat.contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()[:32]


Perturbation = Literal["swap", "shuffle"]
PERTURBATIONS: tuple[Perturbation, ...] = ("swap", "shuffle")


def take_shard(samples: Sequence[Sample], shard: tuple[int, int] | None) -> list[Sample]:
    """The samples of shard (k, n). Whole videos go to one shard, so that none is decoded twice, and shards are even."""
    if shard is None:
        return list(samples)
    k, n = shard
    if not 1 <= k <= n:
        raise Timer1Error(f"shard {k}/{n}: k counts from 1 to n")
    by_video = Counter(clip_key(sample) for sample in samples)
    loads = [0] * n
    owner = {}
    for key, size in sorted(by_video.items(), key=lambda item: (-item[1], str(item[0]))):
        lightest = loads.index(min(loads))
        loads[lightest] += size
        owner[key] = lightest
    return [sample for sample in samples if owner[clip_key(sample)] == k - 1]


def shard_path(path: str | Path, shard: tuple[int, int] | None) -> Path:
    """Where shard (k, n) of a predictions file lies: `base.test.1of4.jsonl` beside `base.test.jsonl`."""
    target = Path(path)
    return target if shard is None else target.with_suffix(f".{shard[0]}of{shard[1]}{target.suffix}")


def merge_shards(path: str | Path, count: int, samples: Sequence[Sample], copies: int = 1) -> list[Prediction]:
    """Join the `count` shards of `path` into it, in the samples' order.

    Raises:
        Timer1Error: a shard is missing; a sample has no answer, or more than `copies`; an answer belongs to no sample.
    """
    found: dict[str, list[Prediction]] = {}
    for k in range(1, count + 1):
        part = shard_path(path, (k, count))
        if not part.is_file():
            raise Timer1Error(f"{part}: no such file; run shard {k}/{count} first")
        for number, row in enumerate(read_jsonl(part), 1):
            prediction = Prediction.from_json(row, f"{part}, row {number}")
            found.setdefault(prediction.id, []).append(prediction)
    wanted = [sample.id for sample in samples]
    for name in wanted:
        if len(found.get(name, ())) != copies:
            raise Timer1Error(f"{path}: sample {name!r} has {len(found.get(name, ()))} answers in its shards, not {copies}")
    stranger = next(iter(set(found) - set(wanted)), None)
    if stranger is not None:
        raise Timer1Error(f"{path}: the shards hold an answer to {stranger!r}, which is none of the samples")
    answers = [answer for name in wanted for answer in found[name]]
    atomic_write_jsonl(path, (answer.to_json() for answer in answers))
    return answers


def clip_key(sample: Sample) -> tuple[str, float | None, float | None]:
    """What has to be decoded for a sample: the file and the part of it."""
    return sample.video, sample.video_start, sample.video_end


def batches(samples: Sequence[Sample], size: int) -> list[list[Sample]]:
    """Batches of at most `size`: by length of the video, queries on one clip together, then by length of the query."""

    def order(sample: Sample) -> tuple[float, str, float, float, int, str]:
        start, end = sample.video_start or 0.0, sample.video_end or 0.0
        return (sample.duration or 0.0, sample.video, start, end, len(sample.query), sample.id)

    ranked = sorted(samples, key=order)
    return [ranked[i : i + size] for i in range(0, len(ranked), size)]


def swap_videos(samples: Sequence[Sample]) -> list[Sample]:
    """Each sample on another sample's video, the one next in length, so that the stated duration changes little.

    Every clip's questions go to one other clip; the last goes to the first. Ids and queries stay, `windows` stay those
    of the true video.

    Raises:
        Timer1Error: all samples are about one clip.
    """
    clips: dict[tuple[str, float | None, float | None], Sample] = {}
    for sample in samples:
        clips.setdefault(clip_key(sample), sample)
    order = sorted(clips.values(), key=lambda s: (s.duration or 0.0, s.video, s.video_start or 0.0))
    if len(order) < 2:
        raise Timer1Error("swapping videos needs samples on two videos at least")
    other = {clip_key(mine): theirs for mine, theirs in zip(order, order[1:] + order[:1], strict=True)}

    def swapped(sample: Sample) -> Sample:
        theirs = other[clip_key(sample)]
        return replace(
            sample, video=theirs.video, duration=theirs.duration, video_start=theirs.video_start, video_end=theirs.video_end
        )

    return [swapped(sample) for sample in samples]


def shuffle_frames(frames: Frames, name: str) -> Frames:
    """The pictures in random order under unchanged times; the order depends on `name` (the video) alone."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    order = np.random.default_rng(seed).permutation(len(frames))
    return replace(frames, pixels=frames.pixels[order])
