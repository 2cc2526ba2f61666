"""What a recipe takes before anything is rented: memory, arithmetic, hours and disk of its reinforcement learning.

Everything is worked out from the params file and the model's sizes; no weights are needed. The video is one that fills
the recipe's pixel budget, so a real step is at most as large. Two columns: the trainer's shared prefix, and the plain
path that repeats prompt and video for every completion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from timer1lib.clock.frames import Sampling
from timer1lib.errors import Timer1Error
from timer1lib.models.architecture import ROLLOUT_TOKENS, Architecture
from timer1lib.models.config import architecture_of, base_name, temporal_geometry
from timer1lib.params.sections import GrpoParams, Params
from timer1lib.params.trainer import QUANTISED, weights_dtype
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
QUANTISED_BYTES = {"8bit": 1.0, "4bit": 0.5 + 1 / 64 + 4 / (64 * 256)}
"""A weight of bitsandbytes: LLM.int8(), and NF4 in blocks of 64 with doubly quantised scales (QLoRA, section 3)."""
RESERVE = 0.08
"""Share of a card that its context, libraries and gaps between tensors take."""
LAYER_S = 0.7e-3
"""Least seconds that a layer takes of one decoding step, whatever its size: its kernels are launched one by one."""
CARDS_IN_A_RUN = (1, 2, 4, 8)


@dataclass(frozen=True)
class Card:
    """A card's published numbers: memory in GB, TFLOP a second of dense bfloat16, TB a second of memory."""

    memory: float
    tflops: float
    bandwidth: float


CARDS = {
    "A100": Card(80, 312, 2.0), "H100": Card(80, 989, 3.35), "H200": Card(141, 989, 4.8), "L40S": Card(48, 362, 0.864),
    "RTX4090": Card(24, 165, 1.008),
}  # fmt: skip
"""NVIDIA's data sheets: A100 80 GB SXM, H100 SXM, H200 SXM, L40S, GeForce RTX 4090 (float32 accumulation)."""


@dataclass(frozen=True)
class _Memory:
    """Bytes of a training on one card, by what they are."""

    weights: float
    reference: float
    optimizer: float
    gradients: float
    casts: float  # weights in the type of computation, kept while completions are sampled
    activations: float
    keys: float
    layer: float  # the largest unit that FSDP2 gathers
    model: float  # all of the model in the type of computation

    def fixed(self) -> float:
        return self.weights + self.reference + self.optimizer

    def peak(self, cards: int = 1, *, fsdp2: bool = False) -> float:
        """The larger of sampling and learning, on one of several cards."""
        if not fsdp2:  # DDP copies gradients into the buckets that it sends
            gradients = self.gradients * (1 if cards == 1 else 2)
            return self.fixed() + max(gradients + self.activations, self.casts + self.keys)
        learning = self.gradients / cards + self.activations + 2 * self.layer  # one at work, one on its way
        return self.fixed() / cards + max(learning, self.model + self.keys)  # sampling gathers the model once


def estimate(params: Params, card: str = "H100", mfu: float = 0.3) -> dict[str, Any]:
    """Numbers of a recipe, in the order in which a person reads them. GB are 1e9 bytes, TFLOP 1e12.

    Args:
        card: one of `CARDS`.
        mfu: share of the card's rate that a training reaches.

    Raises:
        Timer1Error: the model's sizes or the card are not known.
    """
    if card not in CARDS:
        raise Timer1Error(f"card {card!r}: one of {', '.join(CARDS)}")
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
    memory = _memory(sizes, params, prompt)
    plain = _memory(sizes, params, prompt, shared_prefix=False)
    flops = [_step_flops(sizes, params, prompt, patches, frame_patches, shared_prefix=once) / 1e12 for once in (True, False)]
    value: dict[str, Any] = {
        "model": base_name(shared),
        "parameters (billion)": whole / GB,
        "of them trained": trained / GB,
        "of them the vision tower": sizes.tower_parameters() / GB,
        "trained weights in": "float32" if lora else weights_dtype(grpo.weights, 0, shared.dtype),
        "optimizer": grpo.optim,
        "visual tokens of a video": visual,
        "prompt tokens P": prompt,
        "completion tokens C": length,
        "group G": group,
        "groups a forward": forward,
        "weights GB": memory.weights / GB,
        "gradients GB": memory.gradients / GB,
        "optimizer GB": memory.optimizer / GB,
        "reference GB": memory.reference / GB,
        "16-bit copies while sampling GB": memory.casts / GB,
        "activations GB": memory.activations / GB,
        "activations GB, plain path": plain.activations / GB,
        "keys and values GB": memory.keys / GB,
        "keys and values GB, plain path": plain.keys / GB,
        "memory GB": memory.peak() / GB,
        "memory GB, plain path": plain.peak() / GB,
    }
    ways: dict[tuple[int, str], float] = {(1, "ddp"): memory.peak() / GB}
    for cards in CARDS_IN_A_RUN[1:]:
        if grpo.prompts_per_step % cards == 0:
            here = _memory(sizes, params, prompt, cards=cards)
            ways[cards, "ddp"] = here.peak(cards) / GB
            if grpo.weights not in QUANTISED:  # bitsandbytes' 8 bits cannot be sharded, nor its 4 without help
                ways[cards, "fsdp2"] = here.peak(cards, fsdp2=True) / GB
    value |= {f"memory GB a card, {cards} cards, {way}": size for (cards, way), size in ways.items() if cards > 1}
    for name, changed in _other_ways(grpo).items():
        other = params.model_copy(update={"grpo": grpo.model_copy(update=changed)})
        value[f"memory GB, {name}"] = _memory(sizes, other, prompt).peak() / GB
    training = _training_steps(params)
    seconds = _step_seconds(sizes, params, prompt, flops[0], CARDS[card], mfu)
    kept = (memory.weights if not lora else 4 * whole) / GB
    value |= {
        "tower features of a video MB": sizes.feature_bytes(patches, width) / 1e6,
        "prompt tokens a step": grpo.prompts_per_step * prompt,
        "sampled tokens a step, at most": grpo.prompts_per_step * group * length,
        "TFLOP a step": flops[0],
        "TFLOP a step, plain path": flops[1],
        "less arithmetic by": flops[1] / flops[0],
        f"seconds a step on one {card} at {mfu:.0%}": seconds,
        "steps, at most": training if training else "as many as samples are selected",
        f"hours of {training or 1000:,} steps on one {card}": (training or 1000) * seconds / 3600,
        "disk GB": kept * (grpo.epochs + 1) + 3 * (0 if lora else memory.weights + memory.optimizer) / GB,
        "verdict": _verdict(ways, card),
    }
    return value


def format_estimate(value: dict[str, Any]) -> str:
    """The numbers as aligned lines, three digits each; the verdict last."""
    wide = max(len(key) for key in value)
    lines = [f"{key.ljust(wide)}  {_number(item)}" for key, item in value.items() if key != "verdict"]
    return "\n".join([*lines, str(value["verdict"])])


def _number(item: Any) -> str:
    if not isinstance(item, float):
        return f"{item:,}" if isinstance(item, int) else str(item)
    return f"{item:,.0f}" if abs(item) >= 1000 else f"{item:.3g}"


def _verdict(ways: dict[tuple[int, str], float], card: str) -> str:
    room = CARDS[card].memory * (1 - RESERVE)
    name = f"one {CARDS[card].memory:.0f} GB card ({card})"
    fits = [f"fits {cards} with {way}" for (cards, way), size in ways.items() if size <= room and cards > 1]
    alone = f"fits {name}" if ways[1, "ddp"] <= room else f"does not fit {name}"
    if ways[1, "ddp"] <= room:
        return alone
    return f"{alone}; {fits[0]}" if fits else f"{alone}, nor up to {CARDS_IN_A_RUN[-1]} of them"


def _other_ways(grpo: GrpoParams) -> dict[str, dict[str, Any]]:
    """What else the same recipe could be, by name: changed parameters."""
    rank = grpo.lora_rank or 16
    full = {"lora_rank": 0, "weights": "auto"}
    ways: dict[str, dict[str, Any]] = {
        "full": full,
        "full with 8-bit AdamW": full | {"optim": "adamw_bnb_8bit"},
        "full in bfloat16 with 8-bit AdamW": {"lora_rank": 0, "weights": "bfloat16", "optim": "adamw_torch_8bit"},
        f"LoRA of rank {rank}": {"lora_rank": rank, "weights": "auto"},
        f"LoRA of rank {rank} on 8 bits": {"lora_rank": rank, "weights": "8bit"},
        f"LoRA of rank {rank} on 4 bits": {"lora_rank": rank, "weights": "4bit"},
    }
    return {name: changed for name, changed in ways.items() if any(getattr(grpo, key) != item for key, item in changed.items())}


def _memory(sizes: Architecture, params: Params, prompt: int, *, cards: int = 1, shared_prefix: bool = True) -> _Memory:
    """Bytes of one process, before anything is sharded."""
    grpo, width = params.grpo, BYTES[params.shared.dtype]
    group, length = grpo.num_generations, grpo.max_completion_length
    lora = _lora_parameters(sizes, grpo.lora_rank)
    whole = sizes.parameters()
    trained = lora or whole - (sizes.tower_parameters() if grpo.freeze_vision else 0)
    kept = BYTES[weights_dtype(grpo.weights, grpo.lora_rank, params.shared.dtype)]
    if lora:
        linear = sizes.linear_parameters() if grpo.weights in QUANTISED else 0
        weights = (whole - linear) * kept + linear * QUANTISED_BYTES.get(grpo.weights, kept) + 4 * lora
    else:
        weights = trained * kept + (whole - trained) * width
    learned = 4 if lora else kept  # bytes of a trained weight, and of its gradient
    prompts = max(1, grpo.prompts_per_step // cards)
    forward = min(grpo.groups_per_forward or prompts, prompts)
    packed, repeated = prompt - 1 + group * length, group * (prompt + length)
    tokens, copied = (packed, repeated) if shared_prefix else (repeated, 0)
    masters = not lora and kept > width
    activations = sizes.activation_bytes(tokens, width, grpo.gradient_checkpointing, copied, masters=masters)
    if masters and not grpo.gradient_checkpointing:  # the backward pass keeps the copies that it multiplies by
        activations += trained * width / forward
    if grpo.weights in QUANTISED:  # one matrix at a time is brought back to the type of computation
        activations += sizes.hidden * sizes.intermediate * width / forward
    together = max(1, min(prompts, ROLLOUT_TOKENS // prompt))  # prompts of a rollout call, as the trainer bounds them
    head = sizes.vocabulary * sizes.hidden
    return _Memory(
        weights=weights,
        reference=whole * width if grpo.beta > 0 and not lora else 0,
        optimizer=trained * _moment_bytes(grpo.optim, learned),
        gradients=trained * learned,
        casts=trained * width if masters else 0,
        activations=forward * activations,
        keys=together * sizes.key_bytes(prompt + group * length if shared_prefix else repeated, width),
        layer=max(sizes.linear_parameters() / sizes.layers, head) * width,
        model=whole * width,
    )


def _moment_bytes(optim: str, width: float) -> float:
    """Bytes that an optimizer keeps of a weight that has `width`: two moments, in 8 or 4 bits with a scale a block."""
    moments = 0 if optim == "sgd" else 1 if "lion" in optim else 2
    if "8bit" in optim:
        return moments * (1 + 4 / 256)
    return moments * (0.5 + 4 / 128) if "4bit" in optim else moments * width


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
    """Rollouts, reference, and policy with backward (twice the forward, and the forward again under checkpointing).

    What is sampled once is used `num_iterations` times, and is scored once more where the policy has moved on since.
    """
    grpo = params.grpo
    group, length, times = grpo.num_generations, grpo.max_completion_length, grpo.num_iterations
    copies = 1 if shared_prefix else group
    within, across = seen_pairs(prompt, length, group)
    rollout = sizes.text_flops(copies * prompt + group * length, copies * within + across, group * length)
    tower = copies * sizes.tower_flops(patches, frame)
    passes = 4 if grpo.gradient_checkpointing else 3
    old = times * grpo.updates_per_rollout > 1
    sampling = rollout * (1 + (grpo.beta > 0) + old)
    once = grpo.freeze_vision and shared_prefix
    seen = tower * (1 / times if once else (1 + (grpo.beta > 0) + old) / times + (1 if grpo.freeze_vision else passes))
    return grpo.prompts_per_step * (sampling / times + passes * rollout + seen)


def _step_seconds(sizes: Architecture, params: Params, prompt: int, tflop: float, card: Card, mfu: float) -> float:
    """Seconds of a step on one card: arithmetic at its share of the rate, and token after token of the rollouts.

    A decoding step reads all weights once and launches every layer's kernels, however few its completions are.
    """
    grpo = params.grpo
    calls = -(-grpo.prompts_per_step // max(1, min(grpo.prompts_per_step, ROLLOUT_TOKENS // prompt)))
    read = sizes.text_parameters() * BYTES[params.shared.dtype] / (card.bandwidth * 1e12)
    decode = calls * grpo.max_completion_length * max(read, sizes.layers * LAYER_S) / grpo.num_iterations
    return tflop / (card.tflops * mfu) + decode


def _training_steps(params: Params) -> int:
    """Steps of all epochs if no sample is filtered out; 0 where the number of samples is not in the params file."""
    grpo = params.grpo
    groups = grpo.prompts_per_step * grpo.updates_per_rollout
    an_epoch = max(1, params.difficulty.n // groups) * grpo.updates_per_rollout * grpo.num_iterations
    return grpo.epochs * (grpo.steps_per_epoch or (an_epoch if params.difficulty.n else 0))
