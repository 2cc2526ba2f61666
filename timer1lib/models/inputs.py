"""From a sample and its frames to the tensors of a model, with the time of every frame in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from timer1lib.clock.frames import Frames, Sampling
from timer1lib.clock.told import video_metadata
from timer1lib.errors import Timer1Error
from timer1lib.forms import Prompt, load
from timer1lib.models.load import LoadedModel
from timer1lib.schema import Sample
from timer1lib.video.decode import frame_size, resize

if TYPE_CHECKING:
    from timer1lib.params.sections import SharedParams

IGNORED = -100
"""Label of tokens that are not trained on."""

_PADDED = {"input_ids": None, "attention_mask": 0, "mm_token_type_ids": 0, "labels": IGNORED}
"""Keys of shape [1, L] and what pads them; None is the tokenizer's pad token."""


def sample_prompt(sample: Sample, shared: SharedParams, *, grounded: bool = False, duration: float | None = None) -> Prompt:
    """What is asked about a sample, in the form that `shared` names.

    A multiple-choice sample has its options listed after the question and is asked for a letter, and where `grounded` for
    the time span as well, the letter in `\\boxed{}`. `duration` is named where the sample does not know its own.
    """
    seconds = sample.duration if sample.duration is not None else duration
    return load(shared.form).ask(sample.query, seconds, sample.options, grounded=grounded)


def encode_prompt(loaded: LoadedModel, frames: Frames, prompt: Prompt | str, completion: str | None = None) -> dict[str, Tensor]:
    """One video and one question as a batch of 1.

    Frames reach the model as they are: the processor neither samples nor resizes them again. Frames that are no
    multiple of the model's patches are fitted once, here. Where we write the times ourselves every frame pair is a video
    of its own, `<12.4 seconds>` before it.

    Args:
        prompt: what is asked; plain text stands after the video, without a system message.
        completion: the answer to learn; adds `labels`, which hold the completion and its end token and `IGNORED` before.

    Returns:
        `input_ids`, `attention_mask`, `mm_token_type_ids` int64 [1, L]; `pixel_values_videos` float32 [patches, C];
        `video_grid_thw` int64 [videos, 3]; where positions tell times `second_per_grid_ts` float32 [videos]; `labels` where asked
        for. There is one video, or one a frame pair (above).

    Raises:
        Timer1Error: the completion holds vision tokens.
    """
    frames = fit_frames(loaded, frames)
    shown = loaded.family.shown(frames, loaded.geometry)
    text = render_chat(loaded, prompt, [part for _, before in shown for part in (*before, {"type": "video"})])
    batch = loaded.processor(
        text=[loaded.family.rendered(text)],
        videos=[torch.from_numpy(piece.pixels).permute(0, 3, 1, 2) for piece, _ in shown],
        video_metadata=[video_metadata(piece) for piece, _ in shown],
        do_sample_frames=False,
        do_resize=False,
        cap_pixels_per_frame=False,
        return_tensors="pt",
    )
    out = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
    out.pop("second_per_grid_ts", None)  # the processor's own, of a frame rate that it only believes to know
    out |= loaded.family.time_inputs(frames, loaded.geometry, len(shown))
    return out if completion is None else with_completion(loaded, out, completion)


def render_chat(loaded: LoadedModel, prompt: Prompt | str, video: Sequence[dict[str, str]]) -> str:
    """The chat template's text up to where the answer begins; `video` holds the parts that stand for the video."""
    asked = Prompt(prompt) if isinstance(prompt, str) else prompt
    text = {"type": "text", "text": clean_text(loaded, asked.text)}
    turns: list[dict[str, Any]] = [{"role": "user", "content": [text, *video] if asked.text_first else [*video, text]}]
    if asked.system is not None:
        turns.insert(0, {"role": "system", "content": [{"type": "text", "text": clean_text(loaded, asked.system)}]})
    rendered: str = loaded.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return rendered


def fit_frames(loaded: LoadedModel, frames: Frames) -> Frames:
    """Frames whose sides are multiples of the model's patches: untouched where they are, else resized once."""
    factor = loaded.geometry.factor
    height, width = frames.pixels.shape[1:3]
    if height % factor == 0 and width % factor == 0:
        return frames
    sampling = Sampling(min_frame_pixels=1, total_pixels=10**12, max_frame_pixels=10**12, factor=factor)
    return replace(frames, pixels=resize(frames.pixels, *frame_size(height, width, len(frames), sampling)))


def clean_text(loaded: LoadedModel, text: str) -> str:
    """Text from a data set without the tokenizer's control tokens, so that a query cannot end its own turn."""
    special = sorted((t for t in loaded.tokenizer.all_special_tokens if t.startswith("<|")), key=len, reverse=True)
    names = [*special, *loaded.family.vision_tokens]
    return re.sub("|".join(map(re.escape, names)), " ", text)


def collate(loaded: LoadedModel, rows: Sequence[dict[str, Tensor]], side: Literal["left", "right"] = "left") -> dict[str, Tensor]:
    """Join batches of 1 from `encode_prompt`: [B, L], padded on `side` to the longest row; videos and grids one by one."""
    if not rows:
        raise Timer1Error("nothing to collate: the batch has no rows")
    length = max(row["input_ids"].shape[1] for row in rows)

    def padded(row: dict[str, Tensor], key: str) -> Tensor:
        if key not in _PADDED:
            return row[key]
        fill, missing = _PADDED[key], length - row[key].shape[1]
        value = loaded.tokenizer.pad_token_id if fill is None else fill
        return torch.nn.functional.pad(row[key], (missing, 0) if side == "left" else (0, missing), value=value)

    return {key: torch.cat([padded(row, key) for row in rows]) for key in rows[0]}


def banned_token_ids(loaded: LoadedModel) -> list[int]:
    """Tokens that must never be sampled: vision tokens, padding, turn starts, and ids the tokenizer does not know.

    A sampled video token has no features and makes the scoring forward fail.
    """
    tokenizer = loaded.tokenizer
    known = tokenizer.get_vocab()
    named = {known[t] for t in (*loaded.family.vision_tokens, loaded.family.turn_start) if t in known}
    config = loaded.model.config
    named |= {int(config.image_token_id), int(config.video_token_id)}
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        named.add(int(tokenizer.pad_token_id))
    size = int(config.get_text_config().vocab_size)
    return sorted({i for i in named if i < size} | (set(range(size)) - set(known.values())))


def with_completion(loaded: LoadedModel, out: dict[str, Any], completion: str) -> dict[str, Tensor]:
    """An encoded prompt with the answer to learn and its end token behind it, and their `labels`."""
    ids = loaded.tokenizer(completion, add_special_tokens=False)["input_ids"] + [loaded.tokenizer.eos_token_id]
    if {loaded.model.config.video_token_id, loaded.model.config.image_token_id} & set(ids):
        raise Timer1Error(f"completion {completion[:60]!r} holds vision tokens; a completion is text")
    answer = torch.tensor([ids], dtype=out["input_ids"].dtype)
    labels = torch.cat([torch.full_like(out["input_ids"], IGNORED), answer], dim=1)
    return {**put_behind(out, answer), "labels": labels}


def put_behind(row: dict[str, Any], tokens: Tensor, cut: int | None = None) -> dict[str, Any]:
    """A row of its own: an encoded prompt, or its first `cut` tokens, with the text `tokens` [1, T] behind it."""
    out = dict(row)
    for name, fill in (("input_ids", None), ("attention_mask", 1), ("mm_token_type_ids", 0)):
        if name in row:
            fresh = tokens if fill is None else torch.full_like(tokens, fill)
            out[name] = torch.cat([row[name][:, :cut], fresh.to(row[name].dtype)], dim=1)
    return out
