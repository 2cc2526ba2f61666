"""A sweep file: rows, a grid and seeds, resolved into one set of parameters a row and checked before anything starts."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from timer1lib.errors import Timer1Error, shown
from timer1lib.files import read_yaml, resolve
from timer1lib.params import Section
from timer1lib.params.load import explain, load_params, set_value, validated
from timer1lib.params.sections import Params

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._=+-]{0,99}$"


class RowSpec(Section):
    """A listed row."""

    name: str = Field(pattern=_NAME, description="the row's name, and its folder's")
    set: dict[str, Any] = Field(default_factory=dict, description="parameters of this row: section.key: value")
    at: list[dict[str, Any]] = Field(
        default_factory=list, description="only at these points of the grid, each with a value for every key; empty: at all"
    )


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
        default_factory=list,
        description="rows (or row/checkpoint) to compare, [from, to], at each point of the grid; empty: all with the first",
    )
    minutes: float | None = Field(
        None, gt=0, description="minutes that a row took when this was written, by which the sweep says how long it will take"
    )
    gpus: float | None = Field(
        None, ge=0, le=1024, description="cards a row, or a part of one (0.5); left out: 1 where there are cards"
    )
    cpus: int | None = Field(None, ge=1, le=4096, description="cores a row; left out: an even share here, 1 on a cluster")
    slurm: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="options of sbatch: partition, time (minutes), account, qos, ..."
    )

    @field_validator("gpus")
    @classmethod
    def _whole_or_part(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and value != int(value):
            raise ValueError("a whole number of cards, or a part of one card (below 1)")
        return value


@dataclass(frozen=True, slots=True)
class Row:
    """One run of a sweep. `variant` is its name without the seed, `way` the listed row's, `at` its point of the grid."""

    name: str
    variant: str
    seed: int
    params: Params
    changes: dict[str, Any]
    way: str = ""
    at: dict[str, Any] = field(default_factory=dict)


def read_sweep(path: str | Path, overrides: Sequence[str] = (), seeds: Sequence[int] = ()) -> tuple[SweepSpec, list[Row]]:
    """A sweep file with every row's parameters resolved and checked; a Timer1Error names file, row and parameter.

    Args:
        overrides: `section.key=value`, applied to the base before any row's own.
        seeds: in place of the file's.
    """
    path = resolve(path)
    tree = read_yaml(path, "sweep file")
    if not isinstance(tree, dict):
        raise Timer1Error(f"{path}: a sweep file is a mapping with name, base, rows or grid")
    try:
        spec = SweepSpec.model_validate(tree)
    except ValidationError as error:
        raise Timer1Error(f"{path}: {explain(SweepSpec, error)}") from error
    if "rows" in tree and not (spec.rows or spec.grid or spec.seeds or seeds):
        raise Timer1Error(f"{path}: rows is empty, and there is neither a grid nor seeds: nothing to run")
    if empty := [key for key, values in spec.grid.items() if not values]:
        raise Timer1Error(f"{path}: grid {shown(empty[0])} has no value")
    base_path = path.parent / spec.base if (path.parent / spec.base).is_file() else resolve(spec.base)
    base = load_params(base_path, overrides)
    rows = list(_rows(path, spec, base, list(seeds) or spec.seeds))
    named = {end.split("/")[0] for pair in variant_pairs(spec.pairs, rows) for end in pair}
    if unknown := sorted(named - {row.variant for row in rows}):
        raise Timer1Error(f"{path}: pairs name the row {unknown[0]!r}, which there is not")
    if repeated := [name for name, count in Counter(row.name for row in rows).items() if count > 1]:
        raise Timer1Error(f"{path}: two rows are named {repeated[0]!r}")
    return spec, rows


def variant_pairs(pairs: Sequence[tuple[str, str]], rows: Sequence[Row]) -> list[tuple[str, str]]:
    """A sweep's pairs as pairs of variants: listed rows at every point of the grid where both stand, any other as it is."""
    return [pair for named in pairs for pair in _at_every_point(named, rows)]


def _at_every_point(named: tuple[str, str], rows: Sequence[Row]) -> list[tuple[str, str]]:
    (one, _, first), (two, _, second) = (end.partition("/") for end in named)
    ends = [{str(row.at): row.variant for row in rows if row.way == way and row.variant != way} for way in (one, two)]
    if not all(ends):
        return [named]
    asked = [f"/{checkpoint}" * bool(checkpoint) for checkpoint in (first, second)]
    return [(ends[0][point] + asked[0], ends[1][point] + asked[1]) for point in ends[0] if point in ends[1]]


def _rows(path: Path, spec: SweepSpec, base: Params, seeds: Sequence[int]) -> Sequence[Row]:
    rows = []
    listed = spec.rows or [RowSpec(name="all")]
    keys = list(spec.grid)
    points = [dict(zip(keys, values, strict=True)) for values in itertools.product(*spec.grid.values())]
    for row in listed:
        if strange := [point for point in row.at if point not in points]:
            raise Timer1Error(f"{path}, row {row.name!r}: at {shown(strange[0])} is no point of the grid ({', '.join(keys)})")
    for row, chosen in itertools.product(listed, points):
        if row.at and chosen not in row.at:
            continue
        parts = [row.name] if spec.rows or not chosen else []
        variant = ".".join([*parts, *(f"{key.rsplit('.', 1)[-1]}={_plain(value)}" for key, value in chosen.items())])
        changes = {**spec.set, **row.set, **chosen}
        for reserved in ("name", *(["shared.seed"] if seeds else [])):
            if reserved in changes:
                raise Timer1Error(f"{path}, row {variant!r}: {reserved} cannot be set; a row has the name and seed of its own")
        for seed in seeds or [changes.get("shared.seed", base.shared.seed)]:
            name = variant if len(seeds) <= 1 else f"{variant}.s{shown(seed)}"
            if len(name) > 200:
                raise Timer1Error(f"{path}: the row's name {shown(name)} is too long for a folder")
            tree = base.model_dump()
            try:
                for key, value in {"shared.seed": seed, **changes, "name": "row"}.items():
                    set_value(tree, key.split("."), value)
            except Timer1Error as error:
                raise Timer1Error(f"{path}, row {name!r}: {error}") from error
            tree["name"] = re.sub("[=+]", "-", name)[:100]
            params = validated(Params, tree, f"{path}, row {name!r}")
            rows.append(Row(name, variant, params.shared.seed, params, changes, row.name if spec.rows else "", chosen))
    return rows


def _plain(value: Any) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", str(value)).strip("-") or "none"
