"""What is asked. Our own wording; a template file brings a published checkpoint's own prompt instead.

A template is text with the fields `{query}` and `{duration}` (seconds, one decimal). Nothing else in braces is
touched, so a template may hold `\\boxed{}`.
"""

from __future__ import annotations

from collections.abc import Sequence

from timer1lib.errors import Timer1Error
from timer1lib.files import resolve

TEMPLATES: dict[str, str] = {
    "timer1": (
        'Find the part of this video that shows: "{query}". The video lasts {duration} seconds. '
        "First think it through between <think> and </think>, naming the times you noticed. "
        "Then give start and end in seconds with two decimals, as <answer>12.54 to 17.83</answer>."
    ),
    "timer1_direct": (
        'Find the part of this video that shows: "{query}". The video lasts {duration} seconds. '
        "Answer with start and end in seconds only, as <answer>12.54 to 17.83</answer>."
    ),
    "tvg_r1": (
        'When in this video does the following happen: "{query}"? The video lasts {duration} seconds. '
        "Reason between <think> and </think>, then answer in seconds as <time>[12.54, 17.83]</time>."
    ),
    "timelens": ('Give the time span of the event "{query}" in seconds, as "12.5 - 17.8 seconds". Answer with the span alone.'),
    "question": "{query}?\n{options}\nAnswer with the letter of the right option only.",
    "grounded_qa": (
        "{query}?\n{options}\nReason between <think> and </think>, give the part of the video that shows the answer in seconds "
        "as <time>[12.54, 17.83]</time>, then the letter of the right option as \\boxed{A}."
    ),
    "brief": "when: {query}?",
    "brief_question": "{query}?\n{options}\nletter:",
    "brief_grounded": "{query}?\n{options}\nwhen, letter:",
}
"""Named templates. `brief`, `brief_question` and `brief_grounded` are the embedded tiny model's own wording."""


def build(template: str, query: str, duration: float | None) -> str:
    """Fill a named template, or a template file, with a query and a duration in seconds.

    Raises:
        Timer1Error: no such template, or a file without `{query}`.
    """
    return build_text(load(template), query, duration)


def build_question(template: str, query: str, options: Sequence[str], duration: float | None, *, grounded: bool = False) -> str:
    """A multiple-choice question with lettered options, asked for the letter alone.

    Args:
        template: used where it has a field `{options}`; any other asks plainly (the tiny model's in its own wording).
        grounded: ask for the time span that shows the answer as well, the letter in `\\boxed{}`.
    """
    listed = "\n".join(f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(options))
    text = load(template)
    if "{options}" not in text:
        tiny = template == "brief"
        if grounded:
            text = TEMPLATES["brief_grounded" if tiny else "grounded_qa"]
        else:
            text = TEMPLATES["brief_question" if tiny else "question"]
    return build_text(text.replace("{options}", listed), query.rstrip("?"), duration)


def build_text(text: str, query: str, duration: float | None) -> str:
    """Fill the fields of a template's text."""
    shown = "unknown" if duration is None else f"{duration:.1f}"
    return text.replace("{duration}", shown).replace("{query}", query.strip().rstrip("."))


def load(template: str) -> str:
    """The text of a named template or of a template file."""
    if template in TEMPLATES:
        return TEMPLATES[template]
    try:
        path = resolve(template)
        text = path.read_text() if path.is_file() else None
    except (OSError, ValueError) as error:
        raise Timer1Error(f"prompt template {template!r}: cannot be read: {error}") from error
    if text is None:
        raise Timer1Error(f"prompt template {template!r}: neither a file nor one of {', '.join(TEMPLATES)}")
    if "{query}" not in text:
        raise Timer1Error(f"{path}: a prompt template needs the field {{query}}")
    return text
