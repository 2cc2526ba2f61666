"""What happens in a synthetic video, as facts with times: the ground truth comes from here, not from pixels.

A room with a wall, a lamp, up to four things in the quarters of the picture and perhaps a person. Everything that
changes is an interval in seconds, so that the answer to any query is interval arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from timer1lib.schema import Window
from timer1lib.world.lexicon import ACTIONS, COLOURS, COMMON, HELD_OUT, POSES, SHAPES, WALLS

if TYPE_CHECKING:
    import numpy as np

Pairs = Literal["common", "held_out"]
"""Which colour-shape pairs a scene may show: those of the main splits, or at least one that they never show."""
ShownPairs = frozenset[tuple[str, str]]


@dataclass(slots=True)
class Thing:
    """An object in a quarter (`cell` 0-3) of the picture. Lengths are fractions of the picture's side."""

    colour: str
    shape: str
    cell: int
    offset: tuple[float, float]
    travel: tuple[float, float]
    """How far it moves from the first to the last frame."""
    radius: float
    visible: list[Window]
    grown: Window | None = None
    """While it is large; a thing with `grown` is small otherwise."""
    recolour: tuple[float, float, str] | None = None
    """From start to end the second colour sweeps over it."""

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    def is_there(self, moment: float) -> bool:
        """Whether it is visible at a moment (seconds)."""
        return any(start <= moment < end for start, end in self.visible)


@dataclass(slots=True)
class Person:
    """A stick figure: standing, but for its acts (pose, start, end), which do not overlap."""

    cell: int
    offset: tuple[float, float]
    acts: list[tuple[str, float, float]]


@dataclass(slots=True)
class Change:
    """A change of the surroundings: under way from `start` to `full`, complete until `end`."""

    start: float
    full: float
    end: float
    to: str = ""


@dataclass(slots=True)
class Scene:
    """One video's facts. Times are seconds from its start."""

    seed: int
    duration: float
    difficulty: float
    things: list[Thing] = field(default_factory=list)
    person: Person | None = None
    wall: Change | None = None
    light: Change | None = None
    grey: int = 50
    noise: float = 0.0
    """Standard deviation of pixel noise, of 255."""
    shake: float = 0.0
    """How far the camera sways, as a fraction of the side."""


@dataclass(frozen=True, slots=True)
class Look:
    """How varied the scenes of a pool look."""

    look_alikes: float = 1.0
    """Factor on the chance of a look-alike, which is 0.15 + 0.6 times the difficulty, twice a scene."""
    pairs: int = len(COMMON)
    """So many of the common colour-shape pairs are shown, the first ones of `COMMON`."""


PLAIN = Look()


def sample_scene(
    seed: int, difficulty: float, durations: tuple[float, float] = (10.0, 64.0), pairs: Pairs = "common", look: Look = PLAIN
) -> Scene:
    """Draw a scene.

    Args:
        seed: the scene depends on this and the other arguments alone.
        difficulty: 0 (one long, clear event) to 1 (four short, overlapping, repeated ones among look-alikes, in
            noise, under a swaying camera).
        durations: seconds, from and to.
        pairs: `held_out` puts at least one unseen colour-shape pair into the scene.
        look: how varied what is shown is, unseen pairs aside.
    """
    import numpy as np

    rng, shown = np.random.default_rng([seed, 7]), frozenset(COMMON[: look.pairs])
    duration = round(float(rng.uniform(*durations)), 1)
    scene = Scene(seed, duration, difficulty)
    scene.grey = int(rng.integers(35, 75))
    scene.noise = float(rng.uniform(0, 2 + 10 * difficulty))
    scene.shake = float(rng.uniform(0, 0.05)) * difficulty
    cells = [int(c) for c in rng.permutation(4)]
    kinds = _kinds(rng, 1 + int(rng.binomial(3, 0.3 + 0.5 * difficulty)))
    if pairs == "held_out" and not any(kind in ("appear", "grow") for kind in kinds):
        kinds[0] = "appear"
    for kind in kinds:
        if kind == "person":
            scene.person = _person(rng, scene, cells.pop())
        elif kind == "wall":
            scene.wall = _change(rng, scene, str(rng.choice(list(WALLS))))
        elif kind == "light":
            scene.light = _change(rng, scene, "dark")
        else:
            held_out = pairs == "held_out" and not any((t.colour, t.shape) in HELD_OUT for t in scene.things)
            allowed = _free(scene, HELD_OUT if held_out else shown)
            colour, shape = allowed[int(rng.integers(len(allowed)))]
            scene.things.append(_thing(rng, scene, cells.pop(), colour, shape, kind, shown))
    for _ in range(min(len(cells), int(rng.binomial(2, min(1.0, look.look_alikes * (0.15 + 0.6 * difficulty)))))):
        _distract(rng, scene, cells.pop(), shown)
    return scene


def _kinds(rng: np.random.Generator, count: int) -> list[str]:
    """Kinds of event: things may repeat, the person, the wall and the lamp may not."""
    kinds: list[str] = []
    while len(kinds) < count:
        kind = str(rng.choice(["appear", "grow", "recolour", "person", "wall", "light"], p=[0.32, 0.1, 0.1, 0.28, 0.1, 0.1]))
        if kind in ("person", "wall", "light") and kind in kinds:
            continue
        kinds.append(kind)
    return kinds


def _segment(rng: np.random.Generator, scene: Scene, low: float = 0.0, high: float = 1.0, share: float = 1.0) -> Window:
    """A random segment between the fractions `low` and `high` of the video, shorter as difficulty grows."""
    room = (high - low) * scene.duration
    shortest, longest = 0.22 - 0.1 * scene.difficulty, 0.5 - 0.15 * scene.difficulty
    length = min(room, max(1.0, float(rng.uniform(shortest, longest)) * scene.duration * share))
    start = low * scene.duration + float(rng.uniform(0, room - length))
    return round(start, 1), round(min(start + length, scene.duration), 1)


def _free(scene: Scene, pairs: ShownPairs) -> list[tuple[str, str]]:
    """Those of the pairs of colour and shape that no thing of the scene has yet."""
    taken = {(t.colour, t.shape) for t in scene.things}
    return [(c, s) for c in COLOURS for s in SHAPES if (c, s) in pairs and (c, s) not in taken]


def _thing(rng: np.random.Generator, scene: Scene, cell: int, colour: str, shape: str, kind: str, shown: ShownPairs) -> Thing:
    thing = Thing(
        colour,
        shape,
        cell,
        offset=(float(rng.uniform(-0.05, 0.05)), float(rng.uniform(-0.05, 0.05))),
        travel=(float(rng.uniform(-0.07, 0.07)), float(rng.uniform(-0.07, 0.07))),
        radius=float(rng.uniform(0.12, 0.16)),
        visible=[(0.0, scene.duration)],
    )
    if kind == "grow":
        thing.grown = _segment(rng, scene)
    elif kind == "recolour":
        start, end = _segment(rng, scene)
        # it may turn into what the pool shows; where few pairs leave this shape one colour, it just stays
        allowed = [c for c in COLOURS if c != colour and (c, shape) in shown]
        thing.recolour = (start, end, str(rng.choice(allowed))) if allowed else None
    elif rng.random() < 0.1 + 0.3 * scene.difficulty:
        middle = float(rng.uniform(0.42, 0.58))
        thing.visible = [_segment(rng, scene, 0.0, middle - 0.08, 0.8), _segment(rng, scene, middle + 0.08, 1.0, 0.8)]
    else:
        thing.visible = [_segment(rng, scene)]
    return thing


def _person(rng: np.random.Generator, scene: Scene, cell: int) -> Person:
    names = [str(n) for n in rng.permutation([*ACTIONS, *POSES])]
    offset = (float(rng.uniform(-0.03, 0.03)), float(rng.uniform(-0.02, 0.02)))
    if rng.random() < 0.45:
        return Person(cell, offset, [(names[0], *_segment(rng, scene))])
    middle = float(rng.uniform(0.4, 0.6))
    first = _segment(rng, scene, 0.0, middle)
    second = _segment(rng, scene, middle, 1.0)
    if rng.random() < 0.6:  # one after the other without a pause: a procedure
        second = (first[1], round(min(scene.duration, first[1] + second[1] - second[0]), 1))
    return Person(cell, offset, [(names[0], *first), (names[1], *second)])


def _change(rng: np.random.Generator, scene: Scene, to: str) -> Change:
    start, end = _segment(rng, scene, share=1.5)
    full = round(start + float(rng.uniform(0.35, 0.6)) * (end - start), 1)
    return Change(start, full, end, to)


def _distract(rng: np.random.Generator, scene: Scene, cell: int, shown: ShownPairs) -> None:
    """Add a thing that shares its colour or its shape with one that is already there, where the pairs shown have one."""
    model = scene.things[int(rng.integers(len(scene.things)))] if scene.things else None
    allowed = [(c, s) for c, s in _free(scene, shown) if model is None or (c == model.colour) != (s == model.shape)]
    if allowed:
        colour, shape = allowed[int(rng.integers(len(allowed)))]
        scene.things.append(_thing(rng, scene, cell, colour, shape, "appear", shown))
