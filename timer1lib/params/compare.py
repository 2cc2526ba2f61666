"""Parameters of 07_compare: which runs stand side by side."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from timer1lib.params.base import Section


class CompareParams(Section):
    runs: str = Field(
        "",
        description="runs to compare, folders or names under outputs/, comma-separated; empty: this run alone",
    )
    checkpoint: str = Field("", description="checkpoint of every run that is compared; empty: the last that each has")
    comparison: Literal["reaches", "exceeds"] = Field(
        "reaches", description="R1@m counts an IoU that reaches m (most papers) or exceeds it (the script of Time-R1)"
    )
    resamples: int = Field(2000, ge=100, le=100_000, description="bootstrap resamples of the intervals, drawn over videos")
    benchmark: Literal["all", "TVGBench", "Charades-STA", "ActivityNet"] = Field(
        "all", description="published results shown below"
    )
