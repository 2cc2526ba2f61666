"""A prompt with its video, encoded once: what scoring and sampling share among all that follows it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

_TEXT_KEYS = ("input_ids", "attention_mask", "mm_token_type_ids")
_KNOWN = {*_TEXT_KEYS, "pixel_values_videos", "video_grid_thw", "second_per_grid_ts", "video_key"}

_PLACES_KEPT = 256
_places: WeakKeyDictionary[nn.Module, OrderedDict[Any, tuple[Tensor, Tensor]]] = WeakKeyDictionary()
"""By model and layout of a prompt up to the end of its video: positions up to there (3, V), and the next one's (3, 1)."""


@dataclass(slots=True)
class EncodedPrompt:
    """One prompt of P tokens, without padding, on the model's device."""

    sample_id: str
    input_ids: Tensor  # (P,)
    token_types: Tensor  # (P,), 2 at video tokens, else 0
    positions: Tensor  # (3, P): temporal, height and width, from the model's own `get_rope_index`
    delta: int  # a completion's token t stands at position P + t + delta
    video: Tensor | None  # pixels (patches, width) or cached features (patches, 1, width)
    grid: Tensor | None  # (videos, 3)
    seconds: Tensor | None  # (videos,), `second_per_grid_ts`
    key: str | None = None  # names the frames in the feature cache; None: they are told apart by their pixels

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])

    def until(self, cut: int, video: Tensor | None) -> EncodedPrompt:
        """Its first `cut` tokens, with `video` in the place of its own: texts of any kind may stand behind them."""
        ids, types, positions = self.input_ids[:cut], self.token_types[:cut], self.positions[:, :cut]
        return replace(
            self, input_ids=ids, token_types=types, positions=positions, delta=int(self.positions[0, cut]) - cut, video=video
        )


def base_model(model: nn.Module) -> Any:
    """The `...ForConditionalGeneration` inside a PEFT wrapper, or `model` itself."""
    return model.get_base_model() if hasattr(model, "peft_config") else model  # type: ignore[operator]


def encode(model: nn.Module, encoded: Mapping[str, Any], sample_id: str) -> EncodedPrompt:
    """Move a processor's output to the model and ask the model for its positions.

    Raises:
        ValueError: not a batch of one, keys of another modality, or a prompt of fewer than two tokens.
    """
    base = base_model(model)
    device = base.get_input_embeddings().weight.device
    unknown = {key for key, value in encoded.items() if key not in _KNOWN and value is not None}
    if unknown:
        raise ValueError(f"sample {sample_id}: the encoded prompt has {sorted(unknown)}; video prompts have {sorted(_KNOWN)}")
    given = {k: torch.as_tensor(v).to(device) for k, v in encoded.items() if k != "video_key" and v is not None}
    ids = given["input_ids"]
    if ids.ndim != 2 or ids.shape[0] != 1 or ids.shape[1] < 2:
        raise ValueError(f"sample {sample_id}: input_ids must have shape (1, P), P >= 2, got {tuple(ids.shape)}")
    if "attention_mask" in given:
        kept = given["attention_mask"][0].bool()
        ids, given["mm_token_type_ids"] = ids[:, kept], given["mm_token_type_ids"][:, kept]
    types = given["mm_token_type_ids"]
    rope: dict[str, Tensor] = {k: given[k] for k in ("video_grid_thw", "second_per_grid_ts") if k in given}
    positions = _positions(base.model, ids, types, rope)
    last = positions[:, -1] if types[0, -1] == 0 else positions  # text goes on from text, wherever the video's positions end
    return EncodedPrompt(
        sample_id=sample_id,
        input_ids=ids[0],
        token_types=types[0],
        positions=positions,
        delta=int(last.max()) + 1 - ids.shape[1],
        video=given.get("pixel_values_videos"),
        grid=given.get("video_grid_thw"),
        seconds=given.get("second_per_grid_ts"),
        key=encoded.get("video_key"),
    )


def _positions(core: Any, ids: Tensor, types: Tensor, rope: Mapping[str, Tensor]) -> Tensor:
    """Positions (3, P) of a prompt. The model's rule is asked once for all prompts that are alike up to their video's end.

    It takes as long as reading a small model's prompt does. Text behind a video goes on by one a token, whatever it says.
    """
    seen = types[0].nonzero()
    end = int(seen[-1]) + 1 if len(seen) else 0
    behind = ids.shape[1] - end
    given = tuple((name, tuple(value.flatten().tolist())) for name, value in sorted(rope.items()))
    layout = (types[0, :end].cpu().numpy().tobytes(), given, repr(getattr(core, "timer1_positions", None)))
    known = _places.setdefault(core, OrderedDict())
    if not behind or layout not in known:
        asked: Tensor = core.get_rope_index(ids, mm_token_type_ids=types, attention_mask=torch.ones_like(ids), **rope)[0][:, 0]
        if not behind:
            return asked
        known[layout] = asked[:, :end], asked[:, end : end + 1]
        while len(known) > _PLACES_KEPT:
            known.popitem(last=False)
    known.move_to_end(layout)
    head, following = known[layout]
    return torch.cat([head, following + torch.arange(behind, device=ids.device)], dim=1)


def video_inputs(prompts: Sequence[EncodedPrompt]) -> dict[str, Tensor]:
    """`pixel_values_videos` and `video_grid_thw` of several prompts, one after the other; empty where none has a video."""
    shown = [p for p in prompts if p.video is not None and p.grid is not None]
    if not shown:
        return {}
    return {
        "pixel_values_videos": torch.cat([p.video for p in shown]),  # type: ignore[misc]
        "video_grid_thw": torch.cat([p.grid for p in shown]),  # type: ignore[misc]
    }


def padded(texts: Sequence[tuple[Tensor, Tensor]], pad_token_id: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Pairs of tokens (P,) and positions (3, P), padded on the right: ids (B, P), positions (3, B, P), lengths (B,).

    The last is True (B, P) at real tokens, None where no text is padded.
    """
    ids = pad_sequence([tokens for tokens, _ in texts], batch_first=True, padding_value=pad_token_id)
    positions = pad_sequence([places.T for _, places in texts], batch_first=True).permute(2, 0, 1).contiguous()
    lengths = torch.tensor([len(tokens) for tokens, _ in texts], device=ids.device)
    real = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    return ids, positions, lengths, None if bool(real.all()) else real
