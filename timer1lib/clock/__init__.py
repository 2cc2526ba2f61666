"""The only owner of time: from a container's timestamps to the position of every token.

A second in a file passes four stations, each with one place here, and nobody else multiplies by a frame rate:

1. `frames`: which frames are taken, by their own timestamps, and the step of the grid they were asked for on.
2. `told`: what the processor and the model are told about them: milliseconds that become `<12.4 seconds>` for
   Qwen3-VL, seconds per grid step for Qwen2.5-VL.
3. `positions`: the rule that turns grids and seconds into position ids, as published with each family.
4. `rule`: handing that rule to a loaded model wherever the installed transformers has another one.

`timer1lib.inference.clock_report` reads the result back from the tokens and positions and says how far off it is.
"""

from timer1lib.clock.frames import Choice, Frames, Sampling, choose_frames

__all__ = ["Choice", "Frames", "Sampling", "choose_frames"]
