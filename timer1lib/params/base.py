"""The base of every parameter section: scalars only, nothing unknown, every field with a sentence of help."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One section of a params file. Lists are written as comma-separated text, so that papermill can inject them."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def split_list(text: str) -> list[str]:
    """`"a, b"` -> `["a", "b"]`; empty text is an empty list."""
    return [part.strip() for part in text.split(",") if part.strip()]
