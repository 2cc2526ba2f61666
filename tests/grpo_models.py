"""Small random models of both families and hand-made video prompts, for the tests of the video trainer."""

from __future__ import annotations

from typing import Any

import torch

torch.set_num_threads(1)  # small matrices on a shared machine: more threads wait for each other

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
VOCAB = 160
IMAGE, VIDEO, START, END, PAD, EOS = 150, 151, 152, 153, 154, 155
BANNED = [IMAGE, VIDEO, START, END, PAD, 156, 157, 158, 159]
WORDS = 150
"""Ids below are ordinary words."""


def random_model(
    family: str, dtype: torch.dtype = torch.float64, seed: int = 0, attention: str = "sdpa", hidden: int = 64, layers: int = 2
) -> Any:
    """A random model; wider initialisation than usual, so that what a token sees matters to its logits."""
    import transformers as t

    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    text = {
        "vocab_size": VOCAB,
        "hidden_size": hidden,
        "intermediate_size": hidden * 3 // 2,
        "num_hidden_layers": layers,
        **heads,
    }
    text |= {"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": None, "initializer_range": 0.1}
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 4,
        "spatial_merge_size": 2,
        "out_hidden_size": hidden,
    }
    ids = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": START, "vision_end_token_id": END}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}
    torch.manual_seed(seed)
    if family == "qwen2_5_vl":
        vision |= {"patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1], "tokens_per_second": 2, "in_channels": 3}
        config = t.Qwen2_5_VLConfig(text_config={**text, "rope_parameters": rope}, vision_config=vision, **ids)
        model = t.Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation=attention)
    else:
        vision |= {"patch_size": 16, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
        rope |= {"mrope_interleaved": True}
        config = t.Qwen3VLConfig(text_config={**text, "head_dim": 16, "rope_parameters": rope}, vision_config=vision, **ids)
        model = t.Qwen3VLForConditionalGeneration._from_config(config, attn_implementation=attention)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = PAD, EOS
    return model.to(dtype)


def video_prompt(
    family: str, grid: tuple[int, int, int] = (3, 4, 6), words: int = 7, seed: int = 1, dtype: torch.dtype = torch.float64
) -> dict[str, Any]:
    """What a processor gives for one video and some words: batch of 1."""
    generator = torch.Generator().manual_seed(seed)
    steps, height, width = grid
    tokens = height * width // 4

    def text(count: int) -> list[int]:
        return torch.randint(0, WORDS, (count,), generator=generator).tolist()

    if family == "qwen2_5_vl":
        ids, patch = [*text(4), START, *[VIDEO] * (steps * tokens), END, *text(words)], 14
    else:
        ids, patch = text(4), 16
        for _ in range(steps):
            ids += [*text(2), START, *[VIDEO] * tokens, END]
        ids += text(words)
    row = torch.tensor([ids])
    prompt = {
        "input_ids": row,
        "attention_mask": torch.ones_like(row),
        "mm_token_type_ids": (row == VIDEO).int() * 2,
        "pixel_values_videos": torch.randn(steps * height * width, 3 * 2 * patch**2, generator=generator, dtype=torch.float64).to(
            dtype
        ),
        "video_grid_thw": torch.tensor([list(grid)]),
    }
    if family == "qwen2_5_vl":
        prompt["second_per_grid_ts"] = torch.tensor([1.5])
    return prompt


def ragged_completions(groups: int, group: int, length: int, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Random completions (groups, G, C) of different lengths, the longest C, with their mask."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, WORDS, (groups, group, length), generator=generator)
    lengths = torch.randint(1, length + 1, (groups, group), generator=generator)
    lengths[:, 0] = length
    mask = (torch.arange(length) < lengths[..., None]).long()
    return ids.masked_fill(mask == 0, PAD), mask


def plain_logps(model: Any, prompt: dict[str, Any], completions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of one group by the model's own forward, everything repeated; pads give 0. (G, C)."""
    group, length = completions.shape
    inputs = {key: torch.cat([value] * group) for key, value in prompt.items()}
    inputs["input_ids"] = torch.cat([inputs["input_ids"], completions], 1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], mask], 1)
    inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(completions, dtype=torch.int)], 1)
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    base.model.rope_deltas = None
    logits = model(**inputs, use_cache=False).logits[:, -length - 1 : -1]
    logps = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
    return logps * mask


def double_head(model: Any) -> None:
    """trl's fused head as the trainer calls it, in float64: trl's own computes in float32, too coarse for these tests."""
    import types
    from types import SimpleNamespace

    plain = model.forward

    def forward(
        self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, shift_labels: Any = None, **kwargs: Any
    ) -> Any:
        if not fused_lm_head:
            return plain(*args, **kwargs)
        hidden = self.model(*args, **kwargs, use_cache=False).last_hidden_state
        if shift_labels is None:
            hidden, shift_labels = hidden[:, :-1], labels[:, 1:]
        logps = self.lm_head(hidden).log_softmax(-1)
        chosen = logps.gather(-1, shift_labels.clamp(min=0)[..., None])[..., 0].masked_fill(shift_labels == -100, 0)
        entropy = -(logps.exp() * logps).sum(-1).masked_fill(shift_labels == -100, 0)
        return SimpleNamespace(log_probs=chosen, entropy=entropy)

    model.forward = types.MethodType(forward, model)
