"""What a model's `config.json` says, read without loading anything heavy, and which family it is of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timer1lib.clock.frames import Sampling
from timer1lib.clock.told import Timestamps
from timer1lib.errors import Timer1Error, shown
from timer1lib.files import read_json, resolve
from timer1lib.models.architecture import Architecture
from timer1lib.models.family import Family
from timer1lib.models.qwen2_5_vl import Qwen25VL
from timer1lib.models.qwen3_vl import Qwen3VL

if TYPE_CHECKING:
    from torch import nn

    from timer1lib.params.sections import SharedParams

FAMILIES: dict[str, Family] = {family.name: family for family in (Qwen25VL(), Qwen3VL())}
"""By `model_type`. A model whose configuration is not at hand and whose name tells nothing counts as of the first."""

KNOWN: dict[str, Architecture] = {name: sizes for family in FAMILIES.values() for name, sizes in family.sizes.items()}
"""Sizes of the published models, by the start of the hub id's last part."""


def base_name(shared: SharedParams) -> str:
    """The base model's name as every function here takes it: a folder, a hub id, or `owner/name@revision`."""
    return f"{shared.model}@{shared.revision}" if shared.revision else shared.model


def model_source(name: str) -> tuple[str, str | None]:
    """What `from_pretrained` takes for a model's name: a folder that is there, or a hub id with its revision.

    The hub is not asked. Raises a Timer1Error for a folder without a model, and for a name that is neither.
    """
    folder = resolve(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise Timer1Error(f"model folder {folder}: no config.json in it; a Hugging Face checkpoint is expected")
        return str(folder), None
    hub_id, _, revision = name.partition("@")
    parts = hub_id.split("/")
    if len(parts) != 2 or not all(parts) or name.startswith((".", "~")) or folder.parent.is_dir():
        at = "; a revision is of a hub id, not of a folder" if revision and resolve(hub_id).is_dir() else ""
        raise Timer1Error(f"model {shown(name)}: no such folder with a config.json (a hub id is written owner/name){at}")
    return hub_id, revision or None


def cached_config(hub_id: str, revision: str | None) -> Path | None:
    """Where the local hub cache has a model's `config.json`, beside everything else that was fetched of it."""
    try:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(hub_id, "config.json", revision=revision)
    except (ImportError, ValueError):
        return None
    return Path(cached) if isinstance(cached, str) else None


def family_of(config: Any, name: str) -> Family:
    """The family of a configuration: Hugging Face's object or the content of a `config.json`; Timer1Error for another's."""
    kind = config.get("model_type") if isinstance(config, Mapping) else getattr(config, "model_type", None)
    if kind in FAMILIES:
        return FAMILIES[kind]
    raise Timer1Error(f"model {name!r} is of type {kind!r}; this project runs {' and '.join(FAMILIES)}")


def family_of_model(model: nn.Module) -> Family:
    """The family of a loaded model, wrapped (PEFT, DDP) or not, or of a vision tower; TypeError for none."""
    towers = {family.tower_type: family for family in reversed(FAMILIES.values())}
    for module in model.modules():
        kind = getattr(getattr(module, "config", None), "model_type", None)
        if kind in FAMILIES or kind in towers:
            return FAMILIES.get(kind) or towers[kind]
    titles = " or ".join(family.title for family in FAMILIES.values())
    raise TypeError(f"{type(model).__name__} has no vision tower of the {titles} kind")


def model_config(model: str) -> dict[str, Any]:
    """A model's `config.json` (Timer1Error if damaged) from its folder or the local hub cache; empty where it is not here."""
    path = _config_file(model)
    if path is None or not path.is_file():
        return {}
    config = read_json(path)
    if not isinstance(config, dict):
        raise Timer1Error(f"{path}: not the configuration of a model")
    return config


def temporal_rate(config: Mapping[str, Any], name: str, timestamps: Timestamps = "auto") -> float | None:
    """As `Family.temporal_rate`; where `config` is empty the name tells the family. Timer1Error for another architecture."""
    return _family(config, name).temporal_rate(config, name, timestamps)


def temporal_geometry(model: str, timestamps: Timestamps = "auto") -> tuple[int, float | None]:
    """Frames of a temporal patch, and `temporal_rate` (None where times are text), from `config.json` alone."""
    config = model_config(model)
    return int(config.get("vision_config", {}).get("temporal_patch_size", 2)), temporal_rate(config, model, timestamps)


def pixel_factor(model: str) -> int:
    """Patch size x spatial merge of a model.

    A hub id that is not in the local cache yet is answered by its family's name; `encode_prompt` fits frames of
    another size to the loaded model once, so that a wrong guess costs a resize and nothing else.
    """
    config = model_config(model)
    vision = config.get("vision_config", {})
    if "patch_size" in vision:
        return int(vision["patch_size"]) * int(vision.get("spatial_merge_size", 2))
    return _family(config, model).factor


MOST_FRAME_TOKENS = 768
"""Visual tokens of a frame pair at most, in the pipeline that these models were trained with (`VIDEO_MAX_TOKEN_NUM`)."""


def sampling_for(shared: SharedParams, model: str | None = None) -> Sampling:
    """The sampling of a params file, with frames cut to fit `model`, a folder or a hub id (`shared.model` without)."""
    same = {name: getattr(shared, name) for name in ("fps", "frames", "min_frame_pixels", "total_pixels", "time_scale")}
    factor = pixel_factor(model or base_name(shared))
    return Sampling(shared.sampling, factor=factor, max_frame_pixels=MOST_FRAME_TOKENS * factor**2, **same)


def family_of_name(name: str) -> Family:
    """The family that a hub id names; the first one where it names none."""
    return _family({}, name)


def known_sizes(model: str) -> Architecture | None:
    """Sizes of a hub id such as `Qwen/Qwen2.5-VL-7B-Instruct`; None for one that is not known here."""
    name = model.lower().partition("@")[0].rsplit("/", 1)[-1]
    return next((value for key, value in KNOWN.items() if name == key or name.startswith(key + "-")), None)


def architecture_of(model: str) -> Architecture:
    """Sizes of a model: from its folder or the local hub cache, else as published; Timer1Error where neither knows it."""
    config = model_config(model)
    if config:
        return family_of(config, model).architecture(config, model)
    sizes = known_sizes(model)
    if sizes is None:
        raise Timer1Error(f"model {model!r}: its config.json is not on this machine; fetch the model, or name a published size")
    return sizes


def _family(config: Mapping[str, Any], name: str) -> Family:
    """By the configuration, or by the name where there is none."""
    if config.get("model_type") is not None:
        return family_of(config, name)
    families = list(FAMILIES.values())
    return next((family for family in families if family.hub_mark in name.lower()), families[0])


def _config_file(model: str) -> Path | None:
    folder = resolve(model)
    if folder.is_dir():
        return folder / "config.json"
    hub_id, _, revision = model.partition("@")
    return cached_config(hub_id, revision or None)
