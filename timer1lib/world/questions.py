"""Multiple-choice questions about a scene, each with the window that shows the answer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from timer1lib.schema import Window
from timer1lib.world.lexicon import ACTIONS, COLOURS, NUMBER_WORDS, POSES, SHAPES, VERBS, WALLS
from timer1lib.world.queries import Query, plain_things, scene_queries
from timer1lib.world.scene import Scene

if TYPE_CHECKING:
    import numpy as np

LETTERS = "ABCD"


@dataclass(frozen=True, slots=True)
class Question:
    """Four options, one right. `window` (seconds) is where the answer is seen."""

    kind: str
    text: str
    options: tuple[str, ...]
    answer: int
    window: Window


def short_questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """What is so at one moment: which object, which pose, how many, what wall."""
    made = [_object_at(scene, rng), _pose_at(scene, rng), _count_at(scene, rng), _wall(scene, rng)]
    return [question for question in made if question is not None]


def long_questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """What needs the whole video: order and length of events."""
    events = _distinct_events(scene)
    if len(events) < 2:
        return []
    texts = {q: q.text(rng) for q in events}
    made = []
    by_start = sorted(events, key=lambda q: q.window[0])
    made.append(
        _choice("first", "which comes first", texts[by_start[0]], [texts[q] for q in by_start[1:]], by_start[0].window, rng)
    )
    made.append(
        _choice("last", "which comes last", texts[by_start[-1]], [texts[q] for q in by_start[:-1]], by_start[-1].window, rng)
    )
    longest = max(events, key=lambda q: q.window[1] - q.window[0])
    others = [texts[q] for q in events if q is not longest]
    made.append(_choice("longest", "which is seen longest", texts[longest], others, longest.window, rng))
    return [question for question in made if question is not None]


def _distinct_events(scene: Scene) -> list[Query]:
    """Simple events that start well apart, so that their order can be seen."""
    simple = [q for q in scene_queries(scene) if q.form in ("HAS", "HP", "OES", "EC", "EC.light", "OT", "OA")]
    kept: list[Query] = []
    for query in simple:
        apart = all(abs(query.window[0] - other.window[0]) > 0.1 * scene.duration for other in kept)
        lengths = all(
            abs((query.window[1] - query.window[0]) - (o.window[1] - o.window[0])) > 0.05 * scene.duration for o in kept
        )
        if apart and lengths:
            kept.append(query)
    return kept


def _choice(kind: str, text: str, right: str, wrong: list[str], window: Window, rng: np.random.Generator) -> Question | None:
    """Up to four options in random order; None where there is nothing wrong to choose."""
    pool = [w for w in dict.fromkeys(wrong) if w != right]
    if not pool:
        return None
    chosen = [pool[int(i)] for i in rng.permutation(len(pool))[: len(LETTERS) - 1]]
    place = int(rng.integers(len(chosen) + 1))
    options = (*chosen[:place], right, *chosen[place:])
    return Question(kind, text, options, place, window)


def _moment(window: Window, rng: np.random.Generator) -> float:
    """A time well inside a window, to 0.1 s."""
    start, end = window
    return round(float(rng.uniform(start + 0.3 * (end - start), end - 0.3 * (end - start))), 1)


def _object_at(scene: Scene, rng: np.random.Generator) -> Question | None:
    things = [t for t in plain_things(scene) if t.visible != [(0.0, scene.duration)]]
    if not things:
        return None
    thing = things[int(rng.integers(len(things)))]
    window = thing.visible[int(rng.integers(len(thing.visible)))]
    moment = _moment(window, rng)
    names = [f"the {c} {s}" for c in COLOURS for s in SHAPES]
    there = {f"the {t.name}" for t in scene.things if t.is_there(moment)}
    return _choice(
        "object",
        f"which object is there at {moment:.1f} seconds",
        f"the {thing.name}",
        [n for n in names if n not in there],
        window,
        rng,
    )


def _pose_at(scene: Scene, rng: np.random.Generator) -> Question | None:
    if scene.person is None:
        return None
    name, start, end = scene.person.acts[int(rng.integers(len(scene.person.acts)))]
    moment = _moment((start, end), rng)
    wrong = [VERBS[other][0] for other in (*ACTIONS, *POSES) if other != name]
    return _choice("pose", f"what does the person do at {moment:.1f} seconds", VERBS[name][0], wrong, (start, end), rng)


def _count_at(scene: Scene, rng: np.random.Generator) -> Question | None:
    edges = sorted({0.0, scene.duration, *(t for thing in scene.things for w in thing.visible for t in w)})
    pieces = [(a, b) for a, b in pairwise(edges) if b - a > 0.1 * scene.duration]
    if not pieces:
        return None
    window = pieces[int(rng.integers(len(pieces)))]
    moment = _moment(window, rng)
    count = sum(thing.is_there(moment) for thing in scene.things)
    if count >= len(NUMBER_WORDS):
        return None
    wrong = [f"{word} objects" for i, word in enumerate(NUMBER_WORDS) if i != count]
    return _choice(
        "count", f"how many objects are visible at {moment:.1f} seconds", f"{NUMBER_WORDS[count]} objects", wrong, window, rng
    )


def _wall(scene: Scene, rng: np.random.Generator) -> Question | None:
    if scene.wall is None:
        return None
    wrong = [colour for colour in (*WALLS, *COLOURS) if colour != scene.wall.to]
    return _choice("wall", "what colour does the wall turn", scene.wall.to, wrong, (scene.wall.full, scene.wall.end), rng)
