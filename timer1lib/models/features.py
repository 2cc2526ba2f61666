"""What a vision tower makes of a video, computed once and kept: while it is asked about, or across epochs and runs.

Training keeps the tower's output *before* its mergers, in the order of the patches, so that the mergers may still be
trained. Asking keeps what the mergers made of it as well. `accept_features` lets an unmodified Hugging Face model take
either in the place of pixels, in every version of transformers, since that runs through the tower's own forward:

    (patches, 1, width)      before the mergers: a call runs the mergers alone
    (patches, 1, 1, width)   after them: a call runs nothing
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from timer1lib.models.config import family_of_model
from timer1lib.video.cache import Costs, DiskCache
from timer1lib.weak import WeakMethod

if TYPE_CHECKING:
    from timer1lib.models.load import LoadedModel

log = logging.getLogger(__name__)

_MARK = "_timer1_accepts_features"
PATCHES_A_CALL = 65_536
"""Patches that the tower is given in one call at most, where they are of several videos."""
KEPT = 8
"""Videos whose merged features are kept while questions are asked: those of a batch and a few before it."""


def mergers(tower: nn.Module) -> list[nn.Module]:
    """What makes tokens of a tower's patches, the one that feeds the text model's input first."""
    return family_of_model(tower).mergers(tower)


def _own(tower: nn.Module) -> dict[str, nn.Parameter]:
    """The tower's parameters but for its mergers', by name."""
    heads = {id(p) for merger in mergers(tower) for p in merger.parameters()}
    return {name: p for name, p in tower.named_parameters() if id(p) not in heads}


def tower_is_frozen(model: nn.Module) -> bool:
    """Whether nothing of the tower but its mergers is trained, so that features before the mergers stay valid."""
    return not any(p.requires_grad for p in _own(family_of_model(model).tower(model)).values())


def tower_hash(model: nn.Module) -> str:
    """Hash of the tower's weights, mergers left out, with its configuration and the number type that they have now."""
    tower: Any = family_of_model(model).tower(model)
    plain = tower.config.to_dict().items()
    kept = ((key, value) for key, value in plain if key != "dtype" and not key.startswith("_"))  # that is what it was loaded in
    shape = {key: value for key, value in kept if isinstance(value, (int, float, str, list))}
    digest = hashlib.blake2b(json.dumps(shape, sort_keys=True).encode(), digest_size=16)
    for name, parameter in sorted(_own(tower).items()):
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(_bytes(parameter))
    return digest.hexdigest()


def pixels_key(pixels: Tensor, grid: Tensor) -> str:
    """Key of a video by what the tower is given: it changes with the file's content and with the sampling."""
    digest = hashlib.blake2b(repr((grid.tolist(), tuple(pixels.shape), str(pixels.dtype))).encode(), digest_size=16)
    digest.update(_bytes(pixels))
    return digest.hexdigest()


@torch.no_grad()
def tower_features(model: nn.Module, pixels: Tensor, grid: Tensor) -> Tensor:
    """Run the tower up to its mergers on pixels (patches, channels * temporal patch * patch * patch) and grid (videos, 3).

    Returns:
        (patches, 1, hidden * mergers): what each merger is given, side by side, in the order of the patches.
    """
    family = family_of_model(model)
    tower: Any = family.tower(model)
    taps: dict[int, Tensor] = {}
    heads = family.mergers(tower)

    def keep(index: int) -> Any:
        # in a merger's place: what it would make is not wanted, and its weights may be sharded over ranks
        def forward(given: Tensor, *_: Any, **__: Any) -> Tensor:
            taps[index] = given
            return given.reshape(-1, tower.spatial_merge_size**2 * given.shape[-1])

        return forward

    before = [vars(merger).get("forward") for merger in heads]
    try:
        for i, merger in enumerate(heads):
            merger.forward = keep(i)
        tower(pixels.to(tower.dtype), grid_thw=grid)
    finally:
        for merger, own in zip(heads, before, strict=True):
            del merger.forward
            if own is not None:
                merger.forward = own
    features = torch.cat([taps[i] for i in range(len(heads))], dim=-1)
    order = family.patch_order(tower, grid)
    if order is not None:
        blocks = features.view(-1, tower.spatial_merge_size**2, features.shape[-1])
        features = blocks[torch.argsort(order)].reshape(features.shape)
    return features[:, None, :]


def merged_features(model: nn.Module, pixels: Tensor, grid: Tensor) -> Tensor:
    """Run the tower and its mergers.

    Returns:
        (patches, 1, 1, width): the merged tokens of all mergers side by side, each spread over the rows of its patches,
        since whatever copies or splits a batch counts a video in patches.
    """
    family = family_of_model(model)
    tower: Any = family.tower(model)
    parts = family.merged_parts(tower(pixels.to(tower.dtype), grid_thw=grid, return_dict=True))
    return torch.cat(parts, dim=-1).reshape(pixels.shape[0], 1, 1, -1)


def accept_features(model: nn.Module) -> nn.Module:
    """Let `model` take what `tower_features` and `merged_features` give wherever it takes `pixel_values_videos`.

    Its classes, weights and configuration are untouched, and pixels are taken as before; a second call changes nothing.
    """
    family = family_of_model(model)
    tower: Any = family.tower(model)
    if not getattr(tower, _MARK, None):
        setattr(tower, _MARK, family)
        tower.forward = WeakMethod(_forward, tower)
    return model


def _forward(self: Any, hidden_states: Tensor, grid_thw: Tensor, **kwargs: Any) -> Any:
    """The tower's forward, or what is left of it where it is given features."""
    if hidden_states.ndim < 3:
        return type(self).forward(self, hidden_states, grid_thw=grid_thw, **kwargs)
    family = getattr(self, _MARK)
    heads = family.mergers(self)
    if hidden_states.ndim == 4:
        tokens = hidden_states.reshape(hidden_states.shape[0] // self.spatial_merge_size**2, -1)
        return family.tower_output(hidden_states[:, 0, 0], list(tokens.chunk(len(heads), dim=-1)))
    parts = [part.contiguous() for part in hidden_states[:, 0].chunk(len(heads), dim=-1)]
    return family.tower_output(parts[0], [head(part) for head, part in zip(heads, parts, strict=True)])


class VideoFeatures:
    """Puts merged features in the place of pixels, so that the tower runs once a video however many questions there are."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.model = accept_features(loaded.model)
        self.kept: dict[Hashable, Tensor] = {}
        self.computed = 0

    def replace_pixels(
        self, inputs: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], keys: Sequence[Hashable]
    ) -> dict[str, Any]:
        """`inputs` of a collated batch with features under `pixel_values_videos`.

        Args:
            rows: its rows as encoded, each with `pixel_values_videos` and `video_grid_thw` of one clip.
            keys: which clip each row is about; rows with one key must hold the same pixels.
        """
        batch = dict(inputs)
        if "pixel_values_videos" in batch:
            batch["pixel_values_videos"] = torch.cat([self.of(row, key) for row, key in zip(rows, keys, strict=True)])
            self.forget(len(set(keys)))
        return batch

    def forget(self, but: int) -> None:
        """Drop the oldest clips but for a batch's own and a few before it."""
        while len(self.kept) > max(KEPT, but):
            del self.kept[next(iter(self.kept))]

    def of(self, row: Mapping[str, Any], key: Hashable) -> Tensor:
        """The merged features of an encoded row's clip, which `key` names."""
        if key in self.kept:
            self.kept[key] = self.kept.pop(key)
            return self.kept[key]
        device = next(self.model.parameters()).device
        pixels, grid = row["pixel_values_videos"].to(device), row["video_grid_thw"].to(device)
        self.kept[key] = merged_features(self.model, pixels, grid)
        self.computed += 1
        return self.kept[key]


class FeatureCache:
    """Features by key: the newest in memory on the CPU, the rest on disk (memory only where `cache_dir` is None).

    What lies on disk is as safe as `video.cache.DiskCache` makes it; a damaged entry, or one of another shape than the
    video's, is computed again. Where reading takes as long as the tower does (`costs`), it is left alone.

    Args:
        cache_dir: of all kinds of entries; features go to `<cache_dir>/features`.
        disk_gb: largest size of the whole of it.
    """

    def __init__(self, cache_dir: str | Path | None = None, *, disk_gb: float = 4.0, memory_gb: float = 0.5) -> None:
        self.disk = None if cache_dir is None else DiskCache.of(cache_dir, "features", int(disk_gb * 1e9))
        self.costs = Costs()
        self._told = False
        self._memory_bytes = int(memory_gb * 1e9)
        self._memory: OrderedDict[str, Tensor] = OrderedDict()
        self._held = 0
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
        if not self.costs.pays:
            if not self._told:
                log.warning("the feature cache does not pay and is left alone: %s", self.costs)
            self._told = True
            return _computed(model, videos)
        begun = time.perf_counter()
        names = [
            f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest() if key else pixels_key(*video)}-{tower}"
            for video, key in zip(videos, keys or [None] * len(videos), strict=True)
        ]
        found = [self._fitting(name, video[0]) for name, video in zip(names, videos, strict=True)]
        missing = {name: i for i, name in enumerate(names) if found[i] is None}
        looked = time.perf_counter()
        if len(videos) > len(missing):
            self.costs.hit((looked - begun) * (len(videos) - len(missing)) / len(videos), len(videos) - len(missing))
        if missing:
            chosen = [videos[i] for i in missing.values()]
            fresh = dict(zip(missing, _computed(model, chosen), strict=True))
            for name, value in fresh.items():
                self.put(name, value)
            self.computed += len(fresh)
            self.costs.miss(time.perf_counter() - looked, len(fresh))
            found = [fresh[name] if value is None else value for name, value in zip(names, found, strict=True)]
        return [value.to(pixels.device) for value, (pixels, _) in zip(found, videos, strict=True) if value is not None]

    def _fitting(self, name: str, pixels: Tensor) -> Tensor | None:
        value = self.get(name)
        if value is not None and (value.ndim != 3 or value.shape[:2] != (pixels.shape[0], 1)):
            log.warning("cache entry %s has shape %s for %d patches; it is made again", name, tuple(value.shape), len(pixels))
            return None
        return value

    def get(self, name: str) -> Tensor | None:
        """A kept tensor on the CPU, or None."""
        if name in self._memory:
            self._memory.move_to_end(name)
            self.from_memory += 1
            return self._memory[name]
        content = None if self.disk is None else self.disk.get(name)
        if content is None:
            return None
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            value = load(content)["features"]
        except (SafetensorError, KeyError) as error:
            log.warning("cache entry %s cannot be read (%s); it is made again", name, error)
            return None
        self.from_disk += 1
        self._remember(name, value)
        return value

    def put(self, name: str, value: Tensor) -> None:
        """Keep a tensor in memory and on disk."""
        value = value.detach().cpu().contiguous()
        self._remember(name, value)
        if self.disk is not None:
            from safetensors.torch import save

            self.disk.put(name, save({"features": value}))

    def _remember(self, name: str, value: Tensor) -> None:
        if value.nbytes > self._memory_bytes:
            return
        self._memory[name] = value
        self._held += value.nbytes
        while self._held > self._memory_bytes:
            self._held -= self._memory.popitem(last=False)[1].nbytes


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


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
