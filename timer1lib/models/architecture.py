"""Sizes of a model, and what follows from them by arithmetic: parameters, activations, keys and values, FLOPs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from timer1lib.errors import Timer1Error

ROLLOUT_TOKENS = 32_768
"""Prompt tokens that are sampled from together at most on a CPU, and in a training's estimate; a GPU's free memory decides
there (`models.memory`). What is sampled does not depend on it."""


@dataclass(frozen=True)
class Architecture:
    """Sizes as in a model's `config.json`.

    Attributes:
        patch, temporal_patch, merge: pixels, frames, and patches a side to a token.
        qkv_bias: biases in the text's q, k and v projections.
        head_norms: RMS norms on queries and keys.
        gated_vision: the tower's MLP has a gate, and its norms are RMS norms; else two layers and layer norms.
        position_table: learned positions of the tower; 0 for none.
        deepstack: further mergers.
    """

    hidden: int
    layers: int
    heads: int
    key_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    vision_hidden: int
    vision_layers: int
    vision_intermediate: int
    patch: int
    temporal_patch: int = 2
    merge: int = 2
    qkv_bias: bool = False
    head_norms: bool = False
    gated_vision: bool = False
    position_table: int = 0
    deepstack: int = 0

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        return self.key_heads * self.head_dim

    # --- parameters -----------------------------------------------------------------------------------------------

    def text_parameters(self) -> int:
        """The language model, its head included; a tied head counts once."""
        h, q, k = self.hidden, self.query_width, self.key_width
        attention = h * (q + 2 * k) + q * h + (2 * self.head_dim if self.head_norms else 0) + (q + 2 * k if self.qkv_bias else 0)
        layer = attention + 3 * h * self.intermediate + 2 * h
        return self.layers * layer + h + self.vocabulary * h * (1 if self.tied else 2)

    def linear_parameters(self) -> int:
        """Matrices of the text layers: what adapters stand on, and what is quantised."""
        h = self.hidden
        return self.layers * (h * (self.query_width + 2 * self.key_width) + self.query_width * h + 3 * h * self.intermediate)

    def merger_parameters(self) -> int:
        """The merger and the deepstack mergers."""
        v, wide = self.vision_hidden, self.vision_hidden * self.merge**2
        projection = wide * wide + wide + wide * self.hidden + self.hidden
        if self.gated_vision:
            return projection + v
        return projection + 2 * v + self.deepstack * (projection + 2 * wide)

    def tower_parameters(self) -> int:
        """The vision tower up to its mergers."""
        v, i = self.vision_hidden, self.vision_intermediate
        attention = 3 * v * v + 3 * v + v * v + v
        mlp = (3 * v * i + 2 * i + v) if self.gated_vision else (2 * v * i + i + v)
        norms = 2 * v if self.gated_vision else 4 * v
        embedding = 3 * self.temporal_patch * self.patch**2 * v + (0 if self.gated_vision else v) + self.position_table * v
        return self.vision_layers * (attention + mlp + norms) + embedding

    def parameters(self) -> int:
        return self.text_parameters() + self.merger_parameters() + self.tower_parameters()

    # --- arithmetic of one forward (a multiply and an add are two FLOPs) ------------------------------------------

    def text_flops(self, tokens: float, pairs: float, scored: float) -> float:
        """Language model over `tokens`, `pairs` of a token and one that it sees, the head at `scored` positions."""
        h = self.hidden
        per_token = h * (self.query_width + 2 * self.key_width) + self.query_width * h + 3 * h * self.intermediate
        return 2.0 * self.layers * (per_token * tokens + 2 * self.query_width * pairs) + 2.0 * h * self.vocabulary * scored

    def tower_flops(self, patches: float, frame_patches: float) -> float:
        """Vision tower and mergers; every patch sees its frame (windows see less, which is left out)."""
        v = self.vision_hidden
        mlp = (3 if self.gated_vision else 2) * v * self.vision_intermediate
        blocks = self.vision_layers * (patches * (4 * v * v + mlp) + 2 * v * patches * frame_patches)
        embedding = patches * 3 * self.temporal_patch * self.patch**2 * v
        wide = v * self.merge**2
        merging = (1 + self.deepstack) * patches / self.merge**2 * wide * (wide + self.hidden)
        return 2.0 * (blocks + embedding + merging)

    # --- bytes ----------------------------------------------------------------------------------------------------

    def key_bytes(self, tokens: float, size: int) -> float:
        """Keys and values of `tokens` in every layer."""
        return 2.0 * self.layers * self.key_width * tokens * size

    def feature_bytes(self, patches: float, size: int) -> float:
        """What each merger is given of a video, kept in place of its pixels."""
        return patches * self.vision_hidden * (1 + self.deepstack) * size

    def layer_bytes(self, size: int) -> float:
        """What one text layer keeps for the backward pass a token, by the saved tensors of transformers' classes."""
        q, k = self.query_width, self.key_width
        kept = 6 * self.hidden + (2 * (q + k) if self.head_norms else 0) + 3 * q + 2 * k + 4 * self.intermediate
        widened = 0 if size >= 4 else 4 * (2 * self.hidden + ((q + k) if self.head_norms else 0))  # norms compute in float32
        return float(kept * size + widened)

    def activation_bytes(
        self, tokens: float, size: int, checkpointing: bool, copied: float = 0, *, masters: bool = False
    ) -> float:
        """Kept by the language model between forward and backward for `tokens`; the head's tiles are left out.

        `copied` are tokens whose keys and values attention copies beside each other: G * (P + C) of a packed group.
        With float32 `masters` the residual stream is float32 too.
        """
        layer = self.layer_bytes(size) * tokens + 2 * self.key_width * size * copied
        stream = self.hidden * (4 if masters else size) * tokens
        return self.layers * layer if not checkpointing else self.layers * stream + layer


def read_sizes(config: Mapping[str, Any], where: str, **more: Any) -> Architecture:
    """The sizes that every family writes alike in its `config.json`, and `more` that it knows of itself; none may be missing."""
    text, vision = config.get("text_config", config), config.get("vision_config", {})
    try:
        return Architecture(
            hidden=text["hidden_size"],
            layers=text["num_hidden_layers"],
            heads=text["num_attention_heads"],
            key_heads=text["num_key_value_heads"],
            head_dim=text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"],
            intermediate=text["intermediate_size"],
            vocabulary=text["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
            vision_hidden=vision["hidden_size"],
            vision_layers=vision["depth"],
            vision_intermediate=vision["intermediate_size"],
            patch=vision["patch_size"],
            temporal_patch=vision.get("temporal_patch_size", 2),
            merge=vision.get("spatial_merge_size", 2),
            **more,
        )
    except KeyError as error:
        raise Timer1Error(f"{where}: the configuration lacks {error.args[0]!r}") from None
