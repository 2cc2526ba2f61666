"""Reading params files: every mistake is found before anything runs, and named with its nearest right key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from timer1lib.errors import Timer1Error, shown
from timer1lib.files import NOT_YAML, read_yaml, why_not_yaml
from timer1lib.forms import FORMS
from timer1lib.params import Section, split_list
from timer1lib.params.sections import Params

T = TypeVar("T", bound=Section)


TEST_SETS = ("test_files", "hub_test")
"""Lists that add up where several params files only test (`train_files: none`)."""


def load_params(path: str | Path, overrides: Sequence[str] = (), *more: str | Path) -> Params:
    """Read a params file, lay `more` of them over it, and apply `section.key=value` overrides; mistakes are Timer1Errors.

    Of a parameter that several files have the last one's value counts, but test sets of files that only test add up. The run is
    named after all of them, joined by dashes.
    """
    tree = _read(path)
    for other in more:
        _lay_over(tree, _read(other))
    for override in overrides:
        _override(tree, override)
    return validated(Params, tree, ", ".join(map(str, (path, *more))))


def _read(path: str | Path) -> dict[str, Any]:
    tree = read_yaml(path, "params file")
    if not isinstance(tree, dict):
        raise Timer1Error(f"{path}: a params file is a mapping with sections such as shared, curate, grpo")
    return {name: {} if section is None else section for name, section in tree.items()}


def _lay_over(tree: dict[str, Any], other: Mapping[str, Any]) -> None:
    for name, section in other.items():
        known = tree.get(name)
        if isinstance(section, Mapping) and isinstance(known, Mapping):
            before = dict(known)
            if name == "curate" and section.get("train_files") == "none":
                before |= _test_sets(known, section)
                section = {key: value for key, value in section.items() if key not in TEST_SETS}
            tree[name] = {**before, **section}
        else:
            tree[name] = f"{known}-{section}" if name == "name" and known is not None else section


def validated(model: type[T], tree: Mapping[str, Any], where: str) -> T:
    """`tree` as a `model`; the first mistake becomes one line that names key and place."""
    try:
        return model.model_validate(dict(tree))
    except ValidationError as error:
        raise Timer1Error(f"{where}: {_gone(tree) or explain(model, error)}") from error


def explain(model: type[BaseModel], error: ValidationError) -> str:
    """One line for the first mistake of a validation error."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    key = shown(".".join(path))
    if first["type"] == "extra_forbidden":
        return f"unknown parameter {key}{nearest(model, path)}"
    if first["type"] == "value_error":
        return f"parameter {key}: {first['ctx']['error']}" if path else str(first["ctx"]["error"])
    return f"parameter {key}: {first['msg'].lower()} (given {shown(first['input'])})"


def nearest(model: type[BaseModel], path: Sequence[str]) -> str:
    """`; did you mean 'grpo.beta'?` for a misspelt key, or where they are listed if none is near."""
    *section, last = path
    keys = all_keys(model)
    # A section is part of every key in it, and would make all of them alike: last names are compared, its own first.
    for among in ([key for key in keys if key.split(".")[:-1] == section], keys):
        by_last = {key.rpartition(".")[2]: key for key in reversed(among)}
        if near := difflib.get_close_matches(last[:100], by_last, n=1, cutoff=0.7):
            return f"; did you mean {by_last[near[0]]!r}?"
    known = model is Params and len(section) == 1 and section[0] in Params.model_fields
    return f"; timer1 params {section[0]} lists those that there are" if known else ""


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
    if not found:
        gone = "curate.cold_start_decimals"
        advice = "is gone: shared.form says how many digits are written (`decimals` in a form file)"
        return f"{gone} {advice}" if gone in flat else ""
    asked, read, written = (str(flat.get(key, default)) for key, default in _BEFORE_FORMS.items())
    name = "timer1_eval" if (asked, read) == ("timer1", "timer1_eval") else asked
    known = FORMS.get(name)
    ways = {"timer1": ("timer1", "timer1_direct", "plain")}  # the parser that is three readings now
    same_reading = known.reading.way in ways.get(read, (read,)) if known else read == "timer1"
    same_writing = "curate.cold_start_template" not in found or (known is not None and written in (name, name[len("timer1_") :]))
    if same_reading and same_writing:
        advice = f"write shared.form: {name}"
    else:
        advice = f"write shared.form: FILE.yaml, a file with `ask` (the text of {asked}), `read: {read}`"
        advice += f" and `write` (the text of {written})" if not same_writing else ""
    return f"{', '.join(found)}: gone, as one parameter, shared.form, says how answers are asked, written and read; {advice}"


def _test_sets(known: Mapping[str, Any], section: Mapping[str, Any]) -> dict[str, str]:
    """The test sets of a file that only tests, laid over another: with that one's where it only tests too, else without."""
    before = known if known.get("train_files") == "none" else {}
    lists = {key: split_list(f"{before.get(key, '')}, {section.get(key, '')}") for key in TEST_SETS}
    return {key: ", ".join(dict.fromkeys(names)) for key, names in lists.items()}


def _override(tree: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise Timer1Error(f"override {shown(text)}: write it as section.key=value")
    try:
        set_value(tree, path, yaml.safe_load(value))
    except NOT_YAML as error:
        raise Timer1Error(f"override {shown(text)}: the value is {why_not_yaml(error)}") from error
    except Timer1Error as error:
        raise Timer1Error(f"override {shown(text)}: {error}") from error


def set_value(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Put a value at `section.key` of a tree of parameters; a Timer1Error where that would replace a whole section."""
    node = tree
    *parents, last = path
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise Timer1Error(f"{shown(parent)} is not a section")
        node = child
    if not parents and last in Params.model_fields and last != "name":
        raise Timer1Error(f"{last!r} is a section: write {last}.KEY")
    node[last] = value
