"""A stand-in for a model that is not paid for yet: its class, processor, chat template and special tokens, at a tiny size.

It lies as the published folder does: `config.json`, `preprocessor_config.json` and `chat_template.json` in their original
layout, weights in several safetensors files, a `generation_config.json` that asks for a repetition penalty. It is taught to
write answers of the recipe's form, so that rewards differ and samples survive filters; what it answers means nothing.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_json, read_json
from timer1lib.forms import AnswerForm
from timer1lib.models.config import base_name, family_of, family_of_name, known_sizes
from timer1lib.models.load import load_model, local_folder
from timer1lib.schema import Sample, Window

if TYPE_CHECKING:
    from timer1lib.models.load import LoadedModel
    from timer1lib.params.sections import SharedParams

PROCESSOR = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
TEMPLATE = ("chat_template.json", "chat_template.jinja")
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
SHARD = "150KB"
STEPS, RATE = 60, 4e-3
SHORT_ANSWERS = (
    "{start} - {end} seconds",
    "<answer>{start} to {end}</answer>",
    "<think>seen</think><answer>{start} to {end}</answer>",
    "<think>seen</think> <time>[{start}, {end}]</time>",
)
"""What a stand-in is taught where the recipe's form takes it: the shortest text of that form."""


@dataclass(frozen=True, slots=True)
class StandIn:
    """A stand-in's folder, what of it is the model's own, and the tokens of its longest answer."""

    folder: Path
    told: list[str]
    answer_tokens: int


def short_answer(form: AnswerForm, sample: Sample, window: Window) -> str:
    """The shortest text that a form reads as `window` (seconds) and accepts; empty where none of ours is."""
    start, end = (f"{edge:.{form.decimals}f}" for edge in window)
    written = [text.format(start=start, end=end) for text in SHORT_ANSWERS]
    written += [form.write(sample, window)] if form.written else []
    form = form.of_sample(sample, grounded=False)
    good = [text for text in written if form.fits(text) and form.span(text) == (float(start), float(end))]
    return min(good, key=len, default="")


def lesson_window(sample: Sample) -> Window:
    """A window in the middle of a video: it meets most true ones, and is few of them."""
    length = sample.duration or max((end for _, end in sample.windows), default=10.0)
    return round(0.2 * length, 1), round(0.75 * length, 1)


def build_stand_in(folder: Path, shared: SharedParams, form: AnswerForm, samples: Sequence[Sample], seed: int) -> StandIn:
    """Write the stand-in of `shared.model` to an empty folder, taught on what `form` asks about `samples`.

    Raises:
        Timer1Error: the model's own files are broken, or of another family.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    answers = {sample.id: short_answer(form, sample, lesson_window(sample)) for sample in samples if not sample.is_question}
    texts = [form.ask(sample.query, sample.duration, sample.options).text for sample in samples] + list(answers.values())
    texts += [form.write(sample, lesson_window(sample)) for sample in samples if form.written and not sample.is_question]
    config, told = _small_files(
        folder, base_name(shared), sorted({word for text in texts for word in re.findall("[A-Za-z]+", text)})
    )
    try:
        decoding = (folder / "generation_config.json").read_bytes()
        torch.manual_seed(seed)
        built = AutoConfig.from_pretrained(folder)
        model: Any = AutoModelForImageTextToText.from_config(built, dtype=torch.float32)
        model.save_pretrained(folder, max_shard_size=SHARD)
        loaded = _load(folder, shared)
        taught = _teach(loaded, form, [sample for sample in samples if answers.get(sample.id)], answers, seed)
    except Exception as error:  # of the files' content; the libraries raise many kinds, one of them a bare Exception
        why = " ".join(str(error).split())[:300]
        raise Timer1Error(f"model {shared.model!r}: no stand-in can be made of its files: {why}") from error
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    loaded.model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=SHARD)
    # The library writes both in its newest layout.
    atomic_write_json(folder / "config.json", config)
    (folder / "generation_config.json").write_bytes(decoding)
    return StandIn(folder, told, taught)


def _small_files(folder: Path, model: str, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Write configuration, processor, tokenizer and generation settings; the configuration, and whose everything is."""
    there = Path(local_folder(model))
    home = there if there.is_dir() else None
    config = read_json(home / "config.json") if home else {}
    family = family_of(config, model) if config else family_of_name(model)
    published, special = family.published()
    where = f"here ({home})" if home else "not here"
    told = [f"{model} is {where}"]
    if not config:
        config, sizes = published["config.json"], known_sizes(model)
        if sizes is not None and sizes.tied:
            config["tie_word_embeddings"] = True
        told.append(f"its configuration is what is known of {family.title}")
    config = family.shrunk(config)

    def take(names: Sequence[str], what: str) -> bool:
        mine = [name for name in names if home and (home / name).is_file()]
        for name in mine:
            shutil.copyfile(home / name, folder / name)  # type: ignore[operator]
        known = [] if mine else [name for name in names if name in published]
        for name in known:
            atomic_write_json(folder / name, published[name])
        if mine or known:
            told.append(f"its {what} {'is its own' if mine else f'is what is known of {family.title}'}")
        return bool(mine)

    take(PROCESSOR, "processor")
    take(TEMPLATE, "chat template")
    take(("generation_config.json",), "decoding default")
    text = config.get("text_config", config)
    if home and (home / "tokenizer.json").is_file() and take(TOKENIZER, "vocabulary"):
        atomic_write_json(folder / "config.json", config)
        return config, told
    from timer1lib.world.base.tiny import build_tokenizer

    tokenizer = build_tokenizer(words, special)
    tokenizer.save_pretrained(folder)
    text["vocab_size"] = -(-len(tokenizer) // 64) * 64
    ids = {name: int(tokenizer.convert_tokens_to_ids(name)) for name in special}
    roles = {"bos": "endoftext", "pad": "endoftext", "eos": "im_end", "image": "image_pad", "video": "video_pad"}
    roles |= {"vision": "vision_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    for part in (config, text):
        part |= {f"{role}_token_id": ids[f"<|{name}|>"] for role, name in roles.items() if f"{role}_token_id" in part}
    atomic_write_json(folder / "config.json", config)
    path = folder / "generation_config.json"
    decoding = read_json(path) if path.is_file() else {}
    decoding |= {"eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]], "pad_token_id": ids["<|endoftext|>"]}
    atomic_write_json(path, decoding | ({"bos_token_id": ids["<|endoftext|>"]} if "bos_token_id" in decoding else {}))
    told.append(f"its vocabulary is a stand-in of {len(tokenizer):,} tokens with the same {len(special)} special tokens")
    return config, told


def _load(folder: Path, shared: SharedParams) -> LoadedModel:
    return load_model(folder, device="cpu", clock_rule=shared.clock_rule, timestamps=shared.timestamps)


def _teach(loaded: LoadedModel, form: AnswerForm, samples: Sequence[Sample], answers: dict[str, str], seed: int) -> int:
    """Teach the answers on noise in place of videos; the tokens of the longest answer, 32 where there is none to teach."""
    import numpy as np
    import torch

    from timer1lib.clock.frames import Frames
    from timer1lib.models.inputs import encode_prompt

    if not samples:
        return 32
    rng, side = np.random.default_rng(seed), 2 * loaded.geometry.factor
    noise = Frames(rng.integers(0, 256, (4, side, side, 3), dtype=np.uint8), np.arange(4, dtype=np.float64), 4.0, 1.0, "noise")
    rows = [encode_prompt(loaded, noise, form.ask(s.query, s.duration), answers[s.id]) for s in samples]
    model = loaded.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 10, (STEPS - step) / 20)
        optimizer.zero_grad(set_to_none=True)
        model(**rows[step % len(rows)]).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    return max(int((row["labels"] >= 0).sum()) for row in rows)


def into_hub_cache(folder: Path, hub: Path, name: str, revision: str, digest: str) -> None:
    """Put a model's folder where the hub's own client keeps what it fetched under a hub id, and at a revision."""
    commit = revision if re.fullmatch("[0-9a-f]{40}", revision) else digest[:40]
    home = hub / f"models--{name.replace('/', '--')}"
    shutil.rmtree(home, ignore_errors=True)
    (home / "refs").mkdir(parents=True)
    for ref in {"main", revision or "main"} - {commit}:
        (home / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (home / "refs" / ref).write_text(commit)
    (home / "snapshots").mkdir()
    shutil.copytree(folder, home / "snapshots" / commit)
