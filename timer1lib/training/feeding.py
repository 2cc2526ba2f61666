"""What training is fed with: samples encoded before the step that needs them, in the order in which it will ask."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import torch

from timer1lib.errors import Timer1Error
from timer1lib.models.config import sampling_for
from timer1lib.models.inputs import sample_prompt, with_completion
from timer1lib.models.load import LoadedModel
from timer1lib.models.prompts import PromptEncoder
from timer1lib.params.sections import SharedParams
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Sample
from timer1lib.video.store import AHEAD, open_store

Row = dict[str, Any]
ReadAhead = Callable[[Sequence[str]], None]
"""Told the ids of the samples that will be asked for, in the order of need."""
Share = tuple[int, int]
"""Which of how many processes: (0, 1) is the only one."""


def order_of_groups(ids: Sequence[str], per_step: int, steps: int, done: int = 0, share: Share = (0, 1)) -> list[str]:
    """The samples that GRPO asks for in steps `done` to `steps`, in this order: `ids` over and over, whole steps alone.

    Args:
        ids: in the order of training; those of a last step that is not full are left out, as trl does.
        per_step: groups a step, over all processes; each process takes its part of every step.
    """
    rank, ranks = share
    a_pass = max(1, len(ids) // per_step)
    own = range(rank * per_step // ranks, (rank + 1) * per_step // ranks)
    return [ids[step % a_pass * per_step + i] for step in range(done, steps) for i in own if i < len(ids)]


def order_of_rows(ids: Sequence[str], per_step: int, seed: int, steps: int, done: int = 0, share: Share = (0, 1)) -> list[str]:
    """The rows that SFT asks for in steps `done` to `steps`: an epoch's order follows from seed and epoch, as in accelerate.

    Args:
        per_step: rows of a step over all processes, fewer in an epoch's last; each process takes neighbouring ones.
    """
    rank, ranks = share
    order: list[str] = []
    step = epoch = 0
    while step < steps and ids:
        drawn = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed + epoch)).tolist()
        for first in range(0, len(drawn), per_step):
            rows = drawn[first : first + per_step]
            part = -(-len(rows) // ranks)
            if done <= step < steps:
                order += [ids[i] for i in rows[rank * part : (rank + 1) * part]]
            step += 1
        epoch += 1
    return order


def decoding_threads(shared: SharedParams) -> int:
    """Threads that encode the next step's samples; most of their time they wait for a worker or for the disk."""
    return max(1, min(shared.workers, 8))


class EncodeAhead:
    """Encodes rows (by their `sample_id`) in threads before the step that needs them; a failure is kept for that step.

    GRPO's data loader asks for the next batch before the current one is trained on, and `announce` is its collate
    function: so the next step's videos are decoded (by `encode`, which may itself use worker processes)
    while the model works.
    """

    def __init__(self, encode: Callable[[Row], Any], threads: int) -> None:
        self._encode = encode
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="encode") if threads else None
        self._pending: dict[str, Future[Any]] = {}
        self._announced: list[str] = []

    def announce(self, rows: list[Row]) -> list[Row]:
        """Start on `rows` and hand them on unchanged."""
        names = [str(row.get("sample_id")) for row in rows]
        if self._pool is not None and names != self._announced:  # a batch comes again for each of its updates
            self._announced = names
            for name, row in zip(names, rows, strict=True):
                if name not in self._pending:
                    self._pending[name] = self._pool.submit(self._encode, row)
        return rows

    def get(self, row: Row) -> Any:
        """The encoded row; raises what `encode` raised."""
        future = self._pending.pop(str(row.get("sample_id")), None)
        return self._encode(row) if future is None else future.result()


class SampleEncoder:
    """Encodes samples of a run for training. Close it to end the decoding workers."""

    def __init__(self, run: RunFolder, shared: SharedParams, *, grounded: bool = False) -> None:
        self._file, self._shared, self._grounded = run.videos().file, shared, grounded
        self._sampling, self._store = sampling_for(shared), open_store(shared)
        self._lock = threading.Lock()
        self._prompts = PromptEncoder()
        self._shown = ""  # how the model's processor shows frames: of the one model that a run trains

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._store.close()
        sys.stdout.write(f"frames: {self._store.costs}\n")

    def prefetch(self, samples: Iterable[Sample], ahead: int = AHEAD) -> None:
        """Let workers decode these samples' videos ahead of need, in this order, instead of what they were told before."""
        requests: list[Any] = []
        for sample in samples:
            with contextlib.suppress(Timer1Error):  # said where the sample is encoded
                requests.append((self._file(sample), self._sampling, (sample.video_start, sample.video_end)))
        self._store.prefetch(requests, ahead=ahead)

    def encode(self, loaded: LoadedModel, sample: Sample, completion: str | None = None) -> dict[str, Any]:
        """The model's inputs for a sample, with labels where there is a completion; a Timer1Error names a broken video.

        Several threads may call it: they decode side by side, and go through the processor, which is not made for it, in turn.
        """
        what = self._file(sample), self._sampling, (sample.video_start, sample.video_end)
        frames = functools.cache(lambda: self._store.get(*what))
        duration = frames().duration_s if sample.duration is None else None
        prompt = sample_prompt(sample, self._shared, grounded=self._grounded and sample.is_question, duration=duration)
        key = self._store.key(*what)
        if self._prompts.holds(key, prompt):
            self._store.pass_over(*what)
        else:
            frames()
        with self._lock:
            encoded = self._prompts.encode(loaded, frames, key, prompt)
            if completion is not None:
                return with_completion(loaded, encoded, completion)
            self._shown = self._shown or f"{loaded.geometry} {loaded.processor.video_processor.to_json_string()}"
        return encoded | {"video_key": f"{key} {self._shown}"}  # cheaper than to tell videos apart by their pixels
