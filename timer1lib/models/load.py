"""Loading a model with its processor, its family and its clock."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timer1lib.errors import Timer1Error
from timer1lib.files import read_json, resolve
from timer1lib.models.config import family_of
from timer1lib.models.decoding import take_over
from timer1lib.models.family import Family, Geometry

if TYPE_CHECKING:
    import torch

    from timer1lib.clock.rule import ClockRule, RuleInUse
    from timer1lib.clock.told import Timestamps
    from timer1lib.params.sections import SharedParams

log = logging.getLogger(__name__)


@dataclass(slots=True)
class LoadedModel:
    """A model ready to run. `name` is the folder or hub id it came from."""

    model: Any
    processor: Any
    family: Family
    rule: RuleInUse
    name: str
    geometry: Geometry

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @property
    def interleaves(self) -> bool:
        """Whether each frame pair is shown as a video of its own, its time written before it by us."""
        return self.family.interleaves(self.geometry)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device  # type: ignore[no-any-return]


def load_model(
    name_or_path: str | Path,
    *,
    dtype: str = "float32",
    attention: str = "sdpa",
    device: str = "auto",
    clock_rule: ClockRule = "auto",
    timestamps: Timestamps = "auto",
) -> LoadedModel:
    """Load a checkpoint of any family in `models.config.FAMILIES` in evaluation mode and install its position rule.

    Weights are read from safetensors only and no code of a checkpoint is ever run.

    Args:
        name_or_path: a folder (from here, or from the project's root) or a hub id.
        dtype: `float32`, `bfloat16` or `float64`.
        attention: `sdpa`, `eager` or `flash_attention_2`.
        device: `auto` takes a GPU where there is one.
        timestamps: how the model is told times (`Family.temporal_rate`).

    Raises:
        Timer1Error: no such folder, a hub id that cannot be reached, another family, missing or broken files.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForImageTextToText

    name = str(name_or_path)
    source = _source(name)
    if dtype not in ("float32", "bfloat16", "float64"):
        raise Timer1Error(f"dtype {dtype!r}: use float32, bfloat16 or float64")
    target = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if target.startswith("cuda") and not torch.cuda.is_available():
        raise Timer1Error(f"device {device!r}: no CUDA GPU here; use auto or cpu")
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        family = family_of(config, name)
        geometry = family.geometry(config, name, timestamps)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            source, dtype=getattr(torch, dtype), attn_implementation=attention, trust_remote_code=False, use_safetensors=True
        )
        processor = load_processor(source)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        raise Timer1Error(f"model {name!r} cannot be loaded: {_one_line(error)}") from error
    model = model.to(target).eval()
    take_over(model, processor.tokenizer)
    rule = family.install_rule(model, clock_rule)
    return LoadedModel(model, processor, family, rule, name, geometry)


def load_shared(name_or_path: str | Path, shared: SharedParams) -> LoadedModel:
    """`load_model` with a run's settings; errors as there."""
    same = ("dtype", "attention", "device", "clock_rule", "timestamps")
    return load_model(name_or_path, **{name: getattr(shared, name) for name in same})


def load_clock(name_or_path: str | Path, clock_rule: ClockRule = "auto", timestamps: Timestamps = "auto") -> LoadedModel:
    """A model without its weights: configuration, processor and position rule, for questions about time; errors as there."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    name = str(name_or_path)
    source = _source(name)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        family = family_of(config, name)
        with torch.device("meta"):
            model: Any = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        raise Timer1Error(f"model {name!r} cannot be loaded: {_one_line(error)}") from error
    rule = family.install_rule(model.eval(), clock_rule)
    return LoadedModel(model, load_processor(source), family, rule, name, family.geometry(config, name, timestamps))


def load_processor(name_or_path: str | Path) -> Any:
    """The processor of a checkpoint, without its weights; Timer1Error where there is none or the hub cannot be reached."""
    from transformers import AutoProcessor

    source = _source(str(name_or_path))
    try:
        return AutoProcessor.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise Timer1Error(f"the processor of {str(name_or_path)!r} cannot be loaded: {_one_line(error)}") from error


def _source(name: str) -> str:
    """A folder that exists, or a hub id; anything else is an error before a network is asked."""
    folder = resolve(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise Timer1Error(f"model folder {folder}: no config.json in it; a Hugging Face checkpoint is expected")
        read_json(folder / "config.json")
        return str(folder)
    parts = name.split("/")
    looks_like_id = len(parts) == 2 and all(parts) and not name.startswith((".", "~")) and not folder.parent.is_dir()
    if not looks_like_id:
        raise Timer1Error(f"model {name!r}: no such folder (and a hub id is written owner/name)")
    _check_hub(name)
    return name


def _check_hub(name: str) -> None:
    """Refuse a hub id at once where it is not cached and the hub cannot be reached; the library tries for half a minute."""
    import socket
    from urllib.parse import urlsplit

    from huggingface_hub import constants, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    host = urlsplit(constants.ENDPOINT).hostname or ""
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
    if not reason:
        try:
            socket.getaddrinfo(host, 443)
        except OSError:
            reason = f"{host} cannot be reached"
    if reason:
        raise Timer1Error(f"model {name!r}: no such folder, not in the local hub cache, and {reason}")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) < 300 else text[:297] + "..."
