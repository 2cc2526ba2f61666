"""Every parameter with its type, default, range and meaning: as rows to print, and as a JSON schema for editors."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from timer1lib.errors import Timer1Error, did_you_mean, shown
from timer1lib.params import SHARED_READ, Section
from timer1lib.params.sections import NOTEBOOKS, SECTIONS, Params, SharedParams

ALL: dict[str, type[Section]] = {"shared": SharedParams, **SECTIONS}
TYPES = {bool: "true or false", int: "whole number", float: "number", str: "text"}


def rows(section: str = "", values: Params | None = None, differing: bool = False) -> list[dict[str, str]]:
    """{parameter, type, default, range, read by, help} a parameter, and its value where `values` are given.

    Args:
        section: only this one's; all where it is empty.
        differing: only those whose value is not the default.
    """
    if section and section not in ALL:
        hint = did_you_mean(section, ALL) or f"there are {', '.join(ALL)}"
        raise Timer1Error(f"no section {shown(section)} of parameters; {hint}")
    found = []
    for name, model in ALL.items():
        for key, field in model.model_fields.items() if section in ("", name) else ():
            row = {"parameter": f"{name}.{key}", "type": _type(field), "default": _plain(field.default)}
            if values is not None:
                value = getattr(getattr(values, name), key)
                if differing and value == field.default:
                    continue
                row["value"] = _plain(value)
                row["source"] = "default" if value == field.default else "given"
            row |= {"range": _range(field), "read by": _readers(name, key), "help": field.description or ""}
            found.append(row)
    return found


def schema() -> dict[str, Any]:
    """A JSON schema of params files, by which an editor completes keys and marks mistakes."""
    made = Params.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "parameters of a timer1 run", **made}


def _type(field: FieldInfo) -> str:
    annotation = field.annotation
    if typing.get_origin(annotation) is typing.Literal:
        return " | ".join(map(str, typing.get_args(annotation)))
    if isinstance(annotation, types.UnionType):
        return " or ".join(TYPES.get(part, str(part)) for part in typing.get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return TYPES.get(annotation, str(annotation))  # type: ignore[arg-type]


def _range(field: FieldInfo) -> str:
    words = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = ((word, getattr(part, name, None)) for part in field.metadata for name, word in words.items())
    return ", ".join(f"{word} {value:g}" for word, value in bounds if value is not None)


def _readers(section: str, key: str) -> str:
    numbers = {name: notebook[:2] for name, notebook in zip(SECTIONS, NOTEBOOKS, strict=True)}
    return " ".join(
        number for name, number in numbers.items() if name == section or (section == "shared" and key in SHARED_READ[name])
    )


def _plain(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else f"{value}"
