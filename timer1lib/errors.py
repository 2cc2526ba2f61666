"""Errors that a person caused and can mend."""


class Timer1Error(Exception):
    """Bad input: one clear line that names the culprit and what to do. The command line prints it and exits 2."""


def shown(value: object, most: int = 60) -> str:
    """A value as a message shows it: cut to `most` characters, whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of too many digits, or nested too deep
        text = f"a very long {type(value).__name__}"
    return text if len(text) <= most else text[: most - 3] + "..."
