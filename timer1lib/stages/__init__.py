"""What the notebooks call. `open_stage` turns a notebook's parameters into a typed, validated stage.

A notebook that a person runs does by itself what `timer1 run` does around it: it holds the run's folder, works in the
stage's work folder, and publishes with a stamp, so that the runner skips the stage afterwards.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from pydantic import create_model

from timer1lib.errors import Timer1Error
from timer1lib.files import project_root, resolve
from timer1lib.params import SHARED_READ, Section
from timer1lib.params.load import validated
from timer1lib.params.sections import SECTIONS, Params, SharedParams
from timer1lib.progress import RUNNER_VARIABLE, quiet_libraries
from timer1lib.runfolder import OWNED, RunFolder
from timer1lib.runs import stamps
from timer1lib.runs.graph import StageRef, find_stage
from timer1lib.runs.kernel import Held
from timer1lib.runs.keys import changed_parts, stage_key
from timer1lib.runs.manifest import disk_line
from timer1lib.workers.launch import warm

P = TypeVar("P", bound=Section)


@dataclass(frozen=True, slots=True)
class Stage(Generic[P]):
    """One notebook's view of a run."""

    name: str
    run: RunFolder
    shared: SharedParams
    """Only what `SHARED_READ` says that this stage reads: any other parameter is an AttributeError."""
    params: P
    finished: bool = False
    """Its result stands already: it is read and shown, and nothing is written."""
    session: Session | None = None
    given: Given | None = None
    """Where a person runs the notebook: what it was opened with."""

    def __post_init__(self) -> None:
        view = _shared_of(self.name)
        seen = view.model_construct(**{name: getattr(self.shared, name) for name in view.model_fields})
        object.__setattr__(self, "shared", cast(SharedParams, seen))

    def adopt(self, **values: str) -> None:
        """Take parameters that a cell gives in place of the stage's own; they are in its key from now on.

        Raises:
            Timer1Error: a value that is none, or the stage is finished with others, which only `overwrite` may replace.
        """
        params = validated(type(self.params), self.params.model_dump() | values, f"notebook {self.name}")
        if self.given is None:
            object.__setattr__(self, "params", params)
            return
        given = replace(self.given, params=self.given.params.model_copy(update={self.name: params}))
        if self.session is not None:
            self.session.take(given.params)
            changed: dict[str, Any] = {"params": params, "given": given}
        else:
            anew = _by_hand(Stage(self.name, RunFolder(self.run.root), self.shared, params), given, sure=True)
            changed = {name: getattr(anew, name) for name in ("run", "params", "finished", "session", "given")}
        for name, value in changed.items():
            object.__setattr__(self, name, value)

    def finish(self) -> str:
        """The last cell of a notebook that writes: put what it made into its place, and say so. The runner does its own."""
        if self.session is not None and not self.finished:
            self.session.publish()
            object.__setattr__(self, "run", RunFolder(self.run.root))
            object.__setattr__(self, "finished", True)
            return f"finished; the result stands in {self.run.root}"
        return f"the finished result of {self.run.root} was shown" if self.finished else "done"


@dataclass(frozen=True, slots=True)
class Given:
    """What a person opened a stage with."""

    params: Params
    overwrite: bool


OWN_IDEAS = {"curate": {"checks"}, "difficulty": {"rule"}, "grpo": {"rewards", "keep"}}
"""Parameters that a cell may give (`Stage.adopt`), so that what the stage is made from is known only then."""


class Session:
    """A notebook that a person runs on a stage that is not finished: it holds the run's folder until it is."""

    def __init__(self, run: RunFolder, stage: StageRef, parts: dict[str, Any], held: Held) -> None:
        self.run, self.stage, self.parts, self.held = run, stage, parts, held
        self.key = stage_key(parts)
        _, self.before = stamps.begin(run, stage, self.key)
        self.started = time.monotonic()

    def take(self, params: Params) -> None:
        """Go on under other parameters; what is written so far does not depend on them."""
        self.parts = _parts(params, self.run, self.stage)
        self.key = stage_key(self.parts)
        stamps.go_on_as(self.run, self.stage, self.key)

    def publish(self) -> None:
        self.held.check()
        stamps.finish(self.run, self.stage, self.key, self.parts, self.before, time.monotonic() - self.started)
        release(self.run.root)


_HELD: dict[Path, Held] = {}
"""Folders that this kernel holds: a cell that is run twice opens its stage twice."""


def hold(root: Path, who: str) -> Held:
    """Keep a folder for this kernel alone; a Timer1Error where another process has it."""
    held = _HELD[root] = _HELD.get(root) or Held(root, who)
    return held


def release(root: Path) -> None:
    """Let others write into a run folder that a notebook of this process held."""
    if held := _HELD.pop(root.resolve(), None):
        held.release()


@lru_cache
def _shared_of(name: str) -> type[Section]:
    """The shared parameters that a stage reads, as a model of their own."""
    fields = {key: (field.annotation, field) for key, field in SharedParams.model_fields.items() if key in SHARED_READ[name]}
    return cast(type[Section], create_model(f"SharedParamsOf_{name}", __base__=Section, **fields))  # type: ignore[call-overload]


def open_stage(name: str, parameters: Mapping[str, Any]) -> Stage[Any]:
    """Validate a notebook's parameters (its `globals()`) and open its run.

    A finished stage with the same parameters is opened to be shown; with others it is refused, unless `overwrite`.

    Raises:
        Timer1Error: names the wrong parameter, what differs from the finished stage's, or the process that holds the folder.
    """
    quiet_libraries()
    section = SECTIONS[name]
    shared = {key: parameters[key] for key in SHARED_READ[name] if key in parameters}
    own = {key: parameters[key] for key in section.model_fields if key in parameters}
    run = RunFolder(resolve(Path(str(parameters.get("run_dir", "outputs/tiny")))))
    where = f"notebook {name}"
    stage = Stage(name, run, validated(SharedParams, shared, where), validated(section, own, where))
    run.root.mkdir(parents=True, exist_ok=True)
    if "threads" in SHARED_READ[name] and stage.shared.threads:
        # read when torch is first imported, which is after this: threads that wait for each other cost more than they do
        os.environ["OMP_NUM_THREADS"] = str(stage.shared.threads)
    if not OWNED[name]:
        return stage
    if "processes" in SHARED_READ[name] and getattr(stage.params, "enabled", True):
        warm()
    if RUNNER_VARIABLE in os.environ:
        return Stage(name, RunFolder(run.root, name), stage.shared, stage.params)
    given = Given(validated(Params, {"shared": shared, name: own}, where), bool(parameters.get("overwrite", False)))
    return _by_hand(stage, given, sure=name not in OWN_IDEAS)


def _by_hand(stage: Stage[Any], given: Given, *, sure: bool) -> Stage[Any]:
    """The stage as its run has it: finished, to be begun or gone on with, or refused. Not `sure`: a cell may still `adopt`."""
    params, run, ref = given.params, stage.run, find_stage(stage.name)
    root = run.root.resolve()
    if stage.name == "curate":  # it needs nothing of a run, so any folder would do
        stamps.refuse_foreign(root)
    held = hold(root, f"notebook {ref.notebook}")
    opened = partial(Stage, stage.name, shared=stage.shared, params=stage.params, given=given)
    try:
        stamps.clean(run)
        parts = _parts(params, run, ref)
        stamp = stamps.read_stamp(run, ref)
        open_still = set() if sure else OWN_IDEAS[stage.name]
        changed = changed_parts(_without(stamp.parts, open_still), _without(parts, open_still)) if stamp else "not there"
        differs = changed or (stamps.damaged(run, stamp) or "" if stamp else "")
        if stamp and differs and not given.overwrite and not stamp.parts["params"].get("shard"):
            raise Timer1Error(
                f"{ref.notebook} is finished in {run.root} with something else: {differs}. "
                "Set overwrite = True to replace it, or another run_dir"
            )
        if (not differs and not given.overwrite) or (differs and sure and stamps.bring_back(run, ref, stage_key(parts))):
            if sure:
                release(run.root)
            return opened(run=run, finished=True)
        if stage.name in ("difficulty", "evaluate"):
            sys.stdout.write(disk_line(params, run.root, (stage.name,)) + "\n")
        # 04 writes nothing before its key is certain; else a killed training under a cell's ideas would be taken for another's
        session = Session(run, ref, parts, held) if sure or stage.name != "grpo" else None
        return opened(run=RunFolder(run.root, stage.name), session=session)
    except BaseException:
        release(run.root)
        raise


def _parts(params: Params, run: RunFolder, ref: StageRef) -> dict[str, Any]:
    """The parts of a stage's key; its notebook is the one that is open in JupyterLab (`outputs/lab/`), if it says so."""
    opened = Path(os.environ.get("JPY_SESSION_NAME", ""))
    notebooks = opened.parent if opened.name == f"{ref.notebook}.ipynb" and opened.is_file() else project_root() / "notebooks"
    return stamps.parts_of(params, run, notebooks, Path(__file__).resolve().parents[1], ref)


def _without(parts: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A key's parts without these parameters."""
    kept = {part: {k: v for k, v in parts[part].items() if k not in names} for part in ("params", "inputs") if part in parts}
    return {**parts, **kept}
