"""What is asked. Our own wording; a template file brings a published checkpoint's own prompt instead.

A template is text with the fields `{query}` and `{duration}` (seconds, one decimal). Nothing else in braces is
touched, so a template may hold `\\boxed{}`.
"""

from __future__ import annotations

from pathlib import Path

from timer1lib.errors import Timer1Error

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
    "timelens": (
        'Give the time span of the event "{query}" in seconds, as "12.5 - 17.8 seconds". Answer with the span alone.'
    ),
    "brief": "when: {query}?",
}
"""Named templates. `brief` is the embedded tiny model's: it was trained on that wording."""


def build(template: str, query: str, duration: float | None) -> str:
    """Fill a named template, or a template file, with a query and a duration in seconds.

    Raises:
        Timer1Error: no such template, or a file without `{query}`.
    """
    text = load(template)
    return text.replace("{duration}", "unknown" if duration is None else f"{duration:.1f}").replace("{query}", query.strip().rstrip("."))


def load(template: str) -> str:
    """The text of a named template or of a template file."""
    if template in TEMPLATES:
        return TEMPLATES[template]
    path = Path(template)
    if not path.is_file():
        raise Timer1Error(f"prompt template {template!r}: neither a file nor one of {', '.join(TEMPLATES)}")
    text = path.read_text()
    if "{query}" not in text:
        raise Timer1Error(f"{path}: a prompt template needs the field {{query}}")
    return text
