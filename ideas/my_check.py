"""Checks of the audit of one's own.

    curate.checks: "ideas/my_check.py:too_still:drop, ideas/my_check.py:two_events"

What they find stands in the audit by their name; `:drop` behind one drops the rows that it finds.
"""

import re

from timer1lib.rules import Audited

STILL = 1.0
"""Grey levels (of 255) by which pictures of a moving video differ at least, on average."""


def too_still(row: Audited) -> str | None:
    """Nothing moves in the video, so nothing can be found in it by when it happens."""
    pictures = row.frames(8).astype(float).mean(axis=-1)
    change = abs(pictures[1:] - pictures[:-1]).mean()
    return f"pictures differ by {change:.2f} grey levels" if change < STILL else None


def two_events(row: Audited) -> str | None:
    """The query names two events in a row, and one window cannot say which of them it is about."""
    found = re.search(r"\b(?:and then|after that|before that)\b", row.query.lower())
    return f"{found[0]!r} in {row.query!r}" if found else None
