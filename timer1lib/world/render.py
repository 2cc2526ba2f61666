"""From a scene to pixels at any times and any size, and to a video file.

Drawing is pure: the same scene, times and size give the same frames. The same library versions on the same kind of machine
give the same file too, byte for byte, however many processes draw. On another kind of processor x264 picks other algorithms:
the mp4's bytes may differ there, and with them the last digits of everything that is trained or measured on them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from timer1lib.world.lexicon import COLOURS, WALLS
from timer1lib.world.scene import Change, Person, Scene, Thing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Frames = NDArray[np.uint8]
    Floats = NDArray[np.floating[Any]]

FPS = 4
SIDE = 112
"""Of the videos that are written."""
CHUNK = 32
"""Frames drawn at a time: few enough to stay in the processor's cache."""
DARK = 0.3
"""Brightness of the room with the light out."""
SKIN = (235, 190, 150)
STEPS_OF_TRAVEL = 8
ONE_THREAD = "threads=1:lookahead_threads=1:sync-lookahead=0:sliced_threads=0"
"""x264's own settings: with more threads its decisions could depend on which one is first."""

_LIMBS: dict[str, list[list[tuple[float, float, float, float]]]] = {
    # pose -> phases -> limbs (x0, y0, x1, y1), in units of the figure's height, feet at y = 0.5, head at the top
    "stand": [[(0, -0.2, 0, 0.15), (0, 0.15, -0.1, 0.5), (0, 0.15, 0.1, 0.5), (0, -0.1, -0.15, 0.1), (0, -0.1, 0.15, 0.1)]],
    "wave": [
        [(0, -0.2, 0, 0.15), (0, 0.15, -0.1, 0.5), (0, 0.15, 0.1, 0.5), (0, -0.1, -0.15, 0.1), (0, -0.1, 0.3, -0.45)],
        [(0, -0.2, 0, 0.15), (0, 0.15, -0.1, 0.5), (0, 0.15, 0.1, 0.5), (0, -0.1, -0.15, 0.1), (0, -0.1, 0.38, -0.3)],
    ],
    "jump": [
        [(0, -0.35, 0, 0.0), (0, 0.0, -0.28, 0.2), (0, 0.0, 0.28, 0.2), (0, -0.25, -0.3, -0.45), (0, -0.25, 0.3, -0.45)],
        [(0, -0.28, 0, 0.07), (0, 0.07, -0.25, 0.3), (0, 0.07, 0.25, 0.3), (0, -0.18, -0.3, -0.35), (0, -0.18, 0.3, -0.35)],
    ],
    "kick": [
        [(0, -0.2, 0, 0.15), (0, 0.15, -0.05, 0.5), (0, 0.15, 0.42, 0.1), (0, -0.1, -0.2, 0.05), (0, -0.1, -0.2, -0.05)],
        [(0, -0.2, 0, 0.15), (0, 0.15, -0.05, 0.5), (0, 0.15, 0.38, 0.22), (0, -0.1, -0.2, 0.05), (0, -0.1, -0.2, -0.05)],
    ],
    "sit": [[(-0.1, 0.0, -0.1, 0.3), (-0.1, 0.3, 0.2, 0.3), (0.2, 0.3, 0.2, 0.5), (-0.1, 0.1, 0.1, 0.2), (-0.1, 0.1, -0.1, 0.3)]],
    "lie": [
        [(-0.25, 0.42, 0.1, 0.42), (0.1, 0.42, 0.5, 0.4), (0.1, 0.42, 0.5, 0.46), (-0.15, 0.42, 0, 0.34), (-0.15, 0.42, 0, 0.48)]
    ],
}
_HEADS: dict[str, list[tuple[float, float]]] = {
    "stand": [(0, -0.33)], "wave": [(0, -0.33), (0, -0.33)], "jump": [(0, -0.48), (0, -0.41)], "kick": [(0, -0.33), (0, -0.33)],
    "sit": [(-0.1, -0.13)], "lie": [(-0.38, 0.4)],
}  # fmt: skip
_FIGURE = 0.38  # height of the figure as a fraction of the picture's side


def render(scene: Scene, times: NDArray[np.float64], side: int = SIDE, *, burn_clock: bool = False) -> Frames:
    """Frames of a scene at `times` (N,) in seconds: uint8 RGB of shape (N, side, side, 3).

    `burn_clock` writes the whole second into the lower left corner, for tests of the clock.
    """
    times = np.asarray(times, np.float64)
    frames = np.full((len(times), side, side, 3), scene.grey, np.uint8)
    if scene.wall is not None:
        _paint_wall(frames, times, scene.wall)
    for thing in scene.things:
        _paint_thing(frames, times, thing, scene.duration)
    if scene.person is not None:
        _paint_person(frames, times, scene.person)
    if scene.light is not None:
        brightness = 1 - (1 - DARK) * progress(scene.light, times)
        for frame, factor in zip(frames, brightness, strict=True):
            if factor < 1:
                np.multiply(frame, np.float32(factor), out=frame, casting="unsafe")
    if scene.shake > 0:
        _shake(frames, times, scene)
    if scene.noise > 0:
        _add_noise(frames, times, scene)
    if burn_clock:
        _burn_clock(frames, times)
    return frames


def progress(change: Change, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far a change has come, in [0, 1]: rising from `start` to `full`, 1 until `end`, then 0."""
    rising = np.clip((times - change.start) / max(1e-6, change.full - change.start), 0, 1)
    return np.where(times < change.end, rising, 0.0)


def within(times: NDArray[np.float64], start: float, end: float) -> NDArray[np.bool_]:
    return (times >= start) & (times < end)


def _paint_wall(frames: Frames, times: NDArray[np.float64], wall: Change) -> None:
    """The new colour sweeps in from the left."""
    side = frames.shape[2]
    colour = np.array(WALLS[wall.to], np.float32)
    for frame, reach in zip(frames, progress(wall, times) * side, strict=True):
        whole = int(reach)
        frame[:, :whole] = colour
        if whole < side and reach > whole:
            edge = frame[:, whole].astype(np.float32)
            frame[:, whole] = edge + (colour - edge) * (reach - whole)


def _blend(frames: Frames, chosen: NDArray[np.intp], place: tuple[slice, slice], colour: Floats, cover: Floats) -> None:
    """Lay a colour over a place of the chosen frames, by the share of each pixel that it covers."""
    if not cover.any():
        return
    patch = frames[chosen, place[0], place[1]].astype(np.float32)
    frames[chosen, place[0], place[1]] = patch + (colour - patch) * cover[None, :, :, None]


def _grid(cell: int, side: int) -> tuple[slice, slice, Floats, Floats]:
    """The quarter `cell` of the picture: its rows and columns, and pixel centres from the quarter's middle."""
    half = side // 2
    top, left = (cell // 2) * half, (cell % 2) * half
    axis = (((np.arange(half) + 0.5) / side) - 0.25).astype(np.float32)
    return slice(top, top + half), slice(left, left + half), axis[:, None], axis[None, :]


def _coverage(shape: str, y: Floats, x: Floats, radius: float, side: int) -> Floats:
    ax, ay = np.abs(x), np.abs(y)
    if shape == "circle":
        outside = np.hypot(x, y) - radius
    elif shape == "square":
        outside = np.maximum(ax, ay) - 0.85 * radius
    elif shape == "triangle":
        outside = np.maximum(y - 0.75 * radius, ax * 0.89 - (y + radius) * 0.45)
    else:
        arm = 0.3 * radius
        outside = np.minimum(np.maximum(ax - radius, ay - arm), np.maximum(ay - radius, ax - arm))
    return _covered(outside, side)


def _covered(distance: Floats, side: int) -> Floats:
    """Share of each pixel that is covered, in [0, 1], by its distance to the outline."""
    covered: Floats = np.clip(0.5 - distance * side, 0, 1).astype(np.float32)
    return covered


def _paint_thing(frames: Frames, times: NDArray[np.float64], thing: Thing, duration: float) -> None:
    side = frames.shape[1]
    rows, columns, y, x = _grid(thing.cell, side)
    shown = np.zeros(len(times), bool)
    for start, end in thing.visible:
        shown |= within(times, start, end)
    large = within(times, *thing.grown) if thing.grown else np.zeros(len(times), bool)
    part = np.clip((times / duration * STEPS_OF_TRAVEL).astype(int), 0, STEPS_OF_TRAVEL - 1)
    for step in np.unique(part[shown]):
        at = step / STEPS_OF_TRAVEL - 0.5
        dy, dx = (o + t * at for o, t in zip(thing.offset, thing.travel, strict=True))
        for is_large in (False, True):
            chosen = np.flatnonzero(shown & (part == step) & (large == is_large))
            if not len(chosen):
                continue
            scale = 1.0 if thing.grown is None else (1.3 if is_large else 0.6)
            cover = _coverage(thing.shape, y - dy, x - dx, thing.radius * scale, side)
            _blend(frames, chosen, (rows, columns), _colours(thing, times[chosen], x - dx), cover)


def _colours(thing: Thing, times: NDArray[np.float64], x: Floats) -> Floats:
    """Colour of the thing at each time, shape (N, 1, columns or 1, 3): the second colour sweeps in from the left."""
    first = np.array(COLOURS[thing.colour], np.float32)
    if thing.recolour is None:
        return first[None, None, None]
    start, end, name = thing.recolour
    done = np.clip((times - start) / (end - start), 0, 1)
    edge = (2 * done - 1) * thing.radius
    edge = np.where(done <= 0, -1.0, np.where(done >= 1, 1.0, edge))
    turned = (x < edge[:, None]).astype(np.float32)[:, None, :, None]
    return first + (np.array(COLOURS[name], np.float32) - first) * turned


def _paint_person(frames: Frames, times: NDArray[np.float64], person: Person) -> None:
    side = frames.shape[1]
    rows, columns, y, x = _grid(person.cell, side)
    pose = np.full(len(times), "stand", dtype="<U6")
    for name, start, end in person.acts:
        pose[within(times, start, end)] = name
    beat = (times * 2).astype(int)
    for name in np.unique(pose):
        phases = _LIMBS[str(name)]
        for phase, limbs in enumerate(phases):
            chosen = np.flatnonzero((pose == name) & (beat % len(phases) == phase))
            if not len(chosen):
                continue
            cover = _figure(limbs, _HEADS[str(name)][phase], y - person.offset[0], x - person.offset[1], side)
            _blend(frames, chosen, (rows, columns), np.array(SKIN, np.float32), cover)


def _figure(limbs: list[tuple[float, float, float, float]], head: tuple[float, float], y: Floats, x: Floats, side: int) -> Floats:
    distance = np.hypot(x - head[0] * _FIGURE, y - head[1] * _FIGURE) - 0.12 * _FIGURE
    for x0, y0, x1, y1 in limbs:
        ax, ay, bx, by = (v * _FIGURE for v in (x0, y0, x1, y1))
        length = max(1e-9, (bx - ax) ** 2 + (by - ay) ** 2)
        along = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length, 0, 1)
        distance = np.minimum(distance, np.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay)) - 0.045 * _FIGURE)
    return _covered(distance, side)


def _shake(frames: Frames, times: NDArray[np.float64], scene: Scene) -> None:
    """The camera sways: whole pixels, the border repeated."""
    side = frames.shape[1]
    rng = np.random.default_rng([scene.seed, 13])
    phase = rng.uniform(0, 2 * np.pi, 2)
    speed = rng.uniform(0.15, 0.5, 2)
    index = np.arange(side)
    shifts = np.round(scene.shake * side * np.sin(speed * times[:, None] + phase)).astype(int)
    for frame, (dy, dx) in zip(frames, shifts, strict=True):
        if dy or dx:
            frame[:] = frame.take(np.clip(index + dy, 0, side - 1), 0).take(np.clip(index + dx, 0, side - 1), 1)


def _add_noise(frames: Frames, times: NDArray[np.float64], scene: Scene) -> None:
    """Grey noise: every frame a piece of one field, chosen by the frame's time, whichever others are drawn with it."""
    side = frames.shape[1]
    rng = np.random.default_rng([scene.seed, 11])
    field = np.round(rng.standard_normal((2 * side, 2 * side, 1), dtype=np.float32) * np.float32(scene.noise)).astype(np.int16)
    keys = np.round(times * 1000).astype(np.uint64)
    tops = keys * np.uint64(2654435761) % np.uint64(side)
    lefts = keys * np.uint64(40503) // np.uint64(7) % np.uint64(side)
    for frame, top, left in zip(frames, tops.astype(int), lefts.astype(int), strict=True):
        np.clip(frame + field[top : top + side, left : left + side], 0, 255, out=frame, casting="unsafe")


def _burn_clock(frames: Frames, times: NDArray[np.float64]) -> None:
    """Whole seconds as three digits, white on black, lower left."""
    side = frames.shape[1]
    scale = max(1, side // 56)
    for frame, time in zip(frames, times, strict=True):
        text = f"{int(time + 1e-6) % 1000:03d}"
        plate = np.zeros((7, 4 * len(text) + 1), np.float32)
        for i, character in enumerate(text):
            plate[1:6, 1 + 4 * i : 4 + 4 * i] = digit(int(character)) * 255
        plate = plate.repeat(scale, 0).repeat(scale, 1)
        frame[side - plate.shape[0] :, : plate.shape[1]] = plate[:, :, None]


_SEGMENTS = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")


def digit(value: int) -> Floats:
    """A digit as seven segments on 5 x 3 pixels of 0 and 1."""
    picture = np.zeros((5, 3), np.float32)
    places = {"a": (0, slice(0, 3)), "g": (2, slice(0, 3)), "d": (4, slice(0, 3))}
    sides = {"f": (slice(0, 3), 0), "b": (slice(0, 3), 2), "e": (slice(2, 5), 0), "c": (slice(2, 5), 2)}
    for segment in _SEGMENTS[value]:
        picture[places[segment] if segment in places else sides[segment]] = 1
    return picture


def clear_temporaries(folder: Path) -> None:
    """Remove what `write_video` of processes that were killed left in `folder`."""
    for path in folder.glob(".*.*.mp4"):
        writer = path.name.split(".")[-2]
        if writer.isdigit() and not psutil.pid_exists(int(writer)):
            path.unlink(missing_ok=True)


def write_video(scene: Scene, path: Path, *, side: int = SIDE, fps: int = FPS, burn_clock: bool = False) -> None:
    """Encode a scene as mp4 (H.264, `side` x `side` pixels, `fps` frames a second), under its name when it is complete."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
    times = np.arange(round(scene.duration * fps)) / fps
    try:
        with av.open(str(temporary), "w", options={"movflags": "faststart"}) as container:
            options = {"preset": "veryfast", "crf": "30", "g": str(4 * fps), "x264-params": ONE_THREAD}
            stream = container.add_stream("libx264", rate=fps, options=options)
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
            stream.thread_count = 1
            for first in range(0, len(times), CHUNK):
                for pixels in render(scene, times[first : first + CHUNK], side, burn_clock=burn_clock):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
