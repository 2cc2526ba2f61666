"""What a frozen vision tower makes of a video, computed once and kept: in memory, and on disk across epochs and runs.

Kept is the tower's output before the merger (and before Qwen3-VL's deepstack mergers), in the order of the patches,
Qwen2.5-VL's window permutation undone. So the mergers may still be trained. `accept_features` lets an unmodified
Hugging Face model take such features in the place of pixels: a call with features of shape (patches, 1, width) runs
the mergers alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import types
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from timer1lib.files import atomic_write_bytes
from timer1lib.models.fast_vision import vision_tower

logger = logging.getLogger(__name__)

_MARK = "_timer1_accepts_features"
PATCHES_A_CALL = 65_536
"""Patches that the tower is given in one call at most, where they are of several videos."""


def mergers(tower: Any) -> list[nn.Module]:
    """The tower's merger and then its deepstack mergers."""
    return [tower.merger, *getattr(tower, "deepstack_merger_list", [])]


def tower_is_frozen(model: nn.Module) -> bool:
    """Whether nothing of the tower but its mergers is trained, so that features before the mergers stay valid."""
    tower = vision_tower(model)
    heads = {id(p) for merger in mergers(tower) for p in merger.parameters()}
    return not any(p.requires_grad and id(p) not in heads for p in tower.parameters())


def tower_hash(model: nn.Module) -> str:
    """Hash of the tower's weights, mergers left out, with its configuration and number type."""
    tower: Any = vision_tower(model)
    heads = {id(p) for merger in mergers(tower) for p in merger.parameters()}
    digest = hashlib.blake2b(json.dumps(_shape_of(tower), sort_keys=True).encode(), digest_size=16)
    for name, parameter in sorted(tower.named_parameters()):
        if id(parameter) not in heads:
            digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
            digest.update(_bytes(parameter.detach()))
    return digest.hexdigest()


def pixels_key(pixels: Tensor, grid: Tensor) -> str:
    """Key of a video by what the tower is given: it changes with the file's content and with the sampling."""
    digest = hashlib.blake2b(repr((grid.tolist(), tuple(pixels.shape), str(pixels.dtype))).encode(), digest_size=16)
    digest.update(_bytes(pixels))
    return digest.hexdigest()


@torch.no_grad()
def tower_features(model: nn.Module, pixels: Tensor, grid: Tensor) -> Tensor:
    """Run the tower up to its mergers.

    Args:
        pixels: (patches, channels * temporal patch * patch * patch).
        grid: (videos, 3).

    Returns:
        (patches, 1, hidden * (1 + deepstack taps)): the last layer's output, then the taps'.
    """
    tower: Any = vision_tower(model)
    taps: dict[int, Tensor] = {}
    heads = mergers(tower)

    def keep(index: int) -> Any:
        return lambda _, args: taps.__setitem__(index, args[0])

    hooks = [merger.register_forward_pre_hook(keep(i)) for i, merger in enumerate(heads)]
    try:
        tower(pixels.to(tower.dtype), grid_thw=grid)
    finally:
        for hook in hooks:
            hook.remove()
    features = torch.cat([taps[i] for i in range(len(heads))], dim=-1)
    if hasattr(tower, "window_size"):
        from transformers.vision_utils import get_vision_window_index

        merge = tower.spatial_merge_size
        order, _ = get_vision_window_index(
            grid, spatial_merge_size=merge, window_size=tower.window_size, patch_size=tower.patch_size
        )
        blocks = features.view(-1, merge * merge, features.shape[-1])
        features = blocks[torch.argsort(order)].reshape(features.shape)
    return features[:, None, :]


def accept_features(model: nn.Module) -> nn.Module:
    """Let `model` take features of `tower_features` wherever it takes `pixel_values_videos`; twice is once.

    Returns:
        The same model. Its classes, weights and configuration are untouched, and pixels are taken as before.
    """
    tower: Any = vision_tower(model)
    if not getattr(tower, _MARK, False):
        setattr(tower, _MARK, True)
        tower.forward = types.MethodType(_forward, tower)
    return model


def _forward(self: Any, hidden_states: Tensor, grid_thw: Tensor, **kwargs: Any) -> Any:
    """The tower's forward, or its mergers alone where it is given features."""
    if hidden_states.ndim != 3:
        return type(self).forward(self, hidden_states, grid_thw=grid_thw, **kwargs)
    heads = mergers(self)
    parts = [part.contiguous() for part in hidden_states[:, 0].split(hidden_states.shape[-1] // len(heads), dim=-1)]
    merged = [head(part) for head, part in zip(heads, parts, strict=True)]
    if not hasattr(self, "deepstack_merger_list"):
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        return BaseModelOutputWithPooling(last_hidden_state=parts[0], pooler_output=merged[0])
    from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

    return BaseModelOutputWithDeepstackFeatures(
        last_hidden_state=parts[0], pooler_output=merged[0], deepstack_features=merged[1:]
    )


class FeatureCache:
    """Features by key: the newest in memory, the rest in a folder of bounded size.

    A file is one safetensors tensor with a digest of its bytes. It is written beside and renamed, so a killed process
    leaves no half file; it is verified when read, and a damaged one is removed and its video computed again. When the
    folder grows over its bound the files that were used longest ago go first. Several processes may share a folder.

    Args:
        folder: where files lie; None keeps features in memory only.
        disk_gb: the folder's bound.
        memory_gb: the bound of what is kept in memory, on the CPU.
    """

    def __init__(self, folder: str | Path | None = None, *, disk_gb: float = 4.0, memory_gb: float = 0.5) -> None:
        self.folder = None if folder is None else Path(folder)
        self._disk_bytes, self._memory_bytes = int(disk_gb * 1e9), int(memory_gb * 1e9)
        self._memory: OrderedDict[str, Tensor] = OrderedDict()
        self._held = 0
        self._written: int | None = None
        self.from_memory = self.from_disk = self.computed = 0

    def features(
        self, model: nn.Module, tower: str, videos: Sequence[tuple[Tensor, Tensor]], keys: Sequence[str | None] | None = None
    ) -> list[Tensor]:
        """Features of several videos; those not kept are computed together.

        Args:
            model: has a frozen tower.
            tower: `tower_hash(model)`.
            videos: (pixels, grid) each.
            keys: names of content and sampling; None where a video is told by its pixels.

        Returns:
            (patches, 1, width) each, on the pixels' device.
        """
        names = [
            f"{tower}-{hashlib.blake2b(key.encode(), digest_size=16).hexdigest() if key else pixels_key(*video)}"
            for video, key in zip(videos, keys or [None] * len(videos), strict=True)
        ]
        found = [self.get(name) for name in names]
        missing = {name: i for i, name in enumerate(names) if found[i] is None}
        if missing:
            chosen = [videos[i] for i in missing.values()]
            fresh = dict(zip(missing, _computed(model, chosen), strict=True))
            for name, value in fresh.items():
                self.put(name, value)
            self.computed += len(fresh)
            found = [fresh[name] if value is None else value for name, value in zip(names, found, strict=True)]
        return [value.to(pixels.device) for value, (pixels, _) in zip(found, videos, strict=True) if value is not None]

    def get(self, name: str) -> Tensor | None:
        """A kept tensor on the CPU, or None."""
        if name in self._memory:
            self._memory.move_to_end(name)
            self.from_memory += 1
            return self._memory[name]
        value = self._read(name)
        if value is not None:
            self.from_disk += 1
            self._remember(name, value)
        return value

    def put(self, name: str, value: Tensor) -> None:
        """Keep a tensor in memory and on disk. A full or unwritable disk is logged, and training goes on."""
        value = value.detach().cpu().contiguous()
        self._remember(name, value)
        if self.folder is None:
            return
        from safetensors.torch import save

        digest = hashlib.blake2b(_bytes(value), digest_size=16).hexdigest()
        content = save({"features": value}, metadata={"digest": digest, "name": name})
        try:
            atomic_write_bytes(self._path(name), content)
            self._make_room(len(content))
        except OSError as error:
            logger.warning("feature cache %s: cannot write: %s", self.folder, error)

    def _remember(self, name: str, value: Tensor) -> None:
        size = value.numel() * value.element_size()
        if size > self._memory_bytes:
            return
        self._memory[name] = value
        self._held += size
        while self._held > self._memory_bytes:
            _, oldest = self._memory.popitem(last=False)
            self._held -= oldest.numel() * oldest.element_size()

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / name[-2:] / f"{name}.safetensors"

    def _read(self, name: str) -> Tensor | None:
        if self.folder is None:
            return None
        path = self._path(name)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        value = _verified(content, name)
        if value is None:
            logger.warning("feature cache: %s is damaged; removed, to be computed again", path)
            path.unlink(missing_ok=True)
            return None
        try:
            os.utime(path)
        except OSError:
            pass
        return value

    def _make_room(self, added: int) -> None:
        """Remove the files used longest ago while the folder is over its bound."""
        assert self.folder is not None
        self._written = None if self._written is None else self._written + added
        if self._written is not None and self._written <= self._disk_bytes:
            return
        files = []
        for path in self.folder.glob("*/*.safetensors"):
            try:
                stat = path.stat()
            except OSError:
                continue
            files.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._disk_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
        self._written = total


def _computed(model: nn.Module, videos: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Features of videos, several in one call of the tower while they are small."""
    out: list[Tensor] = []
    start = patches = 0
    for i, (pixels, _) in enumerate(videos):
        patches += pixels.shape[0]
        if i + 1 == len(videos) or patches + videos[i + 1][0].shape[0] > PATCHES_A_CALL:
            chunk = videos[start : i + 1]
            joined = tower_features(model, torch.cat([p for p, _ in chunk]), torch.cat([g for _, g in chunk]))
            out += joined.split([p.shape[0] for p, _ in chunk])
            start, patches = i + 1, 0
    return out


def _verified(content: bytes, name: str) -> Tensor | None:
    """The tensor in a cache file's bytes, or None where anything about them is wrong."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        expected = header["__metadata__"]
        value = load(content)["features"]
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError):
        return None
    digest = hashlib.blake2b(_bytes(value), digest_size=16).hexdigest()
    return value if expected.get("digest") == digest and expected.get("name") == name else None


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _shape_of(tower: Any) -> dict[str, Any]:
    plain = tower.config.to_dict()
    return {key: value for key, value in plain.items() if isinstance(value, (int, float, str, list)) and not key.startswith("_")}
