"""What the notebooks call. `open_stage` turns a notebook's parameters into a typed, validated stage."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from timer1lib.files import resolve
from timer1lib.params.base import Section
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
    params: P


def open_stage(name: str, parameters: Mapping[str, Any]) -> Stage[Any]:
    """Validate a notebook's parameters (its `globals()`) and open its run.

    Raises:
        Timer1Error: a parameter has a wrong type or value; names it.
    """
    quiet_libraries()
    section = SECTIONS[name]
    shared = {key: parameters[key] for key in SharedParams.model_fields if key in parameters}
    own = {key: parameters[key] for key in section.model_fields if key in parameters}
    folder = resolve(Path(str(parameters.get("run_dir", "outputs/tiny"))))
    folder.mkdir(parents=True, exist_ok=True)
    where = f"notebook {name}"
    stage = Stage(name, RunFolder(folder), validated(SharedParams, shared, where), validated(section, own, where))
    if stage.shared.threads:
        # read when torch is first imported, which is after this: threads that wait for each other cost more than they do
        os.environ["OMP_NUM_THREADS"] = str(stage.shared.threads)
    return stage
