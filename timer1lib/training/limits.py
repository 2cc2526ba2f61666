"""Bounds that the trainer keeps and the estimate counts with; light, as the estimate loads no torch."""

ROLLOUT_TOKENS = 32_768
"""Prompt tokens that are sampled from together at most; what is sampled does not depend on it."""
