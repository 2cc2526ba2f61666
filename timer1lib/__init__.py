"""timer1: a notebook-driven workbook for temporal video grounding with reinforcement learning."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - a checkout may be on another Python's path
    sys.exit("timer1 needs Python 3.11 or later, and this is " + ".".join(map(str, sys.version_info[:2])))

__version__ = "0.1.0"
