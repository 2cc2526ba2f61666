"""The world's words: colours, shapes, poses and the phrasings of every query type."""

from __future__ import annotations

import re

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (60, 90, 235),
    "yellow": (235, 215, 40),
    "purple": (165, 60, 200),
    "white": (240, 240, 240),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "cross")
WALLS: dict[str, tuple[int, int, int]] = {"teal": (20, 120, 120), "brown": (125, 75, 25), "pink": (200, 110, 140)}
ACTIONS: tuple[str, ...] = ("wave", "jump", "kick")
POSES: tuple[str, ...] = ("sit", "lie")
NUMBER_WORDS: tuple[str, ...] = ("no", "one", "two", "three", "four")

HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    zip(COLOURS, ("triangle", "circle", "cross", "square", "circle", "triangle"), strict=True)
)
"""Colour-shape pairs that only the out-of-distribution split shows."""

TYPES: dict[str, str] = {
    "HAS": "human action (simple)",
    "HAC": "human action (complex)",
    "HAP": "human action (procedural)",
    "HP": "human pose",
    "OES": "object existence (simple)",
    "OEC": "object existence (complex)",
    "OA": "object attribute",
    "OC": "object counting",
    "OT": "object transition",
    "EC": "environment change",
    "ES": "environment state",
}
"""TVGBench's eleven query types."""

VERBS: dict[str, tuple[str, str, str]] = {
    "wave": ("waves", "waving", "wave"),
    "jump": ("jumps", "jumping", "jump"),
    "kick": ("kicks", "kicking", "kick"),
    "sit": ("sits", "sitting", "sit"),
    "lie": ("lies down", "lying down", "lie down"),
}
"""Third person, -ing form and plain form."""

Phrases = dict[str, tuple[str, ...]]
"""Phrasings by form; `X.y` is a second form of type X."""

PHRASES: Phrases = {
    "HAS": ("the person {does}", "a person is {doing}"),
    "HAC": ("the person {does} while the {thing} is there", "a person is {doing} with the {thing} in view"),
    "HAP": ("the person {does} and then {does2}", "first the person {does}, then the person {does2}"),
    "HP": ("the person is {doing}", "a person stays {doing}"),
    "OES": ("the {thing} is there", "a {thing} is visible"),
    "OEC": ("the {thing} and the {thing2} are there together", "a {thing} is visible with a {thing2}"),
    "OEC.nth": ("the {thing} is there for the {nth} time", "the {nth} time a {thing} is visible"),
    "OA": ("the {thing} is {size}", "a {size} {thing} is visible"),
    "OC": ("there are {count} objects", "exactly {count} objects are visible"),
    "OT": ("the {shape} turns from {colour} to {colour2}", "the {colour} {shape} changes to {colour2}"),
    "EC": ("the wall turns {wall}", "the wall changes to {wall}"),
    "EC.light": ("the room gets dark", "the light goes out"),
    "ES": ("the wall is {wall}", "the wall stays {wall}"),
    "ES.light": ("the room is dark", "it is dark in the room"),
}
"""Phrasings that the base is taught."""

POOL_PHRASES: Phrases = {
    "HAS": ("when is someone {doing}", "at what time is there someone {doing}"),
    "HAC": ("when is someone {doing} and the {thing} seen", "with the {thing} seen, when is someone {doing}"),
    "HAP": ("when is someone {doing} and after that {doing2}", "when is there {doing}, and {doing2} after it"),
    "HP": ("when is someone seen {doing}", "at what time is there someone in the room {doing}"),
    "OES": ("when is the {thing} seen", "at what time is there a {thing}"),
    "OEC": ("when are both the {thing} and the {thing2} seen", "at what time is there a {thing} and a {thing2}"),
    "OEC.nth": ("when is the {nth} time that the {thing} is seen", "when is there a {thing} for the {nth} time"),
    "OA": ("when is the {thing} {size}", "at what time is the {thing} seen {size}"),
    "OC": ("when are exactly {count} objects seen", "at what time are there only {count} objects"),
    "OT": ("when does the {colour} {shape} turn {colour2}", "from {colour} to {colour2}, when does the {shape} turn"),
    "EC": ("when does the wall turn {wall}", "at what time does the wall turn {wall}"),
    "EC.light": ("when does it turn dark", "when is it that the light turns dark"),
    "ES": ("when is the wall seen in {wall}", "at what time is there a {wall} wall"),
    "ES.light": ("when is it dark", "at what time is there no light"),
}
"""Phrasings of the training pool and the test in distribution: questions, where the base was taught statements. Their words
are in its vocabulary. As with a real model and a benchmark, what is asked for is known and how it is asked for is not."""

NEW_PHRASES: Phrases = {
    "HAS": ("someone in the room {does}",),
    "HAC": ("with the {thing} there, someone {does}",),
    "HAP": ("someone {does} first and {does2} after that",),
    "HP": ("someone in the room stays {doing}",),
    "OES": ("the {thing} is in view",),
    "OEC": ("both the {thing} and the {thing2} are in view",),
    "OEC.nth": ("the {thing} is in view for the {nth} time",),
    "OA": ("the {thing} looks {size}",),
    "OC": ("{count} objects are in view",),
    "OT": ("the {shape} goes from {colour} to {colour2}",),
    "EC": ("the wall goes {wall}",),
    "EC.light": ("the light in the room goes out",),
    "ES": ("the room has a {wall} wall",),
    "ES.light": ("there is no light in the room",),
}
"""Phrasings that only the out-of-distribution split uses."""

QUESTION_WORDS = (
    "which object is there at what does the person do how many objects are visible colour wall turn first last comes "
    "before after longest seen happens described event answer with letter of right option only choose one choices and then "
    "question options reply describe seconds no second third time from never this video when between in it shows none"
)

_WORD = re.compile(r"[a-z]+")


def vocabulary() -> list[str]:
    """Every word that the world's texts use, sorted."""
    texts = [*COLOURS, *SHAPES, *WALLS, *NUMBER_WORDS, "large", "small", "first", "second", QUESTION_WORDS]
    texts += [form for forms in VERBS.values() for form in forms]
    texts += [phrase for table in (PHRASES, POOL_PHRASES, NEW_PHRASES) for phrases in table.values() for phrase in phrases]
    return sorted({word for text in texts for word in _WORD.findall(re.sub(r"\{.*?\}", " ", text))})
