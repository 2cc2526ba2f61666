"""Multiple choice by likelihood: the option whose letter the model finds likeliest right after the prompt."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timer1lib.errors import Timer1Error
from timer1lib.forms.reading import letter
from timer1lib.inference.encoding import Asker, ResolveVideo, Together, answer_all
from timer1lib.inference.ledger import Ledger, clip_key, kept_for_all, settings_of, shard_path, take_shard
from timer1lib.models.inputs import put_behind, sample_prompt
from timer1lib.schema import Prediction, Sample

if TYPE_CHECKING:
    from timer1lib.clock.frames import Frames
    from timer1lib.models.load import LoadedModel
    from timer1lib.params.sections import SharedParams
    from timer1lib.video.store import FrameStore


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
    keep: bool = False,
) -> list[Prediction]:
    """Choose an option for every multiple-choice sample; one forward pass a batch. Resumable and sharded as `predict`.

    A letter counts with and without a space before it, as tokenizers tell these apart.

    Args:
        prefix: text put into the model's mouth before the letter, such as "The answer is".
        keep: take answers from those that all runs share, or keep them there.

    Returns:
        Predictions with `answer`; `completion` is `B (A -1.20, B -0.45)`, the log-probabilities of the letters.

    Raises:
        Timer1Error: a sample has no options, or a letter is more than one token.
    """
    for sample in samples:
        if sample.options is None or not 2 <= len(sample.options) <= 26:
            raise Timer1Error(f"sample {sample.id!r}: choosing by likelihood needs 2 to 26 options")
    asked = take_shard(samples, shard)
    settings = settings_of(loaded, shared, asked, shard, method="likelihood", prefix=prefix)
    kept = kept_for_all(shared, settings, asked, resolve_video) if keep and shard is None else None
    ledger = Ledger(shard_path(out_path, shard), settings, kept=kept)
    return answer_all(asked, ledger, _Scorer(loaded, shared, resolve_video, prefix), batch_size, label, store)


class _Scorer(Asker):
    """Asks for the likelihood of the options' letters."""

    def __init__(self, loaded: LoadedModel, shared: SharedParams, resolve_video: ResolveVideo, prefix: str) -> None:
        super().__init__(loaded, shared, resolve_video)
        self.prefix = prefix

    def answer(self, ready: Sequence[Sample], frames: dict[Hashable, Frames], number: int) -> list[list[Prediction]]:
        rows = [self._row(sample, frames[clip_key(sample)]) for sample in ready]
        answers = []
        for sample, values in zip(ready, self._log_probabilities(ready, rows), strict=True):
            best = max(range(len(values)), key=values.__getitem__)
            said = ", ".join(f"{letter(i)} {value:.3f}" for i, value in enumerate(values))
            prediction = Prediction(sample.id, parser="likelihood", model=self.loaded.name)
            prediction.answer, prediction.completion = best, f"{letter(best)} ({said})"
            answers.append([prediction])
        return answers

    def failed(self, sample: Sample, error: str) -> list[Prediction]:
        return [Prediction(sample.id, parser="likelihood", model=self.loaded.name, error=error)]

    def _row(self, sample: Sample, frames: Frames) -> dict[str, Any]:

        prompt = sample_prompt(sample, self.shared, duration=frames.duration_s)
        row = self.encoder.encode(self.loaded, lambda: frames, clip_key(sample), prompt)
        if self.prefix:
            row = put_behind(row, self.loaded.tokenizer(self.prefix, add_special_tokens=False, return_tensors="pt")["input_ids"])
        return row

    def _log_probabilities(self, batch: Sequence[Sample], rows: Sequence[dict[str, Any]]) -> list[list[float]]:
        """Log-probability of each option's letter as the next token."""
        import torch

        from timer1lib.models import rollouts
        from timer1lib.models.encoded import base_model

        if self.shares_prefix:
            base, pad = base_model(self.loaded.model), self.loaded.tokenizer.pad_token_id

            def ask(part: Together) -> torch.Tensor:
                return rollouts.read(base, part.prompts, part.most, pad, texts=part.texts).logits

            logits = torch.stack(self.ask_together(batch, rows, ask)).float()
        else:
            logits = self.loaded.model(**self.inputs(batch, rows), logits_to_keep=1).logits[:, -1].float()
        log_probabilities = torch.log_softmax(logits, dim=-1).cpu()
        result = []
        for row, sample in zip(log_probabilities, batch, strict=True):
            tokens = [letter_tokens(self.loaded.tokenizer, letter(i)) for i in range(len(sample.options or ()))]
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
