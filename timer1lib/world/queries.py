"""Every query a scene can answer, of TVGBench's eleven types, with its window by interval arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

from timer1lib.schema import Window
from timer1lib.spans import intersect, merge
from timer1lib.world.lexicon import ACTIONS, NUMBER_WORDS, PHRASES, VERBS, Phrases
from timer1lib.world.scene import Scene, Thing

if TYPE_CHECKING:
    import numpy as np

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
    return [q for q in found if _fits(q.window, scene.duration)]


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


def _fits(window: Window, duration: float) -> bool:
    length = window[1] - window[0]
    return max(SHORTEST_SECONDS, SHORTEST_SHARE * duration) <= length <= LONGEST_SHARE * duration


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
    for a, b in combinations(plain_things(scene), 2):
        both = _only(intersect(a.visible, b.visible))
        if both:
            queries.append(_query("OEC", both, thing=a.name, thing2=b.name))
    return queries


def _attributes(scene: Scene) -> list[Query]:
    queries = []
    for thing in scene.things:
        if thing.grown:
            queries.append(_query("OA", thing.grown, thing=thing.name, size="large"))
        if thing.recolour:
            start, end, colour2 = thing.recolour
            queries.append(_query("OT", (start, end), shape=thing.shape, colour=thing.colour, colour2=colour2))
    return queries


def _counting(scene: Scene) -> list[Query]:
    """Windows in which exactly n things are visible, where there is one such window."""
    edges = sorted({0.0, scene.duration, *(t for thing in scene.things for w in thing.visible for t in w)})
    spans: dict[int, list[Window]] = {}
    for start, end in pairwise(edges):
        middle = (start + end) / 2
        count = sum(any(s <= middle < e for s, e in thing.visible) for thing in scene.things)
        spans.setdefault(count, []).append((start, end))
    queries = []
    for count, pieces in spans.items():
        window = _only(merge(pieces))
        if window and 2 <= count < len(NUMBER_WORDS):
            queries.append(_query("OC", window, count=NUMBER_WORDS[count]))
    return queries


def _surroundings(scene: Scene) -> list[Query]:
    queries = []
    if scene.wall:
        queries.append(_query("EC", (scene.wall.start, scene.wall.full), wall=scene.wall.to))
        queries.append(_query("ES", (scene.wall.full, scene.wall.end), wall=scene.wall.to))
    if scene.light:
        queries.append(_query("EC.light", (scene.light.start, scene.light.full)))
        queries.append(_query("ES.light", (scene.light.full, scene.light.end)))
    return queries
