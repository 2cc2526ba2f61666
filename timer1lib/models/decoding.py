"""How answers are decoded: every option is ours, none is the model folder's.

`generate` fills what a call leaves out from the folder's `generation_config.json`. Qwen2.5-VL's says repetition_penalty 1.05
and temperature 1e-6, others top_k or a length; training samples without them, and the released evaluations ask greedily
with none. So a loaded model's generation config is replaced, and each call names what it wants.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from timer1lib.models.config import family_of_model


def take_over(model: Any, tokenizer: Any) -> None:
    """Replace what the folder of `model` said about decoding by nothing but where a turn ends and what pads."""
    from transformers import GenerationConfig

    config = GenerationConfig(
        eos_token_id=end_tokens(model, tokenizer), pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id
    )
    model.generation_config = config


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: the end of a turn in the family's chat template, and the tokenizer's own end."""
    known = tokenizer.get_vocab()
    ends = {tokenizer.eos_token_id, known.get(family_of_model(model).turn_end)}
    return sorted(token for token in ends if token is not None)


def decoding(
    model: Any,
    tokenizer: Any,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    num_samples: int = 1,
    repetition_penalty: float = 1.0,
    banned: Sequence[int] = (),
) -> dict[str, Any]:
    """Every option of `generate` that decides which tokens come, by its name there; greedy at temperature 0.

    What is not named stays off: `take_over` left no other source of it than the library's own defaults.
    """
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "num_beams": 1,
        "do_sample": temperature > 0,
        "repetition_penalty": repetition_penalty,
        "no_repeat_ngram_size": 0,
        "eos_token_id": end_tokens(model, tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "suppress_tokens": sorted(banned) or None,
    }
    if temperature > 0:
        options |= {"temperature": temperature, "top_p": 1.0, "top_k": 0, "min_p": None, "num_return_sequences": num_samples}
    return options


def described(options: dict[str, Any]) -> dict[str, Any]:
    """Options as a ledger or a log tells them: the many suppressed tokens as ranges, `3, 151665-152063`."""
    runs = groupby(enumerate(options["suppress_tokens"] or ()), key=lambda pair: pair[1] - pair[0])
    spans = [[token for _, token in run] for _, run in runs]
    told = ", ".join(f"{span[0]}-{span[-1]}" if len(span) > 1 else str(span[0]) for span in spans)
    return {**options, "suppress_tokens": told}
