"""Errors that a person caused and can mend."""


class Timer1Error(Exception):
    """Bad input: one clear line that names the culprit and what to do. The command line prints it and exits 2."""
