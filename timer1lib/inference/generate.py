"""A model's answers to many samples: batched, resumable to the sample, with the video's work done once a video."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timer1lib.clock.sampling import Sampling
from timer1lib.errors import Timer1Error
from timer1lib.evaluation.questions import parse_letter
from timer1lib.files import resolve
from timer1lib.inference.encoding import PromptEncoder
from timer1lib.inference.features import VideoFeatures
from timer1lib.inference.ledger import Ledger, weights_digest
from timer1lib.inference.perturb import PERTURBATIONS, Perturbation, shuffle_frames, swap_videos
from timer1lib.inference.plan import batches, clip_key, shard_path, take_shard
from timer1lib.models.inputs import banned_token_ids, collate, sample_prompt
from timer1lib.parsing import Policy, parse
from timer1lib.progress import Progress
from timer1lib.schema import Prediction, Sample

if TYPE_CHECKING:
    from timer1lib.models.load import LoadedModel
    from timer1lib.params.shared import SharedParams
    from timer1lib.video.frame_store import FrameStore
    from timer1lib.video.frames import Frames

log = logging.getLogger(__name__)

ResolveVideo = Callable[[Sample], Path]


def predict(
    loaded: LoadedModel,
    samples: Sequence[Sample],
    resolve_video: ResolveVideo,
    shared: SharedParams,
    out_path: str | Path,
    *,
    max_new_tokens: int,
    batch_size: int,
    shard: tuple[int, int] | None = None,
    temperature: float = 0.0,
    num_samples: int = 1,
    store: FrameStore | None = None,
    perturb: Perturbation | None = None,
    grounded: bool = False,
    seed: int | None = None,
    label: str = "answers",
) -> list[Prediction]:
    """Ask the model every sample and keep its answers in `out_path` (JSONL, in the samples' order).

    A killed call goes on with the samples that are not answered yet when called again with the same model, samples and
    settings; where any of them changed it starts anew. A video that cannot be read gives its samples a prediction with
    `error`, and the rest goes on.

    Args:
        resolve_video: the file of a sample's video.
        out_path: with `shard` (k, n) the answers go to `shard_path(out_path, shard)`; `merge_shards` joins them.
        temperature: 0 answers greedily.
        num_samples: answers a sample, consecutive rows with the sample's id; more than 1 needs a temperature.
        store: decoded frames; None makes one from `shared`.
        perturb: `swap` asks about another sample's video, `shuffle` about the video with its frames in random order.
        grounded: ask multiple-choice samples for the time span as well as the letter, in TVG-R1's form.
        seed: of sampling; None takes `shared.seed`.

    Returns:
        `num_samples` predictions a sample (of the shard), in the samples' order.

    Raises:
        Timer1Error: a setting is out of range, or two samples share an id.
    """
    _check(samples, max_new_tokens, batch_size, temperature, num_samples, perturb)
    asked = swap_videos(samples) if perturb == "swap" else list(samples)
    asked = take_shard(asked, shard)
    seed = shared.seed if seed is None else seed
    settings = {
        "model": loaded.name,
        "weights": weights_digest(loaded.model),
        "rule": str(loaded.rule),
        "samples": [[s.id, s.video, s.query, s.duration, s.video_start, s.video_end, s.options] for s in asked],
        "shared": shared.model_dump(exclude={"cache_dir", "cache_gb", "workers", "device", "model", "seed"}),
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "num_samples": num_samples,
        "seed": seed if temperature else None,
        "perturb": perturb,
        "grounded": grounded,
        "shard": shard,
    }
    ledger = Ledger(shard_path(out_path, shard), settings, num_samples)
    done = ledger.open()
    order = [sample.id for sample in asked]
    work = [(n, batch) for n, batch in enumerate(batches(asked, batch_size)) if any(s.id not in done for s in batch)]
    if work:
        own = None if store is not None else open_store(shared)
        options = _Options(max_new_tokens, temperature, num_samples, perturb, grounded)
        asker = _Asker(loaded, shared, resolve_video, store or own, options)
        progress = Progress(label, len(order), done=len(done))
        try:
            asker.prefetch(sample for _, batch in work for sample in batch if sample.id not in done)
            with inference_mode(loaded.model):
                for number, batch in work:
                    left = [sample for sample in batch if sample.id not in done]
                    # Sampling draws for a batch as a whole: one that was cut off is drawn again from its own seed.
                    answers = asker.ask(batch if temperature else left, seed + 1_000_003 * number)
                    fresh = {sample.id for sample in left}
                    ledger.add([answer for answer in answers if answer.id in fresh])
                    progress.update(len(left))
        finally:
            if own is not None:
                own.close()
    return ledger.finish(order)


def open_store(shared: SharedParams) -> FrameStore:
    """The frame cache that a params file asks for; close it after use."""
    from timer1lib.video.frame_store import FrameStore

    return FrameStore(resolve(shared.cache_dir), shared.cache_gb, shared.workers)


def _check(
    samples: Sequence[Sample], max_new_tokens: int, batch_size: int, temperature: float, num_samples: int, perturb: str | None
) -> None:
    if max_new_tokens < 1 or batch_size < 1 or num_samples < 1 or temperature < 0:
        raise Timer1Error("max_new_tokens, batch_size and num_samples must be at least 1, and temperature at least 0")
    if num_samples > 1 and not temperature:
        raise Timer1Error("num_samples above 1 needs a temperature above 0: greedy answers are all the same")
    if perturb is not None and perturb not in PERTURBATIONS:
        raise Timer1Error(f"perturb {perturb!r}: one of {', '.join(PERTURBATIONS)}")
    seen: set[str] = set()
    for sample in samples:
        if sample.id in seen:
            raise Timer1Error(f"two samples share the id {sample.id!r}; answers could not be told apart")
        seen.add(sample.id)


@dataclass(frozen=True, slots=True)
class _Options:
    max_new_tokens: int
    temperature: float
    num_samples: int
    perturb: Perturbation | None
    grounded: bool


class _Asker:
    """Answers one batch: reads each video once, encodes it once, asks all its questions together."""

    def __init__(
        self,
        loaded: LoadedModel,
        shared: SharedParams,
        resolve_video: ResolveVideo,
        store: Any,
        options: _Options,
    ) -> None:
        from timer1lib.models.fast_vision import speed_up_vision

        self.loaded, self.shared, self.resolve_video, self.store = loaded, shared, resolve_video, store
        self.options = options
        self.sampling = Sampling.from_shared(shared, model=loaded.name)
        self.banned = sorted(banned_token_ids(loaded))
        self.decoding: dict[str, Any] = {"max_new_tokens": options.max_new_tokens, "do_sample": options.temperature > 0}
        if options.temperature > 0:
            self.decoding |= {"temperature": options.temperature, "top_p": 1.0, "top_k": 0}
            self.decoding |= {"num_return_sequences": options.num_samples}
        speed_up_vision(loaded.model)
        self.encoder = PromptEncoder(loaded)
        self.features = VideoFeatures(loaded)

    def prefetch(self, samples: Iterable[Sample]) -> None:
        """Let the store decode ahead, in the order of need; files that are missing say so when they are asked for."""
        requests: dict[Any, tuple[Path, Sampling, tuple[float | None, float | None]]] = {}
        for sample in samples:
            if clip_key(sample) not in requests:
                try:
                    path = self.resolve_video(sample)
                except Timer1Error:
                    continue
                requests[clip_key(sample)] = (path, self.sampling, (sample.video_start, sample.video_end))
        self.store.prefetch(requests.values(), self.loaded.geometry.temporal_patch)

    def ask(self, batch: Sequence[Sample], seed: int) -> list[Prediction]:
        """`num_samples` predictions for each sample of the batch, in order; each has its share of the batch's time."""
        started = time.perf_counter()
        frames: dict[Any, Frames] = {}
        errors: dict[Any, str] = {}
        for sample in batch:
            key = clip_key(sample)
            if key not in frames and key not in errors:
                try:
                    frames[key] = self._frames(sample)
                except (Timer1Error, OSError) as error:
                    log.warning("%s: no answer: %s", sample.id, error)
                    errors[key] = str(error)
        ready = [sample for sample in batch if clip_key(sample) in frames]
        texts = self._generate(ready, frames, seed) if ready else []
        seconds = round((time.perf_counter() - started) / len(batch), 4)
        said = iter(texts)
        answers = []
        for sample in batch:
            for _ in range(self.options.num_samples):
                failure = errors.get(clip_key(sample))
                answers.append(self._prediction(sample, None if failure else next(said), failure, seconds))
        return answers

    def _prediction(self, sample: Sample, text: str | None, error: str | None, seconds: float) -> Prediction:
        # Grounded questions are asked in TVG-R1's form, whatever form plain queries have.
        policy: Policy = "tvg_r1" if sample.options is not None and self.options.grounded else self.shared.parser
        prediction = Prediction(sample.id, parser=policy, model=self.loaded.name, seconds=seconds, error=error)
        if text is not None:
            prediction.completion = text
            parsed = parse(text, policy)
            prediction.start, prediction.end = parsed.start, parsed.end
            if sample.options is not None:
                prediction.answer = parse_letter(text, sample.options)
        return prediction

    def _frames(self, sample: Sample) -> Frames:
        clip = (sample.video_start, sample.video_end)
        frames = self.store.get(self.resolve_video(sample), self.sampling, clip, self.loaded.geometry.temporal_patch)
        return shuffle_frames(frames, sample.video) if self.options.perturb == "shuffle" else frames

    def _generate(self, batch: Sequence[Sample], frames: Mapping[Any, Frames], seed: int) -> list[str]:
        import torch

        rows = []
        for sample in batch:
            seen = frames[clip_key(sample)]
            text = sample_prompt(sample, self.shared, grounded=self.options.grounded, duration=seen.duration_s)
            rows.append(self.encoder.encode(seen, clip_key(sample), text))
        inputs = collate(self.loaded, rows, side="left")
        inputs = {name: value.to(self.loaded.device) for name, value in inputs.items()}
        inputs = self.features.replace_pixels(inputs, rows, [clip_key(sample) for sample in batch])
        tokenizer = self.loaded.tokenizer
        with torch.random.fork_rng(devices=_cuda(self.loaded.model)):
            torch.manual_seed(seed)
            tokens = self.loaded.model.generate(
                **inputs, **self.decoding, suppress_tokens=self.banned or None, pad_token_id=tokenizer.pad_token_id
            )
        new = tokens[:, inputs["input_ids"].shape[1] :]
        texts: list[str] = tokenizer.batch_decode(new, skip_special_tokens=True)
        return texts


def _cuda(model: Any) -> list[int]:
    device = next(model.parameters()).device
    return [device.index or 0] if device.type == "cuda" else []


@contextmanager
def inference_mode(model: Any) -> Iterator[None]:
    """Evaluation mode without gradients; the model's mode is given back afterwards."""
    import torch

    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
