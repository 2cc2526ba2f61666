"""What a GRPO step costs on the plain path (as trl's trainer goes: prompt and video for every completion) and on ours.

    python benchmarks/grpo_step.py                                        the table
    python benchmarks/grpo_step.py --prompt 2082 --completion 32 --json   one row
    python benchmarks/grpo_step.py --preset qwen2.5-vl-7b                 on a GPU, random bfloat16 weights

Both paths run in one process, turn about, medians of `--repeats`. A row is one prompt with G completions: the rollouts
(prompt read and C tokens sampled), scoring with backward, and the whole step: rollouts, scoring, backward and an
optimizer step. The vision tower is frozen and its merger trains; the plain path runs the tower for every copy of the
video, ours once a step. Peak memory is what the process held above its level before the phase (resident memory,
sampled every 5 ms; on a GPU the allocator's own peak).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from timer1lib.models import rollouts, shared_attention
from timer1lib.models.architecture import Architecture
from timer1lib.models.config import KNOWN
from timer1lib.models.encoded import EncodedPrompt, encode
from timer1lib.models.fast_vision import speed_up_vision
from timer1lib.models.features import accept_features, tower_features
from timer1lib.training.common import freeze_vision_tower
from timer1lib.training.video_grpo import repeated, shared_prefix

PROMPTS, COMPLETIONS = (290, 1058, 2082), (32, 128)
VOCAB = 512
IMAGE, VIDEO, START, END, PAD, EOS = 500, 501, 502, 503, 504, 505
TEXT_TOKENS = 34
"""Beside the visual tokens: 290 = 256 + 34, 1058 = 1024 + 34, 2082 = 2048 + 34."""
H100_TFLOPS = 989.0
"""Dense bfloat16 rate of an H100 SXM; an H200 has the same."""


@dataclass
class Setting:
    """A model on both paths and the memory meter of its device."""

    plain: Any
    fast: Any
    peak: Callable[[], Any]
    device: str
    clock: Callable[[], float] = time.perf_counter


def small_model(seed: int = 0) -> Any:
    """Qwen2.5-VL classes: 6 layers of 256, grouped heads, a tower of 4 layers of 64."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(seed)
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}
    text = {
        "vocab_size": VOCAB, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 4,
        "num_key_value_heads": 2, "rope_parameters": rope, "pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": None,
    }  # fmt: skip
    vision = {
        "depth": 4, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "patch_size": 14, "window_size": 112,
        "out_hidden_size": 256, "fullatt_block_indexes": [1, 3], "tokens_per_second": 2, "in_channels": 3,
    }  # fmt: skip
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **special(IMAGE, VIDEO, START, END))
    return Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="sdpa")


def published_model(name: str) -> Any:
    """A model of a published size with random bfloat16 weights, made on the GPU."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen3VLConfig, Qwen3VLForConditionalGeneration

    size = KNOWN[name]
    text: dict[str, Any] = {
        "vocab_size": size.vocabulary, "hidden_size": size.hidden, "intermediate_size": size.intermediate,
        "num_hidden_layers": size.layers, "num_attention_heads": size.heads, "num_key_value_heads": size.key_heads,
        "pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": None,
    }  # fmt: skip
    vision: dict[str, Any] = {
        "depth": size.vision_layers, "hidden_size": size.vision_hidden, "intermediate_size": size.vision_intermediate,
        "num_heads": 16, "patch_size": size.patch, "out_hidden_size": size.hidden,
    }  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    common: dict[str, Any] = {"tie_word_embeddings": size.tied, **special(IMAGE, VIDEO, START, END)}
    if size.qwen3:
        rope = {**rope, "mrope_section": [24, 20, 20], "mrope_interleaved": True}
        text |= {"head_dim": 128, "rope_parameters": rope}
        config: Any = Qwen3VLConfig(text_config=text, vision_config=vision, **common)
        cls: Any = Qwen3VLForConditionalGeneration
    else:
        vision |= {"window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2, "in_channels": 3}
        config = Qwen2_5_VLConfig(text_config={**text, "rope_parameters": rope}, vision_config=vision, **common)
        cls = Qwen2_5_VLForConditionalGeneration
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            return cls._from_config(config, attn_implementation="sdpa")
    finally:
        torch.set_default_dtype(torch.float32)


def special(image: int, video: int, start: int, end: int) -> dict[str, int]:
    return {"image_token_id": image, "video_token_id": video, "vision_start_token_id": start, "vision_end_token_id": end}


def prepare(model: Any, *, fast: bool, checkpointing: bool) -> Any:
    """As the trainers have it: trl's head, the tower frozen but for its mergers; ours with its hooks."""
    from trl.trainer.utils import add_fused_lm_head

    freeze_vision_tower(model)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    model.generation_config.pad_token_id = PAD
    if fast:
        shared_prefix.watch_backbone(model)
        shared_attention.install(model)
        accept_features(speed_up_vision(model))
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def prompt_of(model: Any, tokens: int, side: int = 8) -> dict[str, Any]:
    """A random video of (tokens - text) visual tokens, `side` x `side` tokens a frame pair, and random words."""
    generator = torch.Generator().manual_seed(1)
    config, vision = model.config, model.config.vision_config
    visual = tokens - TEXT_TOKENS
    steps = visual // side**2
    words = torch.randint(0, IMAGE, (tokens - steps * side**2 - 2,), generator=generator).tolist()
    ids = torch.tensor([[*words[:8], START, *[VIDEO] * (steps * side**2), END, *words[8:]]])
    patches = steps * (2 * side) ** 2
    width = 3 * vision.temporal_patch_size * vision.patch_size**2
    prompt = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == VIDEO).int() * 2,
        "pixel_values_videos": torch.randn(patches, width, generator=generator).to(model.dtype),
        "video_grid_thw": torch.tensor([[steps, 2 * side, 2 * side]]),
    }
    if config.model_type == "qwen2_5_vl":
        prompt["second_per_grid_ts"] = torch.tensor([1.0])
    else:  # a frame pair a run of tokens, as Qwen3-VL's positions want it
        frames: list[int] = []
        for step in range(steps):
            frames += [words[step % len(words)], START, *[VIDEO] * side**2, END]
        ids = torch.tensor([[*words[:4], *frames, *words[4 : max(5, tokens - len(frames))]]])
        prompt |= {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": (ids == VIDEO).int() * 2}
    return prompt


class Run:
    """One prompt and its group on one path, phase by phase."""

    def __init__(self, model: Any, raw: dict[str, Any], group: int, length: int, *, fast: bool) -> None:
        self.model, self.raw, self.group, self.length, self.fast = model, raw, group, length, fast
        self.options = {
            "max_new_tokens": length, "do_sample": True, "temperature": 1.0, "top_k": 0, "eos_token_id": None,
            "pad_token_id": PAD, "suppress_tokens": list(range(IMAGE, EOS + 1)),
        }  # fmt: skip
        generator = torch.Generator().manual_seed(2)
        self.tokens = torch.randint(0, IMAGE, (1, group, length), generator=generator).to(model.device)
        self.weights = torch.linspace(-1, 1, group, device=model.device)[None, :, None]
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(trained, lr=0.0)  # no state: the same on both paths, and nothing to the point

    def encoded(self) -> EncodedPrompt:
        prompt = encode(self.model, self.raw, "0")
        if self.fast:
            prompt.video = tower_features(self.model, prompt.video, prompt.grid)  # type: ignore[arg-type]
        return prompt

    def rollout(self, prompt: EncodedPrompt | None = None) -> torch.Tensor:
        prompt = prompt or self.encoded()
        if self.fast:
            return rollouts.generate(self.model, [prompt], self.group, self.options, PAD, [3])
        from transformers import GenerationConfig

        config = GenerationConfig(**self.options, disable_compile=True)
        checkpointed = self.model.is_gradient_checkpointing
        if checkpointed:
            self.model.gradient_checkpointing_disable()
        with torch.no_grad():
            out = repeated.generate(self.model, [prompt], self.group, config, PAD, 3)
        if checkpointed:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        return out

    def score_backward(self, prompt: EncodedPrompt | None = None) -> None:
        prompt = prompt or self.encoded()
        mask = torch.ones_like(self.tokens)
        if self.fast:
            logps, _ = shared_prefix.score(self.model, [prompt], self.tokens, mask, PAD)
        else:
            logps, _ = repeated.score(self.model, self.model, [prompt], self.tokens, mask, PAD)
        (self.weights * logps).mean().backward()

    def step(self) -> None:
        prompt = self.encoded()
        self.rollout(prompt)
        self.score_backward(prompt)
        self.optimizer.step()

    def forget(self) -> None:
        """Drop the gradients, between two measurements."""
        self.optimizer.zero_grad(set_to_none=True)


@contextmanager
def resident_peak() -> Iterator[list[float]]:
    """Largest resident memory in MB above the level at the start, as the only item once the block is left."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # what the phase before freed must not hide what this one takes
    page, result, stop = os.sysconf("SC_PAGE_SIZE") / 2**20, [0.0], threading.Event()

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * page

    before = resident()

    def watch() -> None:
        while not stop.wait(0.005):
            result[0] = max(result[0], resident() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield result
    finally:
        result[0] = max(result[0], resident() - before)
        stop.set()
        thread.join()


@contextmanager
def gpu_peak() -> Iterator[list[float]]:
    """The allocator's peak in MB above the level at the start."""
    torch.cuda.synchronize()
    before, result = torch.cuda.memory_allocated(), [0.0]
    torch.cuda.reset_peak_memory_stats()
    yield result
    torch.cuda.synchronize()
    result[0] = (torch.cuda.max_memory_allocated() - before) / 2**20


def measured(setting: Setting, prompt_tokens: int, length: int, group: int, repeats: int, phases: list[str]) -> dict[str, Any]:
    """One row: seconds and MB of each phase on both paths, turn about."""
    row: dict[str, Any] = {"P": prompt_tokens, "C": length, "G": group}
    runs = {
        name: Run(model, prompt_of(model, prompt_tokens), group, length, fast=name == "fast")
        for name, model in (("plain", setting.plain), ("fast", setting.fast))
        if model is not None
    }
    row["P"] = next(iter(runs.values())).raw["input_ids"].shape[1]
    for phase in phases:
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        peaks: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(repeats + 1):
            for name, run in runs.items():
                gc.collect()
                with setting.peak() as peak:
                    started = setting.clock()
                    getattr(run, phase)()
                    if setting.device == "cuda":
                        torch.cuda.synchronize()
                    elapsed = setting.clock() - started
                run.forget()
                if turn:  # the first turn warms up
                    seconds[name].append(elapsed)
                    peaks[name].append(peak[0])
        row[phase] = {
            f"{name}_{key}": statistics.median(values)
            for name in runs
            for key, values in (("s", seconds[name]), ("peak_mb", peaks[name]))
        }
    return row


def table(rows: list[dict[str, Any]], phases: list[str]) -> str:
    head = "| P, C | phase | plain s | ours s | faster | plain MB | ours MB | memory |\n|---|---|---|---|---|---|---|---|\n"
    lines = []
    for row in rows:
        for phase in phases:
            v = row[phase]
            lines.append(
                f"| {row['P']}, {row['C']} | {phase.replace('_', ' + ')} | {v['plain_s']:.2f} | {v['fast_s']:.2f} | "
                f"{v['plain_s'] / v['fast_s']:.1f}x | {v['plain_peak_mb']:.0f} | {v['fast_peak_mb']:.0f} | "
                f"1/{v['plain_peak_mb'] / max(v['fast_peak_mb'], 1):.1f} |"
            )
    return head + "\n".join(lines)


def gpu_report(row: dict[str, Any], sizes: Architecture, phases: list[str]) -> str:
    """Seconds, memory, tokens a second, and the share of the card's matrix rate that the needed arithmetic makes."""
    from timer1lib.training.estimate import seen_pairs

    prompt, length, group = row["P"], row["C"], row["G"]
    within, across = seen_pairs(prompt, length, group)
    lines = [torch.cuda.get_device_name()]
    for phase in phases:
        for name in ("plain", "fast"):
            if f"{name}_s" not in row[phase]:
                continue
            copies = 1 if name == "fast" else group
            once = sizes.text_flops(copies * prompt + group * length, copies * within + across, group * length)
            passes = {"rollout": 1, "score_backward": 4, "step": 5}[phase]
            seconds = row[phase][f"{name}_s"]
            share = passes * once / seconds / 1e12 / H100_TFLOPS
            lines.append(
                f"{phase:15} {name:6} {seconds:8.2f} s {row[phase][f'{name}_peak_mb'] / 1000:7.1f} GB "
                f"{group * length / seconds:8.0f} completion tokens/s  {share:6.1%} of the matrix rate"
            )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, help="prompt tokens P; all of 290, 1058, 2082 where left out (3700 with --preset)")
    parser.add_argument("--completion", type=int, help="completion tokens C; 32 and 128 where left out (200 with --preset)")
    parser.add_argument("--group", type=int, default=8, help="completions G")
    parser.add_argument("--repeats", type=int, default=3, help="measured turns; medians are reported")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch; 0 leaves its choice")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing (always on with --preset)")
    parser.add_argument("--preset", choices=sorted(KNOWN), help="a published size with random bfloat16 weights, on a GPU")
    parser.add_argument("--only", choices=("plain", "fast"), help="one path alone, where both do not fit")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of CPU instead of wall, for a shared machine")
    parser.add_argument("--json", action="store_true", help="JSON alone on standard output")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    phases = ["rollout", "score_backward", "step"]
    checkpointing = options.checkpointing or options.preset is not None
    if options.preset:
        if not torch.cuda.is_available():
            parser.error(f"--preset {options.preset} needs a GPU; `timer1 estimate` does the arithmetic without one")
        # One copy of the weights for both paths: two do not fit a card. The plain path has the faster tower, too.
        model = prepare(published_model(options.preset), fast=True, checkpointing=checkpointing)
        setting = Setting(None if options.only == "fast" else model, None if options.only == "plain" else model, gpu_peak, "cuda")
        prompts, completions = [options.prompt or 3700], [options.completion or 200]
    else:
        plain = None if options.only == "fast" else prepare(small_model(), fast=False, checkpointing=checkpointing)
        fast = None if options.only == "plain" else prepare(small_model(), fast=True, checkpointing=checkpointing)
        setting = Setting(plain, fast, resident_peak, "cpu")
        prompts = [options.prompt] if options.prompt else list(PROMPTS)
        completions = [options.completion] if options.completion else list(COMPLETIONS)
    if options.cpu_time:
        setting.clock = time.process_time
    rows = []
    for prompt in prompts:
        for completion in completions:
            row = measured(setting, prompt, completion, options.group, options.repeats, phases)
            rows.append(row)
            sys.stderr.write(f"P {row['P']}, C {completion} measured\n")
    if options.json:
        sys.stdout.write(json.dumps(rows[0] if len(rows) == 1 else rows) + "\n")
    elif options.preset:
        sys.stdout.write(gpu_report(rows[0], KNOWN[options.preset], phases) + "\n")
    elif options.only:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    else:
        sys.stdout.write(table(rows, phases) + "\n")


if __name__ == "__main__":
    main()
