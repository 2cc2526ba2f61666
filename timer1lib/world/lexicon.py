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

COMMON: tuple[tuple[str, str], ...] = tuple(
    [
        (c, [s for s in SHAPES if (c, s) not in HELD_OUT][(turn + i + 2 * (i // 2)) % 3])
        for turn in range(3)
        for i, c in enumerate(COLOURS)
    ]
)
"""The other pairs, in the order in which a pool of few pairs takes them: the first six have every colour and every shape."""

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

_POOL = {
    "HAS": """
        when is someone {doing} | at what time is there someone {doing} | there is a person {doing} | when it is that the person
        {does} | this shows someone {doing} | which second shows someone {doing} | the time when a person {does} | in this video
        someone {does} | {doing} is what is seen | from when to when is the person {doing} | it happens that the person {does} |
        what is the time of someone {doing}
    """,
    "HAC": """
        when is someone {doing} and the {thing} seen | with the {thing} seen, when is someone {doing} | there is a person {doing}
        and a {thing} | the {thing} is seen while someone {does} | this shows someone {doing} with the {thing} | which second
        shows the {thing} and someone {doing} | the time when a person {does} and a {thing} is there | in this video someone
        {does} and there is a {thing} | {doing} with the {thing} is what is seen | from when to when is the {thing} there with
        someone {doing} | it happens that the person {does} when the {thing} is seen | what is the time of {doing} with a {thing}
    """,
    "HAP": """
        when is someone {doing} and after that {doing2} | when is there {doing}, and {doing2} after it | there is a person {doing}
        and then {doing2} | someone {does2} after {doing} | this shows someone {doing} before {doing2} | which second shows
        {doing} and then {doing2} | the time when a person {does} and after it {does2} | in this video someone {does} and then
        {does2} | {doing} comes before {doing2} | from when to when is someone {doing} and then {doing2} | it happens that the
        person {does} before {doing2} | what is the time of {doing} and then of {doing2}
    """,
    "HP": """
        when is someone seen {doing} | at what time is there someone in the room {doing} | there is a person seen {doing} | the
        person is seen {doing} | this shows the person {doing} | which second shows the person {doing} | the time when a person is
        {doing} | in this video someone is {doing} | {doing} is what the person does | from when to when is someone seen {doing} |
        it happens that someone is {doing} | what is the time of the person {doing}
    """,
    "OES": """
        when is the {thing} seen | at what time is there a {thing} | there is a {thing} | the {thing} is seen | this shows the
        {thing} | which second shows a {thing} | the time when the {thing} is there | in this video there is a {thing} | a {thing}
        is what is seen | from when to when is the {thing} visible | it happens that a {thing} is there | what is the time of the
        {thing}
    """,
    "OEC": """
        when are both the {thing} and the {thing2} seen | at what time is there a {thing} and a {thing2} | there is a {thing} with
        a {thing2} | the {thing} is seen with the {thing2} | this shows the {thing} and the {thing2} | which second shows both a
        {thing} and a {thing2} | the time when the {thing} and the {thing2} are there | in this video there is a {thing} together
        with a {thing2} | a {thing} with a {thing2} is what is seen | from when to when are the {thing} and the {thing2} visible |
        it happens that a {thing} and a {thing2} are together | what is the time of the {thing} and the {thing2}
    """,
    "OEC.nth": """
        when is the {nth} time that the {thing} is seen | when is there a {thing} for the {nth} time | there is a {thing} for the
        {nth} time | the {thing} is seen the {nth} time | this shows the {thing} for the {nth} time | which second shows the {nth}
        time of the {thing} | the {nth} time when the {thing} is there | in this video the {thing} comes for the {nth} time | a
        {thing} is what is seen for the {nth} time | from when to when is the {thing} visible for the {nth} time | it happens the
        {nth} time that a {thing} is there | what is the {nth} time of the {thing}
    """,
    "OA": """
        when is the {thing} {size} | at what time is the {thing} seen {size} | there is a {thing} and it is {size} | the {thing}
        is seen {size} | this shows the {size} {thing} | which second shows a {size} {thing} | the time when the {thing} is {size}
        | in this video the {thing} gets {size} | {size} is what the {thing} is | from when to when is the {thing} {size} | it
        happens that a {thing} is {size} | what is the time of the {size} {thing}
    """,
    "OC": """
        when are exactly {count} objects seen | at what time are there only {count} objects | there are only {count} objects |
        exactly {count} objects are seen | this shows exactly {count} objects | which second shows only {count} objects | the time
        when there are {count} objects | in this video {count} objects are there | {count} is how many objects are seen | from
        when to when are {count} objects visible | it happens that only {count} objects are there | what is the time of {count}
        objects
    """,
    "OT": """
        when does the {colour} {shape} turn {colour2} | from {colour} to {colour2}, when does the {shape} turn | there is a
        {colour} {shape} and it turns {colour2} | the {colour} {shape} turns {colour2} | this shows the {colour} {shape} turn
        {colour2} | which second shows a {colour} {shape} turn to {colour2} | the time when the {shape} changes from {colour} to
        {colour2} | in this video the {shape} is {colour} and then {colour2} | {colour2} is what the {colour} {shape} turns | from
        when to when does the {shape} turn from {colour} to {colour2} | it happens that a {colour} {shape} turns to {colour2} |
        what is the time when the {shape} turns from {colour} to {colour2}
    """,
    "EC": """
        when does the wall turn {wall} | at what time does the wall turn {wall} | there is a wall and it turns {wall} | the wall
        gets {wall} | this shows the wall turn {wall} | which second shows the wall turn to {wall} | the time when the wall
        changes to {wall} | in this video the wall turns to {wall} | {wall} is what the wall turns | from when to when does the
        wall turn {wall} | it happens that the wall gets {wall} | what is the time when the wall turns to {wall}
    """,
    "EC.light": """
        when does it turn dark | when is it that the light turns dark | there is a light and it turns dark | it gets dark | this
        shows the room turn dark | which second shows the light turn dark | the time when the room gets dark | in this video it
        turns dark | dark is what the room turns | from when to when does the room turn dark | it happens that the light turns
        dark | what is the time when it gets dark
    """,
    "ES": """
        when is the wall seen in {wall} | at what time is there a {wall} wall | there is a {wall} wall | the {wall} wall is seen |
        this shows the {wall} wall | which second shows a {wall} wall | the time when the wall is {wall} | in this video there is
        a {wall} wall | {wall} is what the wall is | from when to when is the wall {wall} | it happens that the wall is {wall} |
        what is the time of the {wall} wall
    """,
    "ES.light": """
        when is it dark | at what time is there no light | there is a dark room | the dark room is seen | this shows a room with
        no light | which second shows no light | the time when the room is dark | in this video there is a room with no light |
        dark is what the room is | from when to when is the room dark | it happens that the light is out | what is the time of no
        light
    """,
}
POOL_PHRASES: Phrases = {form: tuple(" ".join(text.split()) for text in texts.split("|")) for form, texts in _POOL.items()}
"""Phrasings of the training pool and the test in distribution, which take the first few of each form: two questions, where the
base was taught statements, then both. Their words are in its vocabulary. As with a real model and a benchmark, what is asked
for is known and how it is asked for is not."""

MOST_PHRASINGS = 12
"""Phrasings of each form in `POOL_PHRASES`."""


def pool_phrases(count: int) -> Phrases:
    """The first `count` phrasings of each form of the pool: more of them hold the fewer."""
    return {form: texts[:count] for form, texts in POOL_PHRASES.items()}


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
