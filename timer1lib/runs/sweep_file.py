"""Reading a sweep file: every row becomes a validated params model before anything runs."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from timer1lib.errors import Timer1Error
from timer1lib.files import read_yaml, resolve
from timer1lib.params.base import Section
from timer1lib.params.load import explain, load_params, validated
from timer1lib.params.sections import Params

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._=+-]*$"


class RowSpec(Section):
    """A listed row."""

    name: str = Field(pattern=_NAME, description="the row's name, and its folder's")
    set: dict[str, Any] = Field(default_factory=dict, description="parameters of this row: section.key: value")


class SweepSpec(Section):
    """A sweep file. Rows are `rows` times `grid` times `seeds`; what is left out counts once."""

    name: str = Field(pattern=_NAME, description="the sweep is outputs/sweeps/<name>")
    about: str = Field("", description="what is asked, in a sentence or two")
    base: str = Field("params/tiny.yaml", description="params file that every row starts from")
    until: str = Field("05", description="last stage of every row")
    set: dict[str, Any] = Field(default_factory=dict, description="parameters of every row: section.key: value")
    rows: list[RowSpec] = Field(default_factory=list, description="listed rows")
    grid: dict[str, list[Any]] = Field(default_factory=dict, description="section.key: values; all combinations")
    seeds: list[int] = Field(default_factory=list, description="run everything once for each of these seeds")
    pairs: list[tuple[str, str]] = Field(
        default_factory=list, description="rows (or row/checkpoint) to compare over seeds, [from, to]; empty: all with the first"
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One run of a sweep. `variant` is its name without the seed."""

    name: str
    variant: str
    seed: int
    params: Params
    changes: dict[str, Any]


def read_sweep(path: str | Path, overrides: Sequence[str] = (), seeds: Sequence[int] = ()) -> tuple[SweepSpec, list[Row]]:
    """A sweep file with every row's parameters resolved and checked.

    Args:
        overrides: `section.key=value`, applied to the base before any row's own.
        seeds: in place of the file's.

    Raises:
        Timer1Error: names the file, the row and the parameter.
    """
    path = resolve(path)
    tree = read_yaml(path, "sweep file")
    if not isinstance(tree, dict):
        raise Timer1Error(f"{path}: a sweep file is a mapping with name, base, rows or grid")
    try:
        spec = SweepSpec.model_validate(tree)
    except ValidationError as error:
        raise Timer1Error(f"{path}: {explain(SweepSpec, error)}") from error
    base_path = path.parent / spec.base if (path.parent / spec.base).is_file() else resolve(spec.base)
    base = load_params(base_path, overrides)
    rows = list(_rows(path, spec, base, list(seeds) or spec.seeds or [base.shared.seed]))
    unknown = sorted({end.split("/")[0] for pair in spec.pairs for end in pair} - {row.variant for row in rows})
    if unknown:
        raise Timer1Error(f"{path}: pairs name the row {unknown[0]!r}, which there is not")
    repeated = [row.name for i, row in enumerate(rows) if any(row.name == other.name for other in rows[:i])]
    if repeated:
        raise Timer1Error(f"{path}: two rows are named {repeated[0]!r}")
    return spec, rows


def _rows(path: Path, spec: SweepSpec, base: Params, seeds: Sequence[int]) -> Sequence[Row]:
    rows = []
    listed = spec.rows or [RowSpec(name="all")]
    keys = list(spec.grid)
    for row, values in itertools.product(listed, itertools.product(*spec.grid.values())):
        chosen = dict(zip(keys, values, strict=True))
        parts = [row.name] if spec.rows or not chosen else []
        variant = ".".join([*parts, *(f"{key.rsplit('.', 1)[-1]}={_plain(value)}" for key, value in chosen.items())])
        changes = {**spec.set, **row.set, **chosen}
        for seed in seeds:
            name = variant if len(seeds) == 1 else f"{variant}.s{seed}"
            tree = _changed(base.model_dump(), {"shared.seed": seed, **changes, "name": name.replace("=", "-").replace("+", "-")})
            rows.append(Row(name, variant, seed, validated(Params, tree, f"{path}, row {name!r}"), changes))
    return rows


def _changed(tree: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    tree = copy.deepcopy(tree)
    for key, value in changes.items():
        node = tree
        *parents, last = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise Timer1Error(f"{key!r}: {parent!r} is not a section")
        node[last] = value
    return tree


def _plain(value: Any) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", str(value)).strip("-") or "none"
