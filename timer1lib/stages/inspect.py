"""What 06_inspect calls: see why it fails, sample by sample."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

from timer1lib import forms
from timer1lib.data.notes import Note
from timer1lib.errors import Timer1Error
from timer1lib.evaluation.answers import find_run
from timer1lib.params import split_list
from timer1lib.params.sections import InspectParams
from timer1lib.runfolder import RunFolder
from timer1lib.stages import Stage
from timer1lib.view.items import Item, load_rollouts, load_several, trained_with

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from timer1lib.view.inspector import Inspector


def samples(stage: Stage[InspectParams]) -> list[Item]:
    """Every grounding sample of the chosen splits with every chosen checkpoint's answer; a Timer1Error where none is there.

    None of a run that tests on questions alone.
    """
    params = stage.params
    known = stage.run.splits() if stage.run.data("splits.json").is_file() else {}
    tests = [entry["kind"] for name, entry in known.items() if not name.startswith("train")]
    if tests and "grounding" not in tests and not params.splits:
        return []
    runs = [stage.run, *(RunFolder(find_run(name)) for name in split_list(params.runs) or ())]
    return load_several(runs, split_list(params.splits), split_list(params.checkpoints), forms.load(stage.shared.form))


def compared(stage: Stage[InspectParams], items: list[Item]) -> tuple[str, str]:
    """The two checkpoints whose difference is shown: as asked, else the first and the last there are. Of several runs it is the
    checkpoint `compare_to` of the first one and of the last one.
    """
    labels = [row.label for row in items[0].rows]
    first, last = stage.params.compare_from, stage.params.compare_to
    if stage.params.runs:
        ends = [label for label in labels if label.endswith(f"/{last}")]
        return (ends[0], ends[-1]) if len(ends) > 1 else (labels[0], labels[-1])
    return (first if first in labels else labels[0], last if last in labels else labels[-1])


def overview(stage: Stage[InspectParams], items: list[Item]) -> pd.DataFrame:
    """A row a checkpoint: samples, mean IoU in percent, samples that got better and worse by more than 0.1 IoU."""
    import pandas as pd

    if not items:
        return pd.DataFrame(columns=["checkpoint", "samples", "mIoU %"]).set_index("checkpoint")
    first, _ = compared(stage, items)
    rows = []
    for label in [row.label for row in items[0].rows]:
        pairs = [({row.label: item.iou(row) for row in item.rows}, item) for item in items]
        changes = [ious.get(label, 0.0) - ious.get(first, 0.0) for ious, _ in pairs]
        rows.append(
            {
                "checkpoint": label,
                "samples": len(items),
                "mIoU %": round(100 * fmean(ious.get(label, 0.0) for ious, _ in pairs), 1),
                "no answer": sum(row.span is None for item in items for row in item.rows if row.label == label),
                f"better than {first}": sum(change > 0.1 for change in changes),
                f"worse than {first}": sum(change < -0.1 for change in changes),
            }
        )
    return pd.DataFrame(rows).set_index("checkpoint")


def first_errors(stage: Stage[InspectParams], items: list[Item]) -> list[tuple[str, Item]]:
    """Three errors to look at first, each another sample: why, and which one.

    What training made worse most; an answer of the last checkpoint that misses altogether though another one hit; and the
    one whose event is found, IoU 0.3 to 0.7, with the worst edges.
    """
    if not items:
        return []
    first, last = compared(stage, items)

    def iou(item: Item, label: str) -> float:
        return next((item.iou(row) for row in item.rows if row.label == label), 0.0)

    found: list[tuple[str, Item]] = []
    for why, wrong in (
        (f"{last} lost most against {first}", lambda item: iou(item, first) - iou(item, last)),
        (f"{last} misses what another one hit", lambda item: max(map(item.iou, item.rows)) * (iou(item, last) == 0)),
        (f"{last} found the event and missed its edges", lambda item: (1 - iou(item, last)) * (0.3 <= iou(item, last) <= 0.7)),
    ):
        left = [item for item in items if all(item is not taken for _, taken in found)]
        item = max(left, key=wrong, default=None)
        if item is not None and wrong(item) > 0:
            found.append((why, item))
    return found


def histogram(items: list[Item]) -> go.Figure:
    """Share of samples by IoU, a line a checkpoint."""
    from timer1lib.view.figures import iou_histogram

    rows = items[0].rows if items else []
    found = {x.label: [item.iou(row) for item in items for row in item.rows if row.label == x.label] for x in rows}
    fig = iou_histogram(found)
    for row in rows:  # a checkpoint has one colour everywhere, also where only some are looked at
        fig.update_traces(line_color=row.style.colour, selector={"name": row.label})
    return fig


def look(stage: Stage[InspectParams], items: list[Item]) -> Any:
    """Table, scrubber and scatter over the samples; a static picture of the first ones where there is no kernel.

    A sentence where there are none.
    """
    if not items:
        return f"{stage.run.root} tests on questions alone: 05_evaluate has their accuracy, and there are no segments to look at."
    return _inspector(stage, items, "checkpoints")


def rollouts(stage: Stage[InspectParams]) -> Any:
    """The same over the groups of rollouts of training; a sentence where none were logged."""
    if not stage.run.log("rollouts").is_file():
        return f"{stage.run.log('rollouts')} is not there: 04_grpo has not run in this run."
    return _inspector(stage, load_rollouts(stage.run, limit=stage.params.rollout_groups), "rollouts")


def _inspector(stage: Stage[InspectParams], items: list[Item], mode: Any) -> Inspector:
    from timer1lib.files import resolve
    from timer1lib.view.inspector import Inspector

    params = stage.params
    if not items:
        raise Timer1Error(f"{stage.run.root}: nothing to look at for {mode}")
    ends = compared(stage, items) if mode == "checkpoints" else None
    size = int(params.video_mb * 1e6)
    cache, reward, form = resolve(stage.shared.cache_dir), live_reward(stage), forms.load(stage.shared.form)
    return Inspector(stage.run, items, cache, reward, ends, size, mode, params.static_samples, form)


def live_reward(stage: Stage[InspectParams]) -> str:
    """What is shown as an edge is dragged: `inspect.reward`, else the first reward of training but for the form's."""
    if stage.params.reward:
        return stage.params.reward
    named = [text.strip() for text in trained_with(stage.run).split(",")]
    return next((text for text in named if text.partition(":")[0] != "format"), "tiou")


def notes(run: RunFolder) -> pd.DataFrame:
    """Every note of the run, the split of its sample, and what 01_curate will do with it."""
    import pandas as pd

    from timer1lib.data.notes import notes_by_sample

    names = [name for name in (run.splits() if run.data("splits.json").is_file() else ()) if run.data(name).is_file()]
    split_of = {sample.id: name for name in reversed(names) for sample in run.read_samples(name)}
    rows = []
    for note in notes_by_sample(run.notes).values():
        split = split_of.get(note.id, "")
        effect = _effect(note, split)
        rows.append({**note.to_json(), "split": split, "in 01": effect})
    return pd.DataFrame(rows, columns=["id", "label", "text", "window", "split", "in 01"])


def _effect(note: Note, split: str) -> str:
    if note.label == "note":
        return "a remark: nothing changes"
    if split and not split.startswith("train"):
        return "listed; a test set changes only with repair_test"
    return "its window is taken (on_wrong_label)" if note.window else f"as on_{note.label} says"
