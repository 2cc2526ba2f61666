"""A model's answers to many samples: batched, resumable to the sample, with the video's work done once a video."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from timer1lib import forms
from timer1lib.errors import Timer1Error
from timer1lib.forms.reading import parse_letter
from timer1lib.inference.encoding import Asker, ResolveVideo, Together, answer_all
from timer1lib.inference.ledger import (
    PERTURBATIONS,
    Ledger,
    Perturbation,
    clip_key,
    kept_for_all,
    settings_of,
    shard_path,
    shuffle_frames,
    swap_videos,
    take_shard,
)
from timer1lib.models.decoding import decoding, described
from timer1lib.models.inputs import banned_token_ids, sample_prompt
from timer1lib.schema import Prediction, Sample

if TYPE_CHECKING:
    from torch import Tensor

    from timer1lib.clock.frames import Frames
    from timer1lib.models.load import LoadedModel
    from timer1lib.params.sections import SharedParams
    from timer1lib.video.store import FrameStore


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
    repetition_penalty: float = 1.0,
    store: FrameStore | None = None,
    perturb: Perturbation | None = None,
    grounded: bool = False,
    seed: int | None = None,
    label: str = "answers",
    keep: bool = False,
) -> list[Prediction]:
    """Ask the model every sample and keep its answers in `out_path` (JSONL, in the samples' order).

    A killed call goes on with the samples that are not answered yet when called again with the same model, samples and
    settings; where any of them changed it starts anew. A video that cannot be read gives its samples a prediction with
    `error`, and the rest goes on.

    Args:
        out_path: with `shard` (k, n) the answers go to `shard_path(out_path, shard)`; `merge_shards` joins them.
        temperature: 0 answers greedily.
        num_samples: answers a sample, consecutive rows with the sample's id; more than 1 needs a temperature.
        repetition_penalty: on tokens that prompt or answer hold already (arXiv 1909.05858, section 4.1); 1 is none.
        store: decoded frames; None makes one from `shared`.
        perturb: `swap` asks about another sample's video, `shuffle` about the video with its frames in random order.
        grounded: ask multiple-choice samples for the time span as well as the letter, answered in TVG-R1's form.
        seed: of sampling; None takes `shared.seed`.
        keep: take greedy answers from those that all runs share, or keep them there (`kept_for_all`).

    Raises:
        Timer1Error: a setting is out of range, or two samples share an id.
    """
    _check(samples, max_new_tokens, batch_size, temperature, num_samples, perturb)
    if repetition_penalty <= 0:
        raise Timer1Error(f"repetition_penalty {repetition_penalty}: must be above 0; 1 is none")
    asked = take_shard(swap_videos(samples) if perturb == "swap" else samples, shard)
    seed = shared.seed if seed is None else seed
    options = _Options(max_new_tokens, temperature, num_samples, repetition_penalty, perturb, grounded, seed)
    asker = _Asker(loaded, shared, resolve_video, options)
    told = {**asdict(options), "seed": options.seed if temperature else None, "decoding": described(asker.decoding)}
    settings = settings_of(loaded, shared, asked, shard, **told)
    kept = kept_for_all(shared, settings, asked, resolve_video) if keep and not temperature and shard is None else None
    ledger = Ledger(shard_path(out_path, shard), settings, num_samples, kept)
    return answer_all(asked, ledger, asker, batch_size, label, store, whole=temperature > 0)


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
    repetition_penalty: float
    perturb: Perturbation | None
    grounded: bool
    seed: int


class _Asker(Asker):
    """Asks for text."""

    def __init__(self, loaded: LoadedModel, shared: SharedParams, resolve_video: ResolveVideo, options: _Options) -> None:
        super().__init__(loaded, shared, resolve_video)
        self.options = options
        self.form = forms.load(shared.form)
        same = {name: getattr(options, name) for name in ("max_new_tokens", "temperature", "num_samples", "repetition_penalty")}
        self.decoding = decoding(loaded.model, loaded.tokenizer, banned=banned_token_ids(loaded), **same)

    def answer(self, ready: Sequence[Sample], frames: dict[Hashable, Frames], number: int) -> list[list[Prediction]]:
        texts = iter(self._generate(ready, frames, self.options.seed + 1_000_003 * number))
        return [[self._prediction(sample, next(texts), None) for _ in range(self.options.num_samples)] for sample in ready]

    def failed(self, sample: Sample, error: str) -> list[Prediction]:
        return [self._prediction(sample, None, error) for _ in range(self.options.num_samples)]

    def frames(self, sample: Sample) -> Frames:
        frames = super().frames(sample)
        return shuffle_frames(frames, sample.video) if self.options.perturb == "shuffle" else frames

    def _prediction(self, sample: Sample, text: str | None, error: str | None) -> Prediction:
        form = self.form.of_sample(sample, grounded=self.options.grounded)
        prediction = Prediction(sample.id, parser=form.reading.way, model=self.loaded.name, error=error)
        if text is not None:
            prediction.completion = text
            prediction.start, prediction.end = form.span(text) or (None, None)
            if sample.options is not None:
                prediction.answer = parse_letter(text, sample.options)
        return prediction

    def _generate(self, batch: Sequence[Sample], frames: Mapping[Hashable, Frames], seed: int) -> list[str]:
        import torch

        from timer1lib.models import rollouts
        from timer1lib.models.encoded import base_model

        rows = []
        for sample in batch:
            key = clip_key(sample)
            text = sample_prompt(sample, self.shared, grounded=self.options.grounded, duration=frames[key].duration_s)
            rows.append(self.encoder.encode(self.loaded, partial(frames.__getitem__, key), key, text))
        tokenizer, device = self.loaded.tokenizer, self.loaded.device
        if self.shares_prefix:
            base, pad, copies = base_model(self.loaded.model), tokenizer.pad_token_id, self.options.num_samples
            seeds = [rollouts.seed_from(self.options.seed, sample.id, copy) for sample in batch for copy in range(copies)]

            def ask(part: Together) -> Tensor:
                drawn = [[seeds[place] for place in places] for places in part.which]
                return rollouts.generate(base, part.prompts, part.most, self.decoding, pad, drawn, part.texts)

            return list(tokenizer.batch_decode(self.ask_together(batch, rows, ask, copies), skip_special_tokens=True))
        inputs = self.inputs(batch, rows)
        with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            tokens = self.loaded.model.generate(**inputs, **self.decoding)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        texts: list[str] = tokenizer.batch_decode(new, skip_special_tokens=True)
        return texts
