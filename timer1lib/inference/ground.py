"""One video, one query, one answer: `timer1 ground`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from timer1lib import forms
from timer1lib.errors import Timer1Error
from timer1lib.models.config import sampling_for
from timer1lib.params.sections import SharedParams
from timer1lib.schema import Sample, finite
from timer1lib.video.decode import Clip, read_frames

if TYPE_CHECKING:
    from timer1lib.models.load import LoadedModel

MAX_NEW_TOKENS = 256


def ground(
    video: str | Path,
    query: str,
    model: str | Path | None = None,
    *,
    clip: Clip = (None, None),
    shared: SharedParams | None = None,
    loaded: LoadedModel | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> dict[str, Any]:
    """Ask a model when something happens in a video, greedily.

    Args:
        query: what to look for, in words.
        model: a folder or a hub id; the shipped tiny model where it is left out.
        clip: seconds of the file to look at; the answer counts from the clip's start.
        shared: prompt, sampling and number type; without it those of the run that the checkpoint lies in, else
            the tiny defaults for the shipped model and Time-R1's (2 fps, 3584 visual tokens) for any other.
        loaded: a model that is loaded already.

    Returns:
        `start`, `end` (seconds, None where the text holds no span), `duration` (seconds), `completion`, `model`.

    Raises:
        Timer1Error: an empty query, a video or a model that cannot be read.
    """
    from timer1lib.models.inputs import encode_prompt, sample_prompt
    from timer1lib.models.load import load_shared

    if not query.strip():
        raise Timer1Error("the query is empty; say in words what to look for")
    if any("\ud800" <= character <= "\udfff" for character in query):
        raise Timer1Error("the query is not UTF-8 text; say in words what to look for")
    name = loaded.name if loaded is not None else str(model or SharedParams().model)
    settings = shared or shared_for(name)
    # The video first: a missing file is told at once, not after a model has been loaded.
    frames = read_frames(video, sampling_for(settings, name), clip)
    if loaded is None:
        loaded = load_shared(name, settings)
    sample = Sample(id="query", video=str(video), query=query, duration=frames.duration_s)
    completion = _generate(loaded, encode_prompt(loaded, frames, sample_prompt(sample, settings)), max_new_tokens)
    start, end = map(finite, forms.load(settings.form).span(completion) or (None, None))
    return {"start": start, "end": end, "duration": round(frames.duration_s, 3), "completion": completion, "model": name}


def shared_for(model: str) -> SharedParams:
    """Shared parameters that fit a model: its run's, the tiny defaults, or Time-R1's."""
    import torch

    from timer1lib.files import resolve
    from timer1lib.params.load import load_params

    if resolve(model) == resolve(SharedParams().model):
        return SharedParams()
    run = resolve(model).absolute().parent.parent
    if (run / "params.yaml").is_file() and (run / "checkpoints").is_dir():
        return load_params(run / "params.yaml").shared
    pixels = {"min_frame_pixels": 16 * 28 * 28, "total_pixels": 3584 * 28 * 28}
    dtype: Any = "bfloat16" if torch.cuda.is_available() else "float32"
    return SharedParams(model=model, form="timer1", sampling="fps", fps=2.0, frames=768, dtype=dtype, **pixels)


def _generate(loaded: LoadedModel, batch: dict[str, Any], max_new_tokens: int) -> str:
    import torch

    from timer1lib.models.decoding import decoding
    from timer1lib.models.inputs import banned_token_ids

    inputs = {key: value.to(loaded.device) for key, value in batch.items()}
    options = decoding(loaded.model, loaded.tokenizer, max_new_tokens=max_new_tokens, banned=banned_token_ids(loaded))
    with torch.inference_mode():
        tokens = loaded.model.generate(**inputs, **options)
    text: str = loaded.tokenizer.decode(tokens[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return text.strip()
