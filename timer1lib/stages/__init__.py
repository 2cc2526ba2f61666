"""What the notebooks call. `open_stage` turns a notebook's parameters into a typed, validated stage."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from pydantic import create_model

from timer1lib.files import resolve
from timer1lib.params import SHARED_READ, Section
from timer1lib.params.load import validated
from timer1lib.params.sections import SECTIONS, SharedParams
from timer1lib.progress import quiet_libraries
from timer1lib.runfolder import RunFolder

P = TypeVar("P", bound=Section)


@dataclass(frozen=True, slots=True)
class Stage(Generic[P]):
    """One notebook's view of a run."""

    name: str
    run: RunFolder
    shared: SharedParams
    """Only what `SHARED_READ` says that this stage reads: any other parameter is an AttributeError."""
    params: P

    def __post_init__(self) -> None:
        view = _shared_of(self.name)
        seen = view.model_construct(**{name: getattr(self.shared, name) for name in view.model_fields})
        object.__setattr__(self, "shared", cast(SharedParams, seen))


@lru_cache
def _shared_of(name: str) -> type[Section]:
    """The shared parameters that a stage reads, as a model of their own."""
    fields = {key: (field.annotation, field) for key, field in SharedParams.model_fields.items() if key in SHARED_READ[name]}
    return cast(type[Section], create_model(f"SharedParamsOf_{name}", __base__=Section, **fields))  # type: ignore[call-overload]


def open_stage(name: str, parameters: Mapping[str, Any]) -> Stage[Any]:
    """Validate a notebook's parameters (its `globals()`) and open its run.

    Raises:
        Timer1Error: a parameter has a wrong type or value; names it.
    """
    quiet_libraries()
    section = SECTIONS[name]
    shared = {key: parameters[key] for key in SHARED_READ[name] if key in parameters}
    own = {key: parameters[key] for key in section.model_fields if key in parameters}
    folder = resolve(Path(str(parameters.get("run_dir", "outputs/tiny"))))
    folder.mkdir(parents=True, exist_ok=True)
    where = f"notebook {name}"
    stage = Stage(name, RunFolder(folder), validated(SharedParams, shared, where), validated(section, own, where))
    if "threads" in SHARED_READ[name] and stage.shared.threads:
        # read when torch is first imported, which is after this: threads that wait for each other cost more than they do
        os.environ["OMP_NUM_THREADS"] = str(stage.shared.threads)
    return stage
