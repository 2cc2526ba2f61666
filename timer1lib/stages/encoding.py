"""From a sample to what a model reads, for every stage that trains: frames from the store, one prompt, one clock."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from timer1lib.clock.sampling import Sampling
from timer1lib.inference.generate import open_store
from timer1lib.models.inputs import encode_prompt, sample_prompt
from timer1lib.params.shared import SharedParams
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Sample

if TYPE_CHECKING:
    from timer1lib.models.load import LoadedModel


class SampleEncoder:
    """Encodes samples of a run for training. Close it to end the decoding workers."""

    def __init__(self, run: RunFolder, shared: SharedParams, *, grounded: bool = False) -> None:
        self._run, self._shared, self._grounded = run, shared, grounded
        self._sampling = Sampling.from_shared(shared)
        self._store = open_store(shared)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._store.close()

    def prefetch(self, samples: Mapping[str, Sample]) -> None:
        """Let workers decode these samples' videos ahead of need."""
        requests = dict.fromkeys((self._run.video(s), self._sampling, (s.video_start, s.video_end)) for s in samples.values())
        self._store.prefetch(requests)

    def encode(self, loaded: LoadedModel, sample: Sample, completion: str | None = None) -> dict[str, Any]:
        """The model's inputs for a sample, with labels where there is a completion to learn.

        Raises:
            Timer1Error: the video is missing or broken; names the file.
        """
        frames = self._store.get(self._run.video(sample), self._sampling, (sample.video_start, sample.video_end))
        prompt = sample_prompt(sample, self._shared, grounded=self._grounded and sample.is_question, duration=frames.duration_s)
        return encode_prompt(loaded, frames, prompt, completion)
