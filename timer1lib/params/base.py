"""The base of every parameter section: scalars only, nothing unknown, every field with a sentence of help."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

CANNOT_CHANGE_RESULTS = frozenset({"cache_dir", "cache_gb", "workers"})
"""Parameters that say where and how fast something is worked out, never what: no key and no ledger holds them."""


class Section(BaseModel):
    """One section of a params file. Lists are written as comma-separated text, so that papermill can inject them."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def split_list(text: str) -> list[str]:
    """`"a, b"` -> `["a", "b"]`; empty text is an empty list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def result_parameters(section: Section) -> dict[str, Any]:
    """A section's values without those that cannot change a result."""
    return section.model_dump(exclude=set(CANNOT_CHANGE_RESULTS))
