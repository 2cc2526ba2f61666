"""Prompts about videos that come again: what the processor makes of a video is kept, and each text is put behind it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch

from timer1lib.clock.frames import Frames
from timer1lib.forms import Prompt
from timer1lib.models.inputs import encode_prompt, put_behind, render_chat
from timer1lib.models.load import LoadedModel

KEPT_BYTES = 256_000_000
"""Pixels and tokens of videos that are kept, the last ones used; of one video however large it is."""
_TEXTUAL = ("input_ids", "attention_mask", "mm_token_type_ids")


class PromptEncoder:
    """`encode_prompt` that remembers the video part of clips, for models of one processor.

    The video's tokens end with a control token, where every tokenizer splits, so the text behind it can be tokenised by
    itself. The first time this is done the result is compared with the whole prompt's; a tokenizer or a template for
    which they differ is encoded whole every time, and so is a prompt whose text stands before the video.
    """

    def __init__(self) -> None:
        self.whole = 0
        """How many prompts went through the processor."""
        self._kept: OrderedDict[Hashable, dict[str, Any]] = OrderedDict()
        self._bytes = 0
        self._proven: bool | None = None

    def encode(self, loaded: LoadedModel, frames: Callable[[], Frames], key: Hashable, prompt: Prompt | str) -> dict[str, Any]:
        """As `encode_prompt(loaded, frames(), prompt)`; `key` names the frames, which are not always asked for."""
        asked = Prompt(prompt) if isinstance(prompt, str) else prompt
        if asked.text_first:
            return self._encode_whole(loaded, frames(), asked)
        key = (key, asked.system)
        if key not in self._kept or self._proven is False:
            return self._keep(key, self._encode_whole(loaded, frames(), asked))
        self._kept.move_to_end(key)
        row = _with_text(loaded, self._kept[key], asked)
        if row is not None and self._proven:
            return row
        full = self._encode_whole(loaded, frames(), asked)
        if self._proven is None:
            self._proven = row is not None and all(row[name].equal(full[name]) for name in _TEXTUAL if name in full)
        return full

    def holds(self, key: Hashable, prompt: Prompt) -> bool:
        """Whether a prompt about this clip needs no frames."""
        return bool(self._proven) and not prompt.text_first and (key, prompt.system) in self._kept

    def _encode_whole(self, loaded: LoadedModel, frames: Frames, prompt: Prompt) -> dict[str, Any]:
        self.whole += 1
        return encode_prompt(loaded, frames, prompt)

    def _keep(self, key: Hashable, row: dict[str, Any]) -> dict[str, Any]:
        if before := self._kept.pop(key, None):
            self._bytes -= _size(before)
        self._kept[key] = dict(row)  # the caller may add to its own
        self._bytes += _size(row)
        while self._bytes > KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return row


def _with_text(loaded: LoadedModel, shared: dict[str, Any], prompt: Prompt) -> dict[str, Any] | None:
    tail = _tail(loaded, prompt)
    ids = shared["input_ids"]
    end = loaded.tokenizer.convert_tokens_to_ids(loaded.family.vision_end)
    marks = (ids[0] == end).nonzero()
    if tail is None or not len(marks):
        return None
    cut = int(marks[-1]) + 1
    behind = torch.tensor([loaded.tokenizer(tail, add_special_tokens=False)["input_ids"]], dtype=ids.dtype)
    return put_behind(shared, behind, cut)


def _tail(loaded: LoadedModel, prompt: Prompt) -> str | None:
    """What the chat template writes behind the video."""
    rendered = render_chat(loaded, prompt, [{"type": "video"}])
    family = loaded.family
    mark = family.vision_end if family.vision_end in rendered else family.video_token
    return rendered.rpartition(mark)[2] if mark in rendered else None


def _size(row: dict[str, Any]) -> int:
    return sum(value.nbytes for value in row.values())
