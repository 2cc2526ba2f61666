"""timer1: a notebook-driven workbook for temporal video grounding with reinforcement learning."""

__version__ = "0.1.0"
