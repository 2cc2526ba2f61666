"""Tiny models of the real classes: ordinary Hugging Face folders, small enough to train on two cores.

The tokenizer knows whole words, whole numbers and `.d` decimals as one token each, so that a time is copied in two
tokens, and falls back to bytes, so that any text can be asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timer1lib.errors import Timer1Error
from timer1lib.models.config import FAMILIES
from timer1lib.world.lexicon import vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_NAMES = ("endoftext", "im_start", "im_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad")
SPECIAL = tuple(f"<|{name}|>" for name in _NAMES)
MARKS = ("<think>", "</think>", "<answer>", "</answer>", "<time>", "</time>", "\\boxed{", " seconds>")
LARGEST_NUMBER = 199
FRAME_SIDE, PATCH, MERGE, TEMPORAL_PATCH = 56, 28, 2, 2
"""56 x 56 pixels a frame, patches of 28, merged 2 x 2: one visual token a pair of frames."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'video' -%}{{ %VIDEO% }}"
    "{%- elif part['type'] == 'image' -%}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{ '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


def build_tiny(
    out_dir: str | Path,
    family: str = "qwen3_vl",
    seed: int = 0,
    *,
    hidden: int = 128,
    layers: int = 3,
    vision_hidden: int = 64,
    vision_depth: int = 2,
    textual: bool = False,
) -> Path:
    """Write a randomly initialised tiny model with its processor and return the folder.

    Args:
        hidden: width of the text model; heads are 32 wide, the MLP is three times as wide.
        textual: tell times as text although the family has positions for them; the `config.json` says so.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    config = tiny_config(family, tokenizer, hidden, layers, vision_hidden, vision_depth)
    if textual and FAMILIES[family].position_rate(config) is not None:
        config.timestamps = "text"
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    save_processor(folder, family, tokenizer)
    return folder


def tiny_config(
    family: str, tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int, vision_hidden: int, vision_depth: int
) -> Any:
    """The configuration of a tiny model; every width follows from the two hidden sizes."""
    if hidden % 32:
        raise Timer1Error(f"hidden size {hidden}: must be a multiple of 32, the width of a head")
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    heads = hidden // 32
    text: dict[str, Any] = {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": 8192,
        "pad_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "bos_token_id": None,
    }
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [8, 4, 4]}
    vision: dict[str, Any] = {
        "depth": vision_depth,
        "hidden_size": vision_hidden,
        "intermediate_size": 3 * vision_hidden,
        "num_heads": 4,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": TEMPORAL_PATCH,
        "out_hidden_size": hidden,
    }
    common = {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": True,
    }
    return FAMILIES[family].tiny_config(text, vision, rope, FRAME_SIDE, common)


def build_tokenizer(more: Sequence[str] = (), special: Sequence[str] = SPECIAL) -> PreTrainedTokenizerFast:
    """Words and numbers whole, everything else as bytes; lossless for any text. `more` are further words."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    space, newline = "\u0120", "\u010a"  # how byte-level tokenizers write a leading space, and a line feed
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [w for word in (*vocabulary(), "user", "assistant", "system", *more) for w in (word, space + word)]
    numbers = [w for n in range(LARGEST_NUMBER + 1) for w in (str(n), f"{space}{n}")]
    decimals, letters = [f".{d}" for d in range(10)], [f"{space}{letter}" for letter in "ABCD"]
    marks = [mark.replace(" ", space) for mark in MARKS]
    pieces = dict.fromkeys([*special, *alphabet, *numbers, *decimals, *words, *letters, *marks, newline])
    vocab = {piece: i for i, piece in enumerate(pieces)}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True, byte_fallback=False))
    pattern = Regex(r"</?(?:think|answer|time)>|\\boxed\{| seconds>| ?[A-Za-z]+| ?[0-9]{1,3}|\.[0-9]|[^A-Za-z0-9]")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pattern, behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(special),
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )


def save_processor(folder: Path, family: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write tokenizer, image and video processor so that `AutoProcessor` finds the family's own classes."""
    from transformers import Qwen2VLImageProcessor

    side = FRAME_SIDE * FRAME_SIDE
    sizes: dict[str, Any] = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": TEMPORAL_PATCH}
    normal: dict[str, Any] = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    image = Qwen2VLImageProcessor(size={"shortest_edge": side, "longest_edge": side}, **sizes, **normal)
    processor, written = FAMILIES[family].tiny_processor(image, tokenizer, side, sizes | normal)
    processor.chat_template = CHAT_TEMPLATE.replace("%VIDEO%", f"'{written}'")
    processor.save_pretrained(folder)


def parameter_count(folder: str | Path) -> int:
    """Parameters of a saved model, tied ones once."""
    from safetensors import safe_open

    with safe_open(str(Path(folder) / "model.safetensors"), "np") as weights:
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
