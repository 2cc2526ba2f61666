"""Reading params files: every mistake is found before anything runs, and named with its nearest right key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from timer1lib.errors import Timer1Error
from timer1lib.files import read_yaml
from timer1lib.forms import FORMS
from timer1lib.params import Section
from timer1lib.params.sections import Params

T = TypeVar("T", bound=Section)


def load_params(path: str | Path, overrides: Sequence[str] = ()) -> Params:
    """Read a params file and apply `section.key=value` overrides.

    Raises:
        Timer1Error: no such file, not YAML, an unknown key (with the nearest right one), a wrong type, a value
            out of range.
    """
    tree = read_yaml(path, "params file")
    if not isinstance(tree, dict):
        raise Timer1Error(f"{path}: a params file is a mapping with sections such as shared, curate, grpo")
    tree = {name: {} if section is None else section for name, section in tree.items()}
    for override in overrides:
        _override(tree, override)
    return validated(Params, tree, str(path))


def validated(model: type[T], tree: Mapping[str, Any], where: str) -> T:
    """`tree` as a `model`; the first mistake becomes one line that names key and place."""
    try:
        return model.model_validate(dict(tree))
    except ValidationError as error:
        raise Timer1Error(f"{where}: {_gone(tree) or explain(model, error)}") from error


def explain(model: type[BaseModel], error: ValidationError) -> str:
    """One line for the first mistake of a validation error."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        return f"unknown parameter {key!r}{nearest(model, path)}"
    if first["type"] == "value_error":
        return f"parameter {key!r}: {first['ctx']['error']}"
    given = repr(first["input"])
    return f"parameter {key!r}: {first['msg'].lower()} (given {given if len(given) <= 60 else given[:57] + '...'})"


def nearest(model: type[BaseModel], path: Sequence[str]) -> str:
    """`; did you mean 'grpo.beta'?` for a misspelt key, or nothing where none is near."""
    keys = all_keys(model)
    wrong = ".".join(path)
    elsewhere = [key for key in keys if key.rsplit(".", 1)[-1] == path[-1] and key != wrong]
    if elsewhere:
        return f"; did you mean {elsewhere[0]!r}?"
    match = difflib.get_close_matches(wrong, keys, n=1, cutoff=0.6)
    if not match:
        by_last = {key.rsplit(".", 1)[-1]: key for key in keys}
        near = difflib.get_close_matches(path[-1], by_last, n=1, cutoff=0.6)
        match = [by_last[near[0]]] if near else []
    return f"; did you mean {match[0]!r}?" if match else ""


def all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of every parameter, sections included."""
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += all_keys(field.annotation, f"{prefix}{name}.")
    return keys


_BEFORE_FORMS = {"shared.template": "brief", "shared.parser": "timer1", "curate.cold_start_template": "brief"}
"""Three parameters that had to agree and are `shared.form` now, with the values that they had where they were left out."""


def _gone(tree: Mapping[str, Any]) -> str:
    """What to write in place of parameters that there are no more; empty where none of them is in the tree."""
    sections = {name: section for name, section in tree.items() if isinstance(section, Mapping)}
    flat = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    found = [key for key in _BEFORE_FORMS if key in flat]
    if not found and "curate.cold_start_decimals" in flat:
        return "curate.cold_start_decimals is gone: shared.form says how many digits are written (`decimals` in a form file)"
    if not found:
        return ""
    asked, read, written = (str(flat.get(key, default)) for key, default in _BEFORE_FORMS.items())
    name = "timer1_eval" if (asked, read) == ("timer1", "timer1_eval") else asked
    known = FORMS.get(name)
    same_reading = known.reading.way in (read, f"{read}_direct") if known else read == "timer1"
    same_writing = "curate.cold_start_template" not in found or (known is not None and written in (name, name[len("timer1_") :]))
    if same_reading and same_writing:
        advice = f"write shared.form: {name}"
    else:
        advice = f"write shared.form: FILE.yaml, a file with `ask` (the text of {asked}), `read: {read}`"
        advice += f" and `write` (the text of {written})" if not same_writing else ""
    return f"{', '.join(found)}: gone, as one parameter, shared.form, says how answers are asked, written and read; {advice}"


def _override(tree: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise Timer1Error(f"override {text!r}: write it as section.key=value")
    node = tree
    *parents, last = key.strip().split(".")
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise Timer1Error(f"override {text!r}: {parent!r} is not a section")
        node = child
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise Timer1Error(f"override {text!r}: the value is not YAML") from error
