"""What the vision tower makes of a video, computed once however many questions are asked about it."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timer1lib.models.load import LoadedModel

KEPT = 8
"""Videos whose features are kept: those of a batch and a few before it."""


class VideoFeatures:
    """Puts ready features in the place of pixels, so that the tower runs once a video.

    transformers takes them as `mm_encoder_outputs`; a version without that argument gets the pixels as before.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.model = loaded.model
        self.kept: dict[Hashable, tuple[list[Any], list[list[Any]] | None]] = {}
        self.computed = 0
        forward = getattr(self.model, "get_base_model", lambda: self.model)().forward
        self.usable = "mm_encoder_outputs" in inspect.signature(forward).parameters

    def replace_pixels(
        self, inputs: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], keys: Sequence[Hashable]
    ) -> dict[str, Any]:
        """`inputs` of a batch with features instead of `pixel_values_videos`.

        Args:
            inputs: the collated batch.
            rows: its rows as encoded, each with `pixel_values_videos` and `video_grid_thw` of one video.
            keys: which video each row is about; rows with one key must hold the same pixels.
        """
        batch = dict(inputs)
        if not self.usable or "pixel_values_videos" not in batch:
            return batch
        del batch["pixel_values_videos"]
        features = [self._of(row, key) for row, key in zip(rows, keys, strict=True)]
        while len(self.kept) > max(KEPT, len(set(keys))):
            del self.kept[next(iter(self.kept))]
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        joined: Any = BaseModelOutputWithPooling()
        joined.pooler_output = tuple(piece for pieces, _ in features for piece in pieces)
        taps = [deep for _, deep in features if deep is not None]
        if taps:
            levels = zip(*taps, strict=True)
            joined.deepstack_features = [tuple(piece for video in level for piece in video) for level in levels]
        batch["mm_encoder_outputs"] = {"video": joined}
        return batch

    def _of(self, row: Mapping[str, Any], key: Hashable) -> tuple[list[Any], list[list[Any]] | None]:
        if key in self.kept:
            self.kept[key] = self.kept.pop(key)
            return self.kept[key]
        device = next(self.model.parameters()).device
        base = getattr(self.model, "get_base_model", lambda: self.model)()
        pixels, grid = row["pixel_values_videos"].to(device), row["video_grid_thw"].to(device)
        out = base.get_video_features(pixels, grid, return_dict=True)
        deep = getattr(out, "deepstack_features", None)
        self.kept[key] = (list(out.pooler_output), None if deep is None else [list(level) for level in deep])
        self.computed += 1
        return self.kept[key]
