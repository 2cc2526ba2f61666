"""Handing the position rule to a loaded model, so that every forward and every decoding step goes by it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from timer1lib.clock.positions import IMAGE, VIDEO, PositionConfig, positions
from timer1lib.errors import Timer1Error
from timer1lib.weak import WeakMethod

log = logging.getLogger(__name__)

ClockRule = Literal["auto", "published", "installed", "wrong_text"]


@dataclass(frozen=True, slots=True)
class RuleInUse:
    """Which positions a model uses."""

    name: str
    """`published`, `installed` or `wrong_text`."""
    agrees: bool
    """Whether the installed library gives the published positions on the probe."""
    text: str
    """One line for a person."""


def install_rule(model: Any, config: PositionConfig, rule: ClockRule = "auto") -> RuleInUse:
    """Make a model with multimodal positions compute them by `rule`, in every path, and say which it is.

    The rule is set on the model's own object, under the names that transformers calls (`get_rope_index` for
    positions and `rope_deltas`), so prefill, decoding, the scoring forward, training, LoRA wrappers and copies all
    pass through it. Missing `mm_token_type_ids` are worked out from the tokens instead of falling back to 1-D
    positions, and a video without the time step that its family needs is an error instead of one step a second.

    Args:
        model: an `...ForConditionalGeneration` or a PEFT wrapper of one. Installing again replaces the rule.
        config: what the published rule needs of the model; `Family.install_rule` knows it.
        rule: `published`; `installed`, as the library computes it; `auto`, published where the two differ;
            `wrong_text`, the experiment's: text after a video restarts near the video's start.
    """
    outer = model.get_base_model() if hasattr(model, "get_base_model") else model
    core = outer.model
    agrees = _agrees(core, config)
    name = ("installed" if agrees else "published") if rule == "auto" else rule
    wrong = PositionConfig(config.merge, config.tokens_per_second, text_restarts=True)
    core.timer1_needs_time = config.tokens_per_second is not None
    core.timer1_positions = {"published": config, "wrong_text": wrong}.get(name)
    core.get_rope_index = WeakMethod(_get_rope_index, core)
    core.compute_3d_position_ids = WeakMethod(_compute_3d_position_ids, core)
    outer._prepare_position_ids_for_generation = WeakMethod(_prepare_position_ids_for_generation, outer)
    in_use = RuleInUse(name, agrees, _describe(name, agrees))
    log.info("clock: %s", in_use.text)
    return in_use


def probe_example(config: PositionConfig) -> dict[str, Tensor]:
    """The small published example, in the form that `get_rope_index` takes.

    Three temporal steps of 2 x 2 tokens, then five text tokens, with a temporal interval of 50 positions: vision at 0,
    50, 100 and text at 101..105. Where times are text each step has its own run of tokens.
    """
    side, steps, text = 2 * config.merge, 3, 5
    gap = 0 if config.tokens_per_second is not None else 1
    row = ([VIDEO] * 4 + [0] * gap) * steps + [0] * text
    example: dict[str, Tensor] = {
        "mm_token_type_ids": torch.tensor([row]),
        "input_ids": torch.zeros(1, len(row), dtype=torch.long),
        "attention_mask": torch.ones(1, len(row), dtype=torch.long),
        "video_grid_thw": torch.tensor([[steps, side, side]]),
    }
    if config.tokens_per_second is not None:
        example["second_per_grid_ts"] = torch.tensor([50.0 / config.tokens_per_second])
    return example


def _agrees(core: Any, config: PositionConfig) -> bool:
    """Whether the library's own rule gives the published positions and deltas on the example."""
    example = probe_example(config)
    step, mask = example.get("second_per_grid_ts"), example["attention_mask"]
    ours = positions(config, example["mm_token_type_ids"], example["video_grid_thw"], None, step, mask)
    try:
        theirs = type(core).get_rope_index(core, **example)
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        log.warning("clock: the installed rule fails on the published example: %s", error)
        return False
    return all(bool(torch.equal(a, b.reshape(a.shape).to(a))) for a, b in zip(ours, theirs, strict=True))


def _describe(name: str, agrees: bool) -> str:
    from transformers import __version__

    rule = "WRONG rule of the experiment (text restarts after a video)" if name == "wrong_text" else f"{name} rule"
    relation = "equals the published rule" if agrees else "differs from the published rule"
    return f"positions by the {rule}; transformers {__version__}'s own rule {relation} on the published example"


def _types(config: Any, input_ids: Tensor) -> Tensor:
    """`mm_token_type_ids` from the tokens themselves."""
    types_: Tensor = (input_ids == config.image_token_id).int() * IMAGE + (input_ids == config.video_token_id).int() * VIDEO
    return types_


def _get_rope_index(
    self: Any,
    input_ids: Tensor,
    mm_token_type_ids: Tensor | None = None,
    image_grid_thw: Tensor | None = None,
    video_grid_thw: Tensor | None = None,
    second_per_grid_ts: Tensor | None = None,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    types_ = _types(self.config, input_ids) if mm_token_type_ids is None else mm_token_type_ids
    if self.timer1_needs_time and video_grid_thw is not None and len(video_grid_thw) and second_per_grid_ts is None:
        raise Timer1Error("a video came without second_per_grid_ts; the model would take each step for one second")
    if self.timer1_positions is None:
        if self.timer1_needs_time:
            kwargs["second_per_grid_ts"] = second_per_grid_ts
        grids = {"image_grid_thw": image_grid_thw, "video_grid_thw": video_grid_thw}
        library: tuple[Tensor, Tensor] = type(self).get_rope_index(
            self, input_ids, mm_token_type_ids=types_, attention_mask=attention_mask, **grids, **kwargs
        )
        return library
    mask = attention_mask if attention_mask is None or attention_mask.dim() == 2 else None
    return positions(self.timer1_positions, types_, video_grid_thw, image_grid_thw, second_per_grid_ts, mask)


def _compute_3d_position_ids(self: Any, *args: Any, **kwargs: Any) -> Tensor | None:
    input_ids = kwargs.get("input_ids", args[0] if args else None)
    has_vision = kwargs.get("video_grid_thw") is not None or kwargs.get("image_grid_thw") is not None
    if kwargs.get("mm_token_type_ids") is None and input_ids is not None and has_vision:
        kwargs["mm_token_type_ids"] = _types(self.config, input_ids)
    result: Tensor | None = type(self).compute_3d_position_ids(self, *args, **kwargs)
    return result


def _prepare_position_ids_for_generation(self: Any, inputs_tensor: Tensor, model_kwargs: dict[str, Any]) -> Tensor:
    tokens = model_kwargs.get("input_ids")
    tokens = tokens if tokens is not None and tokens.shape[1] > 0 else inputs_tensor
    has_vision = model_kwargs.get("video_grid_thw") is not None or model_kwargs.get("image_grid_thw") is not None
    if model_kwargs.get("mm_token_type_ids") is None and has_vision and tokens.dim() == 2 and not tokens.is_floating_point():
        model_kwargs = {**model_kwargs, "mm_token_type_ids": _types(self.config, tokens)}
    result: Tensor = type(self)._prepare_position_ids_for_generation(self, inputs_tensor, model_kwargs)
    return result
