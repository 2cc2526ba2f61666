"""The ways in which a model can be told times, as small models to test on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timer1lib.world.base.tiny import build_tiny

KINDS = ("qwen3_vl", "qwen2_5_vl", "qwen2_5_vl_text")
"""The last is a Qwen2.5-VL whose times are written before each frame pair."""


def build_kind(folder: Path, kind: str, **options: Any) -> Path:
    family: Any = kind.removesuffix("_text")
    return build_tiny(folder, family, textual=kind.endswith("_text"), **options)
