"""A reward of one's own: how well each edge of the segment is hit, whatever the rest of it does.

    grpo.rewards: "ideas/edges.py:edge_iou:1.0, format:1.0"

IoU forgives a wrong start where the end is right by a long way; this one does not.
"""

from timer1lib.rewards import RewardInput
from timer1lib.spans import iou

TOLERANCE = 0.1
"""Error of an edge, as a share of the window's length, at which its factor has fallen to one half."""


def near(error: float, length: float) -> float:
    """1 where an edge is hit, 0.5 where it is off by TOLERANCE of the window's length, towards 0 beyond."""
    return 1 / (1 + error / (TOLERANCE * length))


def edge_iou(x: RewardInput) -> float:
    """IoU, times the mean of how near start and end are: 0 to 1."""
    if x.span is None or x.window is None or x.window[1] <= x.window[0]:
        return 0.0
    (start, end), (true_start, true_end) = x.span, x.window
    length = true_end - true_start
    return iou(x.span, x.window) * (near(abs(start - true_start), length) + near(abs(end - true_end), length)) / 2
