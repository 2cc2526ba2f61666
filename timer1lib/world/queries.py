"""What can be asked of a scene, by interval arithmetic: every query of TVGBench's eleven types with its window, and
multiple-choice questions with the window that shows the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

from timer1lib.schema import Window
from timer1lib.spans import intersect, merge
from timer1lib.world.lexicon import ACTIONS, COLOURS, NUMBER_WORDS, PHRASES, POSES, SHAPES, VERBS, WALLS, Phrases
from timer1lib.world.scene import Scene, Thing

if TYPE_CHECKING:
    import numpy as np

LETTERS = "ABCD"
SHORTEST_SECONDS, SHORTEST_SHARE, LONGEST_SHARE = 1.0, 0.08, 0.85


@dataclass(frozen=True, slots=True)
class Query:
    """One question with one answer. `form` is a key of `PHRASES`; `slots` fill the phrase."""

    form: str
    window: Window
    slots: tuple[tuple[str, str], ...]

    @property
    def type(self) -> str:
        return self.form.split(".")[0]

    def text(self, rng: np.random.Generator, phrases: Phrases = PHRASES) -> str:
        """The query in words, in one of its form's `phrases`."""
        options = phrases[self.form]
        return options[int(rng.integers(len(options)))].format_map(dict(self.slots))


def scene_queries(scene: Scene) -> list[Query]:
    """All queries whose answer is one window that is neither too short nor nearly the whole video."""
    found = [*_person(scene), *_existence(scene), *_attributes(scene), *_counting(scene), *_surroundings(scene)]
    shortest = max(SHORTEST_SECONDS, SHORTEST_SHARE * scene.duration)
    return [q for q in found if shortest <= _length(q) <= LONGEST_SHARE * scene.duration]


def pick_queries(scene: Scene, rng: np.random.Generator, count: int) -> list[Query]:
    """Up to `count` of a scene's queries, rarer types first in line so that types come out near even."""
    by_type: dict[str, list[Query]] = {}
    for query in scene_queries(scene):
        by_type.setdefault(query.form, []).append(query)
    picked: list[Query] = []
    forms = [str(form) for form in rng.permutation(sorted(by_type))]
    while forms and len(picked) < count:
        for form in list(forms):
            options = by_type[form]
            picked.append(options.pop(int(rng.integers(len(options)))))
            if not options:
                forms.remove(form)
            if len(picked) == count:
                break
    return picked


def _query(form: str, window: Window, **slots: str) -> Query:
    return Query(form, (round(window[0], 2), round(window[1], 2)), tuple(sorted(slots.items())))


def _only(windows: list[Window]) -> Window | None:
    """The window of a query that must have just one."""
    return windows[0] if len(windows) == 1 else None


def _verb_slots(name: str, suffix: str = "") -> dict[str, str]:
    does, doing, _ = VERBS[name]
    return {f"does{suffix}": does, f"doing{suffix}": doing}


def plain_things(scene: Scene) -> list[Thing]:
    """Things that keep their colour and size: those that can be said to be there."""
    return [thing for thing in scene.things if thing.recolour is None and thing.grown is None]


def _person(scene: Scene) -> list[Query]:
    if scene.person is None:
        return []
    queries = []
    acts = scene.person.acts
    for name, start, end in acts:
        queries.append(_query("HAS" if name in ACTIONS else "HP", (start, end), **_verb_slots(name)))
        for thing in plain_things(scene):
            both = _only(intersect([(start, end)], thing.visible))
            if both and both != (start, end):
                queries.append(_query("HAC", both, thing=thing.name, **_verb_slots(name)))
    if len(acts) == 2 and acts[0][2] == acts[1][1]:
        queries.append(_query("HAP", (acts[0][1], acts[1][2]), **_verb_slots(acts[0][0]), **_verb_slots(acts[1][0], "2")))
    return queries


def _existence(scene: Scene) -> list[Query]:
    queries = []
    for thing in plain_things(scene):
        shown = merge(thing.visible)
        if len(shown) == 1:
            queries.append(_query("OES", shown[0], thing=thing.name))
        else:
            queries += [_query("OEC.nth", w, thing=thing.name, nth=n) for w, n in zip(shown, ("first", "second"), strict=False)]
    pairs = [(a, b, _only(intersect(a.visible, b.visible))) for a, b in combinations(plain_things(scene), 2)]
    return queries + [_query("OEC", both, thing=a.name, thing2=b.name) for a, b, both in pairs if both]


def _attributes(scene: Scene) -> list[Query]:
    queries = []
    for thing in scene.things:
        if thing.grown:
            queries.append(_query("OA", thing.grown, thing=thing.name, size="large"))
        if thing.recolour:
            start, end, colour2 = thing.recolour
            queries.append(_query("OT", (start, end), shape=thing.shape, colour=thing.colour, colour2=colour2))
    return queries


def _pieces(scene: Scene) -> Iterable[Window]:
    """The video cut wherever a thing comes or goes."""
    return pairwise(sorted({0.0, scene.duration, *(t for thing in scene.things for w in thing.visible for t in w)}))


def _counting(scene: Scene) -> list[Query]:
    """Windows in which exactly n things are visible, where there is one such window."""
    spans: dict[int, list[Window]] = {}
    for start, end in _pieces(scene):
        count = sum(thing.is_there((start + end) / 2) for thing in scene.things)
        spans.setdefault(count, []).append((start, end))
    counted = [(count, _only(merge(pieces))) for count, pieces in spans.items() if 2 <= count < len(NUMBER_WORDS)]
    return [_query("OC", window, count=NUMBER_WORDS[count]) for count, window in counted if window]


def _surroundings(scene: Scene) -> list[Query]:
    queries = []
    if wall := scene.wall:
        queries += [_query("EC", (wall.start, wall.full), wall=wall.to), _query("ES", (wall.full, wall.end), wall=wall.to)]
    if light := scene.light:
        queries += [_query("EC.light", (light.start, light.full)), _query("ES.light", (light.full, light.end))]
    return queries


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
    by_start = sorted(events, key=lambda q: q.window[0])
    asked = [
        ("first", "which comes first", by_start[0], by_start),
        ("last", "which comes last", by_start[-1], by_start),
        ("longest", "which is seen longest", max(events, key=_length), events),
    ]
    made = [
        _choice(kind, text, texts[right], [texts[q] for q in among if q is not right], right.window, rng)
        for kind, text, right, among in asked
    ]
    return [question for question in made if question is not None]


def _length(query: Query) -> float:
    return query.window[1] - query.window[0]


def _distinct_events(scene: Scene) -> list[Query]:
    """Simple events that start well apart, so that their order can be seen."""
    simple = [q for q in scene_queries(scene) if q.form in ("HAS", "HP", "OES", "EC", "EC.light", "OT", "OA")]
    kept: list[Query] = []
    for query in simple:
        apart = all(abs(query.window[0] - other.window[0]) > 0.1 * scene.duration for other in kept)
        if apart and all(abs(_length(query) - _length(other)) > 0.05 * scene.duration for other in kept):
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
    there = {f"the {t.name}" for t in scene.things if t.is_there(moment)}
    wrong = [name for name in (f"the {c} {s}" for c in COLOURS for s in SHAPES) if name not in there]
    return _choice("object", f"which object is there at {moment:.1f} seconds", f"the {thing.name}", wrong, window, rng)


def _pose_at(scene: Scene, rng: np.random.Generator) -> Question | None:
    if scene.person is None:
        return None
    name, start, end = scene.person.acts[int(rng.integers(len(scene.person.acts)))]
    moment = _moment((start, end), rng)
    wrong = [VERBS[other][0] for other in (*ACTIONS, *POSES) if other != name]
    return _choice("pose", f"what does the person do at {moment:.1f} seconds", VERBS[name][0], wrong, (start, end), rng)


def _count_at(scene: Scene, rng: np.random.Generator) -> Question | None:
    pieces = [(a, b) for a, b in _pieces(scene) if b - a > 0.1 * scene.duration]
    if not pieces:
        return None
    window = pieces[int(rng.integers(len(pieces)))]
    moment = _moment(window, rng)
    count = sum(thing.is_there(moment) for thing in scene.things)
    if count >= len(NUMBER_WORDS):
        return None
    right = f"{NUMBER_WORDS[count]} objects"
    wrong = [f"{word} objects" for word in NUMBER_WORDS]
    return _choice("count", f"how many objects are visible at {moment:.1f} seconds", right, wrong, window, rng)


def _wall(scene: Scene, rng: np.random.Generator) -> Question | None:
    if scene.wall is None:
        return None
    wrong = [colour for colour in (*WALLS, *COLOURS) if colour != scene.wall.to]
    return _choice("wall", "what colour does the wall turn", scene.wall.to, wrong, (scene.wall.full, scene.wall.end), rng)
