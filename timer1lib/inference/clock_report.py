"""`timer1 clock`: what a model is told about the time of each frame, read back from its own tokens and positions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from timer1lib.clock.frames import Frames, Sampling, choose_frames
from timer1lib.clock.told import Timestamps, patch_middles, told_times
from timer1lib.errors import Timer1Error
from timer1lib.files import safe_join
from timer1lib.models.config import temporal_geometry
from timer1lib.video.decode import Clip, choose_decoder, clip_frames, read_frames
from timer1lib.video.decoders import each_file
from timer1lib.video.probe import Timeline, timeline

if TYPE_CHECKING:
    from timer1lib.clock.rule import ClockRule
    from timer1lib.models.load import LoadedModel
    from timer1lib.schema import Sample

TEXT_ROUNDING_S = 0.05
"""A written `<12.4 seconds>` is off by this at most."""

MILLISECOND_S = 1.5e-3
"""Times are handed over as whole milliseconds."""

_TIMESTAMP = re.compile(r"<\s?(\d+(?:\.\d+)?) seconds>")


def clock_report(
    video: str | Path,
    model: str | Path | None = None,
    *,
    clip: Clip = (None, None),
    sampling: Sampling | None = None,
    clock_rule: ClockRule = "auto",
    timestamps: Timestamps = "auto",
    loaded: LoadedModel | None = None,
) -> dict[str, Any]:
    """Compare the true time of every sampled frame with the time that the model is told.

    No weights are read: the answer is in the processor's tokens and in the position ids of the rule in use.

    Args:
        model: a folder or a hub id; the shipped tiny model where it is left out.
        sampling: of a run; without it 2 frames a second, at most 768, at the model's smallest size.
        loaded: a model that is loaded already, in place of `model`, `clock_rule` and `timestamps`.

    Returns:
        `frames`: for each sampled frame `true_s`, `told_s`, `position` (temporal, of its patch), `error_s`;
        `max_error_s`; `limit_s`, above which a frame is warned about; `rule`; `warnings`; `video`, `model`,
        `family`, `duration_s`, `step_s`, `text_position`, `decoder`.

    Raises:
        Timer1Error: the video or the model cannot be read.
    """
    from timer1lib.models.load import load_clock
    from timer1lib.params.sections import SharedParams

    if loaded is None:
        loaded = load_clock(model if model is not None else SharedParams().model, clock_rule, timestamps)
    if sampling is None:
        factor = loaded.geometry.factor
        sampling = Sampling(min_frame_pixels=1, total_pixels=factor * factor, factor=factor)
    patch = loaded.geometry.temporal_patch
    frames = read_frames(video, sampling, clip, patch)
    told, position, after, jump = read_back(loaded, frames)
    errors = np.abs(told - frames.times_s)
    gaps = source_gaps(timeline(video), clip, frames.times_s)
    limit = error_limit(frames.times_s, frames.step_s, patch, loaded.geometry.tokens_per_second, gaps)
    rows = [
        {"true_s": round(float(t), 6), "told_s": round(float(s), 6), "position": int(p), "error_s": round(float(e), 6)}
        for t, s, p, e in zip(frames.times_s, told, position, errors, strict=True)
    ]
    return {
        "video": str(video),
        "model": loaded.name,
        "family": loaded.family.name,
        **{name: getattr(frames, name) for name in ("duration_s", "step_s", "decoder")},
        "frames": rows,
        "max_error_s": round(float(errors.max()), 6),
        "limit_s": round(float(limit.max()), 6),
        "text_position": after,
        "rule": loaded.rule.text,
        "warnings": _warnings(frames, told, errors, limit, position, after, jump, loaded),
    }


def read_back(loaded: LoadedModel, frames: Frames) -> tuple[NDArray[np.float64], NDArray[np.int64], int, tuple[int, int]]:
    """What the tokens and positions of an encoded video say about each frame.

    Returns:
        told seconds float64 [N], temporal positions int64 [N], the position of the first text after the video, and
        the position of the prompt's last token with that of the first generated one.

    Raises:
        Timer1Error: the tokens hold another number of time steps than the frames, or no timestamps where the family
            writes them.
    """
    from timer1lib.models.inputs import encode_prompt

    batch = encode_prompt(loaded, frames, "When does it happen?")
    core = loaded.model.model
    keys = ("input_ids", "mm_token_type_ids", "video_grid_thw", "second_per_grid_ts", "attention_mask")
    ids, deltas = core.get_rope_index(**{key: batch[key] for key in keys if key in batch})
    tokens = batch["input_ids"][0]
    places = np.flatnonzero((tokens == loaded.model.config.video_token_id).numpy())
    grids = batch["video_grid_thw"]
    steps = int(grids[:, 0].sum())
    height, width = grids[0, 1:].tolist()
    per_step = height * width // loaded.geometry.merge**2
    if steps != -(-len(frames) // loaded.geometry.temporal_patch) or len(places) != steps * per_step:
        raise Timer1Error(f"the processor made {steps} time steps of {len(frames)} frames; it sampled a second time")
    first = places[::per_step]
    temporal = ids[0, 0].numpy()
    patch = np.arange(len(frames)) // loaded.geometry.temporal_patch
    rate = loaded.geometry.tokens_per_second
    if rate is None:
        told = _text_times(loaded, tokens.tolist(), first, per_step)[patch]
    else:
        offset = patch_middles(frames.times_s, frames.step_s, loaded.geometry.temporal_patch) * frames.time_scale
        told = (temporal[first] - temporal[first[0]])[patch] / rate + offset
    text_after = int(ids[:, 0, places[-1] + 1].max())
    jump = (int(ids[:, 0, -1].max()), len(tokens) + int(deltas[0]))
    return told, temporal[first][patch].astype(np.int64), text_after, jump


def _text_times(loaded: LoadedModel, tokens: list[int], first: NDArray[np.int64], per_step: int) -> NDArray[np.float64]:
    """Seconds written before each time step, float64 [steps]."""
    told, before = [], 0
    for place in first.tolist():
        text = loaded.tokenizer.decode(tokens[before:place])
        stamps = _TIMESTAMP.findall(text)
        if not stamps:
            where = f"no timestamp stands before a frame ({text[-60:]!r})"
            raise Timer1Error(f"model {loaded.name!r}: {where}; the processor dropped it")
        told.append(float(stamps[-1]))
        before = place + per_step
    return np.array(told)


def source_gaps(line: Timeline, clip: Clip, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds from each sampled frame to the farther of its neighbours in the file, float64 [N]; 0 for a lone frame."""
    _, every, _ = clip_frames(line, clip)
    spacing = np.concatenate([[0.0], np.diff(every), [0.0]])
    at = np.clip(np.searchsorted(every, times_s - 1e-9), 0, len(every) - 1)
    return np.asarray(np.maximum(spacing[at], spacing[at + 1]), dtype=np.float64)


def error_limit(
    times_s: NDArray[np.float64], step_s: float, temporal_patch: int, tokens_per_second: float | None, gaps_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Seconds by which each frame may deviate without a warning, float64 [N].

    Two frames that share one time are half a step from it, that much is inherent. To that comes half of the frame's
    own time on screen where times are positions, on the even grid, and the rounding to a tenth where they are text, of
    the frames' own times. `gaps_s` float64 [N] is from `source_gaps`.
    """
    last = len(times_s) - 1
    patch = np.arange(len(times_s)) // temporal_patch
    spread = times_s[np.minimum((patch + 1) * temporal_patch - 1, last)] - times_s[patch * temporal_patch]
    if tokens_per_second is None:
        return np.asarray(np.maximum(step_s, spread) / 2 + TEXT_ROUNDING_S + MILLISECOND_S, dtype=np.float64)
    return np.asarray(step_s / 2 + gaps_s / 2 + MILLISECOND_S, dtype=np.float64)


def max_clock_error(
    samples: Iterable[Sample],
    root: str | Path,
    sampling: Sampling,
    model: str,
    timestamps: Timestamps = "auto",
    workers: int = 0,
) -> dict[str, Any]:
    """The largest clock error over a run's samples, from the files' timestamps, without decoding.

    Args:
        root: folder that `Sample.video` is relative to.
        model: folder or hub id, of which only `config.json` is read.
        workers: processes that read the files.

    Returns:
        `max_error_s` and the `id` of its sample (None for no readable sample), `over_limit`: how many of the samples
        have a frame that `timer1 clock` would warn about, `samples`, `failed`: reason by sample id, and `decoders`: how many
        files each decodes.
    """
    patch, rate = temporal_geometry(model, timestamps)
    result: dict[str, Any] = {"max_error_s": None, "id": None, "over_limit": 0, "samples": 0, "failed": {}}
    asked = list(samples)
    wanted = list(dict.fromkeys((s.video, s.video_start, s.video_end) for s in asked))
    known: dict[tuple[str, float | None, float | None], Any] = {}
    for key in wanted:
        try:
            known[key] = safe_join(root, key[0])
        except Timer1Error as error:
            known[key] = error
    inside = {key: path for key, path in known.items() if isinstance(path, Path)}
    files = [(path, [list(key[1:]), asdict(sampling), patch, rate]) for key, path in inside.items()]
    known |= zip(inside, each_file(f"{__name__}:{file_clock.__name__}", files, workers, "clocks read"), strict=True)
    decoders = {path: known[key][2] for key, path in inside.items() if not isinstance(known[key], Timer1Error)}
    for sample in asked:
        result["samples"] += 1
        answer = known[sample.video, sample.video_start, sample.video_end]
        if isinstance(answer, Timer1Error):
            result["failed"][sample.id] = str(answer)
            continue
        worst, over, _ = answer
        result["over_limit"] += over
        if result["max_error_s"] is None or worst > result["max_error_s"]:
            result["max_error_s"], result["id"] = worst, sample.id
    return {**result, "decoders": dict(sorted(Counter(decoders.values()).items()))}


def file_clock(path: str, asked: list[Any], sampled: dict[str, Any], patch: int, rate: float | None) -> tuple[float, bool, str]:
    """The largest error of a clip's frames in seconds, whether one is over its limit, and the file's decoder; for a worker."""
    clip, sampling = (asked[0], asked[1]), Sampling(**sampled)
    _, times, _ = clip_frames(timeline(path), clip)
    choice = choose_frames(times, sampling, patch)
    chosen = times[choice.indices]
    errors = np.abs(told_times(chosen, choice.step_s, patch, rate, sampling.time_scale) - chosen)
    limit = error_limit(chosen, choice.step_s, patch, rate, source_gaps(timeline(path), clip, chosen))
    return float(errors.max()), bool((errors > limit).any()), choose_decoder(path)


def _warnings(
    frames: Frames,
    told: NDArray[np.float64],
    errors: NDArray[np.float64],
    limit: NDArray[np.float64],
    position: NDArray[np.int64],
    after: int,
    jump: tuple[int, int],
    loaded: LoadedModel,
) -> list[str]:
    out = []
    rate = loaded.geometry.tokens_per_second
    over = np.flatnonzero(errors > limit)
    size = loaded.geometry.temporal_patch
    if rate is not None and len(over) and frames.step_s * size * rate % 1 > 1e-3:
        out.append(
            f"positions are whole multiples of {1 / rate:g} s and the time step is {frames.step_s * size:.3f} s, so steps are "
            f"cut to the position below; sampling by fps with {size} x {rate:g} / fps a whole number has no such error"
        )
    for i in over.tolist():
        seconds = f"true {frames.times_s[i]:.3f} s, told {told[i]:.3f} s"
        out.append(f"frame {i}: {seconds}, {errors[i]:.3f} s off, over the limit of {limit[i]:.3f} s")
    if after <= int(position.max()):
        out.append(f"text after the video is at position {after}, before the video's own {int(position.max())}")
    if jump[1] != jump[0] + 1:
        out.append(f"generated tokens jump: the prompt ends at position {jump[0]} and the next token has {jump[1]}")
    if loaded.rule.name == "installed" and not loaded.rule.agrees:
        out.append("the installed rule is forced, and it differs from the rule published with the model")
    if frames.time_scale != 1.0:
        out.append(f"told times are scaled by {frames.time_scale:g} on purpose (time_scale)")
    return out


def format_clock(report: dict[str, Any]) -> str:
    """The report as a table with its warnings, for a terminal."""
    lines = [
        f"{report['video']}: {report['duration_s']:.2f} s, a frame every {report['step_s']:.3f} s, by {report['decoder']}",
        f"{report['model']} ({report['family']}): {report['rule']}",
        "",
        "  frame     true s     told s   position    error s",
    ]
    for i, row in enumerate(report["frames"]):
        mark = "  <" if row["error_s"] > report["limit_s"] else ""
        lines.append(f"{i:7d}{row['true_s']:11.3f}{row['told_s']:11.3f}{row['position']:11d}{row['error_s']:11.3f}{mark}")
    lines += ["", f"text after the video goes on at position {report['text_position']}"]
    lines.append(f"largest error {report['max_error_s']:.3f} s (limit {report['limit_s']:.3f} s: half a frame step and rounding)")
    lines += [f"warning: {text}" for text in report["warnings"]] or ["no warnings"]
    return "\n".join(lines)
