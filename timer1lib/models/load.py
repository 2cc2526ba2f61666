"""Loading a model with its processor, its family and its clock."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from timer1lib.errors import Timer1Error
from timer1lib.extras import need
from timer1lib.files import read_json
from timer1lib.models.config import cached_config, family_of, model_source
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
    quantised: Literal["", "8bit", "4bit"] = "",
) -> LoadedModel:
    """Load a checkpoint of any family in `models.config.FAMILIES` in evaluation mode and install its position rule.

    Weights are read from safetensors only and no code of a checkpoint is ever run.

    Args:
        name_or_path: a folder (from here, or from the project's root) or a hub id.
        dtype: `float32`, `bfloat16` or `float64`.
        attention: `sdpa`, `eager` or `flash_attention_2`.
        device: `auto` takes a GPU where there is one.
        timestamps: how the model is told times (`Family.temporal_rate`).
        quantised: keep the text model's linear layers in 8 bits (LLM.int8(), arXiv 2208.07339) or 4 (NF4, QLoRA, arXiv
            2305.14314), with bitsandbytes; `dtype` is that of computation and of all other weights.

    Raises:
        Timer1Error: no such folder, a hub id that cannot be reached, another family, missing or broken files, no bitsandbytes.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForImageTextToText

    name = str(name_or_path)
    source, revision = _source(name)
    if dtype not in ("float32", "bfloat16", "float64"):
        raise Timer1Error(f"dtype {dtype!r}: use float32, bfloat16 or float64")
    target = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if target.startswith("cuda") and not torch.cuda.is_available():
        raise Timer1Error(f"device {device!r}: no CUDA GPU here; use auto or cpu")
    small = _quantisation(quantised, getattr(torch, dtype))
    more: dict[str, Any] = {"quantization_config": small, "device_map": {"": target}} if small else {}
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        family = family_of(config, name)
        geometry = family.geometry(config, name, timestamps)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            source, revision=revision, dtype=getattr(torch, dtype), attn_implementation=attention, trust_remote_code=False,
            use_safetensors=True, **more,
        )  # fmt: skip
        processor = load_processor(name)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        raise Timer1Error(f"model {name!r} cannot be loaded: {_one_line(error)}") from error
    model = (model if small else model.to(target)).eval()
    take_over(model, processor.tokenizer)
    rule = family.install_rule(model, clock_rule)
    return LoadedModel(model, processor, family, rule, name, geometry)


def load_shared(name_or_path: str | Path, shared: SharedParams, **changed: Any) -> LoadedModel:
    """`load_model` with a run's settings, some of them changed; errors as there."""
    same = ("dtype", "attention", "device", "clock_rule", "timestamps")
    return load_model(name_or_path, **{**{name: getattr(shared, name) for name in same}, **changed})


def _quantisation(bits: str, dtype: torch.dtype) -> Any:
    """What bitsandbytes is told; None for no bits. Tower, mergers and head stay as they are: the loss reads the head's."""
    if not bits:
        return None
    need("bnb", f"weights {bits}")
    from transformers import BitsAndBytesConfig

    untouched = [r".*\bvisual", "lm_head"]
    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=untouched)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=untouched,
    )  # fmt: skip


def load_clock(name_or_path: str | Path, clock_rule: ClockRule = "auto", timestamps: Timestamps = "auto") -> LoadedModel:
    """A model without its weights: configuration, processor and position rule, for questions about time; errors as there."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    name = str(name_or_path)
    source, revision = _source(name)
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        family = family_of(config, name)
        with torch.device("meta"):
            model: Any = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        raise Timer1Error(f"model {name!r} cannot be loaded: {_one_line(error)}") from error
    rule = family.install_rule(model.eval(), clock_rule)
    return LoadedModel(model, load_processor(name), family, rule, name, family.geometry(config, name, timestamps))


def load_processor(name_or_path: str | Path) -> Any:
    """The processor of a checkpoint, without its weights; Timer1Error where there is none or the hub cannot be reached."""
    from transformers import AutoProcessor

    source, revision = _source(str(name_or_path))
    try:
        return AutoProcessor.from_pretrained(source, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise Timer1Error(f"the processor of {str(name_or_path)!r} cannot be loaded: {_one_line(error)}") from error


def local_folder(name: str) -> str:
    """The folder of a model on this machine: its own, or the local hub cache's, where it was fetched (else its hub id)."""
    source, revision = model_source(name)
    cached = None if Path(source).is_dir() else cached_config(source, revision)
    return str(cached.parent) if cached else source


def _source(name: str) -> tuple[str, str | None]:
    """As `model_source`, and whether it can be read is found out at once."""
    source, revision = model_source(name)
    if Path(source).is_dir():
        read_json(Path(source) / "config.json")
    else:
        _check_hub(source, revision)
    return source, revision or "main"


def _check_hub(name: str, revision: str | None) -> None:
    """Refuse a hub id at once where it is not cached and the hub cannot be reached; the library tries for half a minute."""
    import socket
    from urllib.parse import urlsplit

    from huggingface_hub import constants

    if cached_config(name, revision) is not None:
        return
    host = urlsplit(constants.ENDPOINT).hostname or ""
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
    if not reason:
        try:
            socket.getaddrinfo(host, 443)
        except OSError:
            reason = f"{host} cannot be reached"
    if reason:
        at = f" (revision {revision})" if revision else ""
        raise Timer1Error(f"model {name!r}{at}: no such folder, not in the local hub cache, and {reason}")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) < 300 else text[:297] + "..."
