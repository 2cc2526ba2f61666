"""Errors that a person caused and can mend."""

import difflib
from collections.abc import Iterable


class Timer1Error(Exception):
    """Bad input: one clear line that names the culprit and what to do. The command line prints it and exits 2."""


def shown(value: object, most: int = 60) -> str:
    """A value as a message shows it: cut to `most` characters, whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of too many digits, or nested too deep
        text = f"a very long {type(value).__name__}"
    return text if len(text) <= most else text[: most - 3] + "..."


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """`did you mean 'tiou'?` for the known name that is nearest; empty where none is near (`cutoff`, 0 to 1)."""
    near = difflib.get_close_matches(name[:100], list(known), n=1, cutoff=cutoff)
    return f"did you mean {near[0]!r}?" if near else ""
