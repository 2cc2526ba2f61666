"""Published results, as facts with their source. They stand beside ours and are never mixed with them."""

from __future__ import annotations

from dataclasses import dataclass

TIME_R1 = "Time-R1, arXiv 2503.13377v2"


@dataclass(frozen=True, slots=True)
class Published:
    """R1@0.3, R1@0.5 and R1@0.7 in percent, None where none is given."""

    model: str
    benchmark: str
    r1: tuple[float | None, float | None, float | None]
    setting: str
    source: str = TIME_R1


PUBLISHED: tuple[Published, ...] = (
    Published("Time-R1 7B", "TVGBench", (41.8, 29.4, 16.4), "zero-shot"),
    Published("Time-R1 7B", "Charades-STA", (78.1, 60.8, 35.3), "zero-shot"),
    Published("Time-R1 7B", "ActivityNet", (58.6, 39.0, 21.4), "zero-shot"),
    Published("Time-R1 7B", "Charades-STA", (82.8, 72.2, 50.1), "fine-tuned on the benchmark"),
    Published("Time-R1 7B", "ActivityNet", (73.3, 55.6, 34.0), "fine-tuned on the benchmark"),
    Published("TRACE", "TVGBench", (37.0, 25.5, 14.6), "as reported there"),
    Published("TRACE", "Charades-STA", (None, 40.3, 19.4), "as reported there"),
    Published("TimeSuite", "TVGBench", (31.1, 18.0, 8.9), "as reported there"),
    Published("TimeSuite", "Charades-STA", (69.9, 48.7, 24.0), "as reported there"),
    Published("VideoChat-Flash", "TVGBench", (32.8, 19.8, 10.4), "as reported there"),
    Published("VideoChat-Flash", "Charades-STA", (74.5, 53.1, 27.6), "as reported there"),
    Published("Gemini-2.5-Pro", "TVGBench", (39.1, 24.4, 12.8), "as reported there"),
    Published("HawkEye", "ActivityNet", (49.1, 29.3, 10.7), "as reported there"),
    Published("VTimeLLM", "ActivityNet", (44.0, 27.8, 14.3), "as reported there"),
)

COMPARISON_NOTE = "Time-R1's own script counts IoU > m; other papers mostly IoU >= m."


def published_rows(benchmark: str | None = None) -> list[dict[str, str | float | None]]:
    """Rows for a table, of one benchmark or of all."""
    return [
        {
            "benchmark": fact.benchmark,
            "model": fact.model,
            "setting": fact.setting,
            "R1@0.3": fact.r1[0],
            "R1@0.5": fact.r1[1],
            "R1@0.7": fact.r1[2],
            "source": fact.source,
        }
        for fact in sorted(PUBLISHED, key=lambda fact: fact.benchmark)
        if benchmark is None or fact.benchmark == benchmark
    ]
