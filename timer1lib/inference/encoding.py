"""Several questions about one video: its frames go through the processor once, and each question's text is put behind."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from timer1lib.forms import Prompt
from timer1lib.models.inputs import encode_prompt, render_chat

if TYPE_CHECKING:
    from timer1lib.models.load import LoadedModel
    from timer1lib.video.frames import Frames

KEPT = 8
_TEXTUAL = ("input_ids", "attention_mask", "mm_token_type_ids")


class PromptEncoder:
    """`encode_prompt` that remembers the video part of the last few clips.

    The video's tokens end with a control token, where every tokenizer splits, so the text behind it can be tokenised by
    itself. The first time this is done the result is compared with the whole prompt's; a tokenizer or a template for
    which they differ is encoded whole every time, and so is a prompt whose text stands before the video.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.kept: dict[Hashable, dict[str, Any]] = {}
        self.whole = 0
        """How many prompts went through the processor."""
        self._proven: bool | None = None

    def encode(self, frames: Frames, key: Hashable, prompt: Prompt | str) -> dict[str, Any]:
        """As `encode_prompt(loaded, frames, prompt)`; `key` names the frames."""
        asked = Prompt(prompt) if isinstance(prompt, str) else prompt
        if asked.text_first:
            self.whole += 1
            return encode_prompt(self.loaded, frames, asked)
        key = (key, asked.system)
        if key not in self.kept or self._proven is False:
            self.whole += 1
            return self._keep(key, encode_prompt(self.loaded, frames, asked))
        shared = self.kept[key] = self.kept.pop(key)
        row = self._with_text(shared, asked)
        if self._proven is None:
            full = encode_prompt(self.loaded, frames, asked)
            same = row is not None and all(row[name].equal(full[name]) for name in _TEXTUAL if name in full)
            self._proven = same
            self.whole += 1
            return full
        if row is None:
            self.whole += 1
            return encode_prompt(self.loaded, frames, asked)
        return row

    def _keep(self, key: Hashable, row: dict[str, Any]) -> dict[str, Any]:
        self.kept[key] = row
        while len(self.kept) > KEPT:
            del self.kept[next(iter(self.kept))]
        return row

    def _with_text(self, shared: dict[str, Any], prompt: Prompt) -> dict[str, Any] | None:
        import torch

        tail = self._tail(prompt)
        ids = shared["input_ids"]
        end = self.loaded.tokenizer.convert_tokens_to_ids("<|vision_end|>")
        marks = (ids[0] == end).nonzero()
        if tail is None or not len(marks):
            return None
        cut = int(marks[-1]) + 1
        behind = torch.tensor([self.loaded.tokenizer(tail, add_special_tokens=False)["input_ids"]], dtype=ids.dtype)
        row = dict(shared)
        row["input_ids"] = torch.cat([ids[:, :cut], behind], dim=1)
        row["attention_mask"] = torch.ones_like(row["input_ids"]).to(shared["attention_mask"].dtype)
        if "mm_token_type_ids" in shared:
            kinds = shared["mm_token_type_ids"]
            row["mm_token_type_ids"] = torch.cat([kinds[:, :cut], torch.zeros_like(behind).to(kinds.dtype)], dim=1)
        return row

    def _tail(self, prompt: Prompt) -> str | None:
        """What the chat template writes behind the video."""
        rendered = render_chat(self.loaded, prompt, [{"type": "video"}])
        mark = "<|vision_end|>" if "<|vision_end|>" in rendered else "<|video_pad|>"
        _, found, tail = rendered.rpartition(mark)
        return tail if found else None
