"""An answer form of one's own: times as whole percent of the video, "from 25% to 40%".

    shared.form: "ideas/percent.py:percent"

A form is three functions: what is asked, which segments in seconds a completion answers, and what SFT is to imitate.
"""

import re

from timer1lib.forms import OwnForm
from timer1lib.schema import Sample, Window

SPAN = re.compile(r"from (\d{1,3}(?:\.\d)?)% to (\d{1,3}(?:\.\d)?)%")


def ask(query: str, duration: float | None) -> str:
    """What the model is asked; `duration` in seconds."""
    return f"when, in percent: {query}?"


def read(completion: str, duration: float | None) -> list[Window]:
    """The last pair of percentages as seconds; none without one, or where nobody knows how long the video is."""
    found = SPAN.findall(completion)
    if not found or not duration:
        return []
    start, end = (float(edge) / 100 * duration for edge in found[-1])
    return [(start, end)]


def write(sample: Sample, window: Window) -> str:
    """What SFT imitates for a true window in seconds."""
    start, end = (100 * edge / (sample.duration or window[1]) for edge in window)
    return f"from {start:.1f}% to {end:.1f}%"


percent = OwnForm(ask, read, write)
