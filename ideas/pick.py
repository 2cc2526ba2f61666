"""Which samples RL sees, by rules of one's own.

difficulty.rule: "ideas/pick.py:short_and_hard"    a weight to be drawn by
grpo.keep: "ideas/pick.py:still_learning"          what stays after an epoch
"""

from timer1lib.rules import Judged


def short_and_hard(s: Judged) -> float:
    """The harder and the shorter, the likelier; what the model never finds (IoU 0) is left out."""
    if s.iou <= 0:
        return 0.0
    length = sum(end - start for start, end in s.windows) / len(s.windows)
    return (1 - s.iou + 0.05) / (1 + length / s.duration)


def still_learning(s: Judged) -> bool:
    """Time-R1's bounds, a little wider in the first epoch."""
    return 0 < s.iou <= (0.8 if s.epoch == 1 else 0.7)
