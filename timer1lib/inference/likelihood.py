"""Multiple choice by likelihood: the option whose letter the model finds likeliest right after the prompt."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timer1lib.clock.sampling import Sampling
from timer1lib.errors import Timer1Error
from timer1lib.inference.encoding import PromptEncoder
from timer1lib.inference.features import VideoFeatures
from timer1lib.inference.generate import ResolveVideo, inference_mode, log, open_store
from timer1lib.inference.ledger import Ledger, weights_digest
from timer1lib.inference.plan import batches, clip_key, shard_path, take_shard
from timer1lib.models.inputs import collate, sample_prompt
from timer1lib.progress import Progress
from timer1lib.schema import Prediction, Sample

if TYPE_CHECKING:
    from timer1lib.models.load import LoadedModel
    from timer1lib.params.shared import SharedParams
    from timer1lib.video.frame_store import FrameStore


def choose(
    loaded: LoadedModel,
    samples: Sequence[Sample],
    resolve_video: ResolveVideo,
    shared: SharedParams,
    out_path: str | Path,
    *,
    batch_size: int,
    prefix: str = "",
    shard: tuple[int, int] | None = None,
    store: FrameStore | None = None,
    label: str = "choices",
) -> list[Prediction]:
    """Choose an option for every multiple-choice sample; one forward pass a batch. Resumable and sharded as `predict`.

    A letter counts with and without a space before it, as tokenizers tell these apart.

    Args:
        prefix: text put into the model's mouth before the letter, such as "The answer is".

    Returns:
        Predictions with `answer`; `completion` is `B (A -1.20, B -0.45)`, the log-probabilities of the letters.

    Raises:
        Timer1Error: a sample has no options, or a letter is more than one token.
    """
    for sample in samples:
        if sample.options is None or not 2 <= len(sample.options) <= 26:
            raise Timer1Error(f"sample {sample.id!r}: choosing by likelihood needs 2 to 26 options")
    asked = take_shard(samples, shard)
    settings = {
        "method": "likelihood",
        "model": loaded.name,
        "weights": weights_digest(loaded.model),
        "rule": str(loaded.rule),
        "samples": [[s.id, s.video, s.query, s.duration, s.video_start, s.video_end, s.options] for s in asked],
        "shared": shared.model_dump(exclude={"cache_dir", "cache_gb", "workers", "device", "model", "seed"}),
        "prefix": prefix,
        "shard": shard,
    }
    ledger = Ledger(shard_path(out_path, shard), settings)
    done = ledger.open()
    order = [sample.id for sample in asked]
    left = [sample for sample in asked if sample.id not in done]
    if left:
        own = None if store is not None else open_store(shared)
        scorer = _Scorer(loaded, shared, resolve_video, store or own, prefix)
        progress = Progress(label, len(order), done=len(done))
        try:
            with inference_mode(loaded.model):
                for batch in batches(left, batch_size):
                    ledger.add(scorer.score(batch))
                    progress.update(len(batch))
        finally:
            if own is not None:
                own.close()
    return ledger.finish(order)


class _Scorer:
    def __init__(self, loaded: LoadedModel, shared: SharedParams, resolve_video: ResolveVideo, store: Any, prefix: str) -> None:
        from timer1lib.models.fast_vision import speed_up_vision

        self.loaded, self.shared, self.resolve_video, self.store, self.prefix = loaded, shared, resolve_video, store, prefix
        self.sampling = Sampling.from_shared(shared, model=loaded.name)
        speed_up_vision(loaded.model)
        self.encoder, self.features = PromptEncoder(loaded), VideoFeatures(loaded)

    def score(self, batch: Sequence[Sample]) -> list[Prediction]:
        """Predictions for the batch, in order."""
        started = time.perf_counter()
        rows: list[dict[str, Any]] = []
        ready: list[Sample] = []
        errors: dict[str, str] = {}
        for sample in batch:
            try:
                rows.append(self._row(sample))
                ready.append(sample)
            except (Timer1Error, OSError) as error:
                log.warning("%s: no answer: %s", sample.id, error)
                errors[sample.id] = str(error)
        scores = self._log_probabilities(ready, rows) if ready else []
        seconds = round((time.perf_counter() - started) / len(batch), 4)
        found = dict(zip((sample.id for sample in ready), scores, strict=True))
        answers = []
        for sample in batch:
            prediction = Prediction(sample.id, parser="likelihood", model=self.loaded.name, seconds=seconds)
            if sample.id in found:
                values = found[sample.id]
                prediction.answer = max(range(len(values)), key=values.__getitem__)
                said = ", ".join(f"{_letter(i)} {value:.3f}" for i, value in enumerate(values))
                prediction.completion = f"{_letter(prediction.answer)} ({said})"
            else:
                prediction.error = errors[sample.id]
            answers.append(prediction)
        return answers

    def _row(self, sample: Sample) -> dict[str, Any]:
        import torch

        clip = (sample.video_start, sample.video_end)
        frames = self.store.get(self.resolve_video(sample), self.sampling, clip, self.loaded.geometry.temporal_patch)
        row = dict(self.encoder.encode(frames, clip_key(sample), sample_prompt(sample, self.shared, duration=frames.duration_s)))
        if self.prefix:
            ids = row["input_ids"]
            said = self.loaded.tokenizer(self.prefix, add_special_tokens=False, return_tensors="pt")["input_ids"].to(ids.dtype)
            row["input_ids"] = torch.cat([ids, said], dim=1)
            for name, fill in (("attention_mask", 1), ("mm_token_type_ids", 0)):
                if name in row:
                    row[name] = torch.cat([row[name], torch.full_like(said, fill).to(row[name].dtype)], dim=1)
        return row

    def _log_probabilities(self, batch: Sequence[Sample], rows: Sequence[dict[str, Any]]) -> list[list[float]]:
        """Log-probability of each option's letter as the next token."""
        import torch

        device = next(self.loaded.model.parameters()).device
        inputs = {name: value.to(device) for name, value in collate(self.loaded, rows, side="left").items()}
        inputs = self.features.replace_pixels(inputs, rows, [clip_key(sample) for sample in batch])
        logits = self.loaded.model(**inputs, logits_to_keep=1).logits[:, -1].float()
        log_probabilities = torch.log_softmax(logits, dim=-1).cpu()
        result = []
        for row, sample in zip(log_probabilities, batch, strict=True):
            tokens = [letter_tokens(self.loaded.tokenizer, _letter(i)) for i in range(len(sample.options or ()))]
            result.append([float(torch.logsumexp(row[ids], dim=0)) for ids in tokens])
        return result


def letter_tokens(tokenizer: Any, letter: str) -> list[int]:
    """Token ids of a letter with and without a space before it, those that are one token.

    Raises:
        Timer1Error: neither is.
    """
    forms = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (letter, f" {letter}")]
    single = sorted({ids[0] for ids in forms if len(ids) == 1})
    if not single:
        raise Timer1Error(f"the tokenizer has no single token for the letter {letter!r}; ask for generated letters instead")
    return single


def _letter(index: int) -> str:
    return chr(ord("A") + index)
