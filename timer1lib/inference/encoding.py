"""Several questions about one video: it is read once, goes through processor and models once, and each text is put behind.

`Asker` is what asking for text (`generate`) and choosing an option (`likelihood`) have in common, `answer_all` the loop
around it.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timer1lib.errors import Timer1Error
from timer1lib.inference.ledger import batches, clip_key
from timer1lib.models.config import sampling_for
from timer1lib.models.inputs import collate
from timer1lib.models.prompts import PromptEncoder
from timer1lib.progress import Progress
from timer1lib.schema import Prediction, Sample
from timer1lib.video.store import FrameStore, open_store
from timer1lib.workers.team import team

if TYPE_CHECKING:
    from torch import Tensor

    from timer1lib.clock.frames import Frames
    from timer1lib.inference.ledger import Ledger
    from timer1lib.models.encoded import EncodedPrompt
    from timer1lib.models.load import LoadedModel
    from timer1lib.params.sections import SharedParams

log = logging.getLogger(__name__)

ResolveVideo = Callable[[Sample], Path]
"""The file of a sample's video."""


@dataclass
class Together:
    """Questions by what they share: prompts up to the end of their video, each with the texts that stand behind it."""

    prompts: list[EncodedPrompt]
    texts: list[list[Tensor]]
    which: list[list[int]]
    """Of each text, its answer's place in the batch."""

    @property
    def most(self) -> int:
        """Texts behind a prompt at most."""
        return max(map(len, self.texts))

    def parts(self) -> list[Together]:
        """Prompts with about as many texts each, since all of a forward are given the same room: at most half stays empty."""
        if len(self.prompts) * self.most <= 2 * sum(map(len, self.texts)):
            return [self]
        alike: dict[int, Together] = {}
        for prompt, texts, which in zip(self.prompts, self.texts, self.which, strict=True):
            part = alike.setdefault(len(texts).bit_length(), Together([], [], []))
            part.prompts.append(prompt)
            part.texts.append(texts)
            part.which.append(which)
        return list(alike.values())


class Asker:
    """Answers batches of samples; a subclass says what is asked and what becomes of the model's answer."""

    store: FrameStore
    """Given by `answer_all`."""

    def __init__(self, loaded: LoadedModel, shared: SharedParams, resolve_video: ResolveVideo) -> None:
        from timer1lib.models.fast_vision import speed_up_vision
        from timer1lib.models.features import VideoFeatures

        self.loaded, self.shared, self.resolve_video = loaded, shared, resolve_video
        self.sampling = sampling_for(shared, loaded.name)
        speed_up_vision(loaded.model)
        self.encoder, self.features = PromptEncoder(), VideoFeatures(loaded)
        # Who names eager attention wants to see that one at work.
        self.shares_prefix = shared.asking == "shared_prefix" and shared.attention != "eager" and self._installed()

    def answer(self, ready: Sequence[Sample], frames: dict[Hashable, Frames], number: int) -> list[list[Prediction]]:
        """The predictions of each sample whose video could be read; `frames` are by `clip_key`, `number` is the batch's."""
        raise NotImplementedError

    def failed(self, sample: Sample, error: str) -> list[Prediction]:
        """The predictions of a sample whose video could not be read."""
        raise NotImplementedError

    def prefetch(self, samples: Iterable[Sample]) -> None:
        """Let the store decode ahead, in the order of need; files that are missing say so when they are asked for."""
        requests: dict[Hashable, Any] = {}
        for sample in samples:
            if clip_key(sample) not in requests:
                try:
                    path = self.resolve_video(sample)
                except Timer1Error:
                    continue
                requests[clip_key(sample)] = (path, self.sampling, (sample.video_start, sample.video_end))
        self.store.prefetch(requests.values(), self.loaded.geometry.temporal_patch)

    def frames(self, sample: Sample) -> Frames:
        """The frames of a sample's clip; Timer1Error names a file that cannot be read."""
        clip = (sample.video_start, sample.video_end)
        return self.store.get(self.resolve_video(sample), self.sampling, clip, self.loaded.geometry.temporal_patch)

    def _installed(self) -> bool:
        from timer1lib.models import shared_attention
        from timer1lib.models.encoded import base_model

        try:
            shared_attention.install(base_model(self.loaded.model))
        except ValueError as error:
            log.warning("each question is asked by itself: %s", error)
            return False
        return True

    def ask_together(
        self, batch: Sequence[Sample], rows: Sequence[dict[str, Any]], ask: Callable[[Together], Tensor], copies: int = 1
    ) -> list[Tensor]:
        """What `ask` gives for each row, in order; it answers by prompt and text (B, G, ...). `copies` as in `_together`."""
        answers: dict[int, Tensor] = {}
        for part in self._together(batch, rows, copies):
            given = ask(part)
            for prompt, places in enumerate(part.which):
                answers |= {place: given[prompt, i] for i, place in enumerate(places)}
        return [answers[place] for place in sorted(answers)]

    def _together(self, batch: Sequence[Sample], rows: Sequence[dict[str, Any]], copies: int) -> list[Together]:
        """Encoded rows by what they share: rows of one clip with the same tokens up to the end of its video.

        Args:
            copies: answers a row, one after the other; each has a text of its own.
        """
        from timer1lib.models.encoded import encode

        end = self.loaded.tokenizer.convert_tokens_to_ids(self.loaded.family.vision_end)
        laid, found = Together([], [], []), dict[Hashable, int]()
        for place, (sample, row) in enumerate(zip(batch, rows, strict=True)):
            ids = row["input_ids"][0]
            cut = min(int((ids == end).nonzero().max()) + 1, len(ids) - 1)
            key = (clip_key(sample), ids[:cut].numpy().tobytes())
            if key not in found:
                found[key] = len(laid.prompts)
                whole = encode(self.loaded.model, row | {"pixel_values_videos": None}, sample.id)
                laid.prompts.append(whole.until(cut, self.features.of(row, clip_key(sample))))
                laid.texts.append([])
                laid.which.append([])
            laid.texts[found[key]] += [ids[cut:].to(self.loaded.device)] * copies
            laid.which[found[key]] += range(place * copies, (place + 1) * copies)
        self.features.forget(len(laid.prompts))
        return laid.parts()

    def inputs(self, batch: Sequence[Sample], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Encoded rows as one left-padded batch on the model's device, with features in the place of pixels."""
        joined = {name: value.to(self.loaded.device) for name, value in collate(self.loaded, rows, side="left").items()}
        return self.features.replace_pixels(joined, rows, [clip_key(sample) for sample in batch])

    def ask(self, batch: Sequence[Sample], number: int) -> list[Prediction]:
        """Predictions for each sample of batch `number`, in order; each has its share of the batch's time."""
        started = time.perf_counter()
        frames: dict[Hashable, Frames] = {}
        errors: dict[Hashable, str] = {}
        for sample in batch:
            key = clip_key(sample)
            if key not in frames and key not in errors:
                try:
                    frames[key] = self.frames(sample)
                except (Timer1Error, OSError) as error:
                    log.warning("%s: no answer: %s", sample.id, error)
                    errors[key] = str(error)
        ready = [sample for sample in batch if clip_key(sample) in frames]
        said = iter(self.answer(ready, frames, number) if ready else [])
        seconds = round((time.perf_counter() - started) / len(batch), 4)
        answers = []
        for sample in batch:
            failure = errors.get(clip_key(sample))
            for prediction in next(said) if failure is None else self.failed(sample, failure):
                prediction.seconds = seconds
                answers.append(prediction)
        return answers


def answer_all(
    asked: Sequence[Sample],
    ledger: Ledger,
    asker: Asker,
    batch_size: int,
    label: str,
    store: FrameStore | None = None,
    *,
    whole: bool = False,
) -> list[Prediction]:
    """Ask in batches whatever the ledger does not hold yet, and finish it.

    Args:
        store: decoded frames; None opens the run's own.
        whole: ask a batch that was cut off as a whole again, since sampling draws for all of it.
    """
    done = ledger.open()
    order = [sample.id for sample in asked]
    # Whole batches of one plan go to each rank: what is padded together, and so the last bit, is as with one process.
    plan = [(n, batch) for n, batch in enumerate(batches(asked, batch_size)) if any(s.id not in done for s in batch)]
    work = team.share(plan)
    if work:
        with nullcontext(store) if store is not None else open_store(asker.shared) as asker.store:
            progress = Progress(label, len(order), done=len(done))
            asker.prefetch(sample for _, batch in work for sample in batch if sample.id not in done)
            with inference_mode(asker.loaded.model):
                for number, batch in work:
                    left = {sample.id: sample for sample in batch if sample.id not in done}
                    answers = asker.ask(batch if whole else list(left.values()), number)
                    ledger.add([answer for answer in answers if answer.id in left])
                    progress.update(min(len(left) * team.size, len(order) - progress.done))  # the others are about as far
        if store is None:
            sys.stdout.write(f"frames: {asker.store.costs}\n")
    return ledger.finish(order)


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
