"""What a recipe takes before anything is rented: parameters, memory and arithmetic of one step of reinforcement learning.

Everything is worked out from the params file and the model's sizes; no weights are needed. The video is one that fills
the recipe's pixel budget, so a real step is at most as large. Two columns: the trainer's shared prefix, and the plain
path that repeats prompt and video for every completion.
"""

from __future__ import annotations

from typing import Any

from timer1lib.clock.frames import Sampling
from timer1lib.models.architecture import ROLLOUT_TOKENS, Architecture
from timer1lib.models.config import architecture_of, base_name, temporal_geometry
from timer1lib.params.sections import Params
from timer1lib.video.decode import frame_size

GB = 1e9
BYTES = {"float64": 8, "float32": 4, "bfloat16": 2}
TEXT_TOKENS = 80
"""Question, answer form and chat marks of a prompt."""
STAMP_TOKENS = 9
"""`<12.4 seconds>` and the marks around a frame pair where times are text; the tiny tokenizer's are fewer."""
MARK_TOKENS = 2
"""Around the one run of video tokens where times are positions."""
WIDE_VIDEO = (720, 1280)


def estimate(params: Params) -> dict[str, Any]:
    """Numbers of a recipe, in the order in which a person reads them. GB are 1e9 bytes, TFLOP 1e12.

    Raises:
        Timer1Error: the model's sizes are not known.
    """
    shared, grpo = params.shared, params.grpo
    sizes = architecture_of(base_name(shared))
    width = BYTES[shared.dtype]
    group, length = grpo.num_generations, grpo.max_completion_length
    forward = grpo.groups_per_forward or grpo.prompts_per_step
    patches, frame_patches, steps = _video(sizes, params)
    visual = patches // sizes.merge**2
    _, rate = temporal_geometry(base_name(shared), shared.timestamps)
    prompt = visual + TEXT_TOKENS + (steps * STAMP_TOKENS if rate is None else MARK_TOKENS)

    lora = _lora_parameters(sizes, grpo.lora_rank)
    whole = sizes.parameters()
    trained = lora or whole - (sizes.tower_parameters() if grpo.freeze_vision else 0)
    reference = whole if grpo.beta > 0 and not lora else 0

    memory: dict[str, float] = {
        "weights GB": whole * width / GB + lora * width / GB,
        "gradients GB": trained * width / GB,
        "AdamW GB": 2 * trained * width / GB,
        "reference GB": reference * width / GB,
    }
    fixed = sum(memory.values())
    packed = prompt - 1 + group * length
    repeated = group * (prompt + length)
    # From here on two values each: of the shared prefix, and of the plain path.
    kept = ((packed, repeated), (repeated, 0))
    activations = [forward * sizes.activation_bytes(n, width, grpo.gradient_checkpointing, m) / GB for n, m in kept]
    # prompts of a rollout call, as the trainer bounds them
    together = max(1, min(grpo.prompts_per_step, ROLLOUT_TOKENS // prompt))
    keys = [together * sizes.key_bytes(tokens, width) / GB for tokens in (prompt + group * length, repeated)]
    flops = [_step_flops(sizes, params, prompt, patches, frame_patches, shared_prefix=once) / 1e12 for once in (True, False)]
    totals = [fixed + max(pair) for pair in zip(activations, keys, strict=True)]
    return {
        "model": shared.model,
        "parameters (billion)": whole / GB,
        "of them trained": trained / GB,
        "of them the vision tower": sizes.tower_parameters() / GB,
        "visual tokens of a video": visual,
        "prompt tokens P": prompt,
        "completion tokens C": length,
        "group G": group,
        "groups a forward": forward,
        **memory,
        "activations GB": activations[0],
        "activations GB, plain path": activations[1],
        "keys and values GB": keys[0],
        "keys and values GB, plain path": keys[1],
        "memory GB": totals[0],
        "memory GB, plain path": totals[1],
        "tower features of a video MB": sizes.feature_bytes(patches, width) / 1e6,
        "TFLOP a step": flops[0],
        "TFLOP a step, plain path": flops[1],
        "less arithmetic by": flops[1] / flops[0],
    }


def format_estimate(value: dict[str, Any]) -> str:
    """The numbers as aligned lines, three digits each."""
    wide = max(len(key) for key in value)
    return "\n".join(f"{key.ljust(wide)}  {_number(item)}" for key, item in value.items())


def _number(item: Any) -> str:
    if not isinstance(item, float):
        return f"{item:,}" if isinstance(item, int) else str(item)
    return f"{item:,.0f}" if abs(item) >= 1000 else f"{item:.3g}"


def _video(sizes: Architecture, params: Params) -> tuple[int, int, int]:
    """Patches of a video that fills the budget, patches of a frame pair, and frame pairs."""
    shared = params.shared
    sampling = Sampling(
        rule=shared.sampling, fps=shared.fps, frames=shared.frames, min_frame_pixels=shared.min_frame_pixels,
        total_pixels=shared.total_pixels, factor=sizes.patch * sizes.merge,
    )  # fmt: skip
    steps = -(-shared.frames // sizes.temporal_patch)
    height, width = frame_size(*WIDE_VIDEO, shared.frames, sampling, sizes.temporal_patch)
    frame = (height // sizes.patch) * (width // sizes.patch)
    return steps * frame, frame, steps


def _lora_parameters(sizes: Architecture, rank: int) -> int:
    """Adapters on the seven projections of every text layer."""
    h, q, k, i = sizes.hidden, sizes.query_width, sizes.key_width, sizes.intermediate
    return rank * sizes.layers * ((h + q) + 2 * (h + k) + (q + h) + 3 * (h + i))


def seen_pairs(prompt: int, length: int, group: int) -> tuple[float, float]:
    """Pairs of a token and one that it sees: within the prompt, and from G completions to the prompt and themselves."""
    return prompt * (prompt + 1) / 2, group * (length * prompt + length * (length + 1) / 2)


def _step_flops(sizes: Architecture, params: Params, prompt: int, patches: int, frame: int, *, shared_prefix: bool) -> float:
    """Rollouts, reference, and policy with backward (twice the forward, and the forward again under checkpointing)."""
    grpo = params.grpo
    group, length = grpo.num_generations, grpo.max_completion_length
    copies = 1 if shared_prefix else group
    within, across = seen_pairs(prompt, length, group)
    rollout = sizes.text_flops(copies * prompt + group * length, copies * within + across, group * length)
    tower = copies * sizes.tower_flops(patches, frame)
    passes = 4 if grpo.gradient_checkpointing else 3
    reference = rollout if grpo.beta > 0 else 0.0
    once = grpo.freeze_vision and shared_prefix
    seen = tower * (1 if once else 1 + (grpo.beta > 0) + (1 if grpo.freeze_vision else passes))
    return grpo.prompts_per_step * (rollout + reference + passes * rollout + seen)
