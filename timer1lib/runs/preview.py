"""A reward tried on the rollouts that a run has stored: what it would have told the policy, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import combinations
from statistics import fmean, pstdev, quantiles
from typing import Any

from timer1lib import forms
from timer1lib.errors import Timer1Error, shown
from timer1lib.evaluation.tables import Table, html_table, table_of, text_table
from timer1lib.files import read_jsonl, read_yaml
from timer1lib.rewards import FLAT, Reward, RewardInput
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Sample
from timer1lib.view.items import Item, Lane, Style, sample_of, trained_on, trained_with
from timer1lib.view.static_view import item_html, items_html

CHANGES = 10
BLOCKS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Change:
    """A completion and its advantage, (r - mean) / std of its group, under the reward that was used and under the new one."""

    step: int
    sample: Sample
    completion: str
    span: tuple[float, float] | None
    before: float
    after: float


@dataclass(slots=True)
class Preview:
    """What a reward gives on stored rollouts. Shares are percent of groups."""

    name: str
    used: str
    groups: int
    completions: int
    flat_before: float
    flat_after: float
    agreement: float | None
    """Kendall's tau-b between the two rewards inside a group, mean over groups in which both tell completions apart."""
    best_changed: float
    """Groups in which none of the completions that were best is best now."""
    mean: float
    spread: float
    """Standard deviation over all completions."""
    five: tuple[float, float, float, float, float]
    """Least, quarter, half, three quarters, largest."""
    changes: list[Change] = field(default_factory=list)
    """Whose advantage changes most, each from another group."""
    bins: list[int] = field(default_factory=list)
    """Completions by reward, in ten steps of equal width from the least to the largest."""
    outside: int = 0
    """Completions to which one of the rewards gives less than 0 or more than 1: nothing forbids it, but the library's do not."""
    furthest: list[str] = field(default_factory=list)
    """The values furthest outside, each with its step, sample and completion."""

    def table(self) -> Table:
        rows = [
            ("groups, completions", f"{self.groups}, {self.completions}"),
            ("groups without a gradient", f"{self.flat_before:.1f}% under {self.used}, {self.flat_after:.1f}% under {self.name}"),
            ("rank agreement (Kendall's tau-b)", "no group tells" if self.agreement is None else f"{self.agreement:.2f}"),
            ("groups whose best completion changes", f"{self.best_changed:.1f}%"),
            ("mean, standard deviation", f"{self.mean:.3f}, {self.spread:.3f}"),
            ("least, quarters, largest", ", ".join(f"{value:.3f}" for value in self.five)),
            ("how many, from least to largest", "".join(BLOCKS[-(-8 * count // max(self.bins))] for count in self.bins)),
            ("below 0 or above 1", f"{self.outside} completions"),
        ]
        return table_of([{self.name: name, "on the stored rollouts": value} for name, value in rows])

    def __str__(self) -> str:
        lines = [
            text_table(self.table()),
            *(f"furthest outside: {text}" for text in self.furthest),
            "",
            "advantage that changes most:",
        ]
        for change in self.changes:
            said = "no answer" if change.span is None else f"{change.span[0]:.1f} to {change.span[1]:.1f} s"
            truth = ", ".join(f"{start:.1f} to {end:.1f} s" for start, end in change.sample.windows)
            moved = f"{change.before:+.2f} -> {change.after:+.2f}"
            lines.append(f"  step {change.step:3}  {moved}  {said} (true: {truth})  {change.sample.query}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        drawn = []
        for change in self.changes:
            label = f"{change.before:+.1f} → {change.after:+.1f}"
            lane = Lane("r", label, change.span, change.completion, Style("#0072b2", "diagonal"))
            drawn.append(item_html(Item("", change.sample, [lane], f"step {change.step}", change.step)))
        outside = "".join(f"<p>furthest outside: {escape(text)}</p>" for text in self.furthest)
        return f"{html_table(self.table())}{outside}{items_html(drawn, 0)}"


def preview(run: RunFolder, rewards: Mapping[str, tuple[Reward, float]], name: str) -> Preview:
    """Give every stored completion of a run the reward `rewards`, a weighted sum, and compare with what training gave it.

    Raises:
        Timer1Error: no rollouts were stored; a reward raises or gives no number, with the sample and the completion.
    """
    path = run.log("rollouts")
    rows = list(read_jsonl(path, torn_tail=True)) if path.is_file() else []
    if not rows:
        raise Timer1Error(f"{path}: no stored rollouts to try a reward on; run 04_grpo first")
    known = trained_on(run)
    tree = read_yaml(run.params) if run.params.is_file() else {}
    form = forms.load(str(tree.get("shared", {}).get("form", "brief")))
    groups = [_group(row, known, rewards, form) for row in rows]
    every = [value for group in groups for value in group.after]
    taus = [tau for group in groups if (tau := tau_b(group.before, group.after)) is not None]
    ends = quantiles(every, n=4, method="inclusive") if len(every) > 1 else [every[0]] * 3
    share = 100 / len(groups)
    changes = sorted((group.change() for group in groups), key=lambda c: -abs(c.after - c.before))[:CHANGES]
    return Preview(
        name=name,
        used=", ".join(text.rpartition("/")[2].strip() for text in trained_with(run).split(",")),
        groups=len(groups),
        completions=len(every),
        flat_before=share * sum(_flat(group.before) for group in groups),
        flat_after=share * sum(_flat(group.after) for group in groups),
        agreement=fmean(taus) if taus else None,
        best_changed=share * sum(not (_best(group.before) & _best(group.after)) for group in groups),
        mean=fmean(every),
        spread=pstdev(every),
        five=(min(every), ends[0], ends[1], ends[2], max(every)),
        changes=[change for change in changes if abs(change.after - change.before) > FLAT],
        bins=_bins(every),
        outside=sum(not 0 <= value <= 1 for group in groups for value in group.extreme),
        furthest=[
            f"{value:.3f} at step {group.step}, sample {group.sample.id!r}: {shown(text)}"
            for value, text, group in _furthest(groups)
        ],
    )


def _bins(values: Sequence[float], count: int = 10) -> list[int]:
    low, width = min(values), (max(values) - min(values)) / count
    found = [0] * count
    for value in values:
        found[min(count - 1, int((value - low) / width)) if width > 0 else 0] += 1
    return found


def _furthest(groups: Sequence[_Group], most: int = 2) -> list[tuple[float, str, _Group]]:
    """The values furthest from 0 to 1, with their completions."""
    out = [
        (value, text, group)
        for group in groups
        for value, text in zip(group.extreme, group.completions, strict=True)
        if not 0 <= value <= 1
    ]
    return sorted(out, key=lambda each: -max(-each[0], each[0] - 1))[:most]


@dataclass(frozen=True, slots=True)
class _Group:
    step: int
    sample: Sample
    completions: list[str]
    spans: list[tuple[float, float] | None]
    before: list[float]
    after: list[float]
    extreme: list[float]
    """Of what each reward alone gives a completion, unweighted, the value furthest from one half."""

    def change(self) -> Change:
        """The completion whose advantage changes most."""
        old, new = _advantages(self.before), _advantages(self.after)
        i = max(range(len(old)), key=lambda i: abs(new[i] - old[i]))
        return Change(self.step, self.sample, self.completions[i], self.spans[i], old[i], new[i])


def _group(row: Mapping[str, Any], known: Mapping[str, Sample], rewards: Mapping[str, tuple[Reward, float]], form: Any) -> _Group:
    sample = sample_of(row, known)
    after, extreme = [], []
    for text in row["completions"]:
        x = RewardInput.of(text, sample, form)
        try:
            given = [(reward(x), weight) for reward, weight in rewards.values()]
        except Timer1Error as error:
            raise Timer1Error(f"sample {sample.id!r}, step {row['step']}: {error}") from error
        after.append(sum(weight * value for value, weight in given))
        extreme.append(max((value for value, _ in given), key=lambda value: abs(value - 0.5)))
    spans = [tuple(map(float, span)) if span else None for span in row["spans"]]
    before = [float(reward) for reward in row["rewards"]]
    return _Group(int(row["step"]), sample, list(row["completions"]), spans, before, after, extreme)  # type: ignore[arg-type]


def tau_b(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b of two rankings, ties counted as ties: -1 to 1; None where one of them ties everything."""
    pairs = list(combinations(range(len(a)), 2))
    signs = [(_sign(a[i] - a[j]), _sign(b[i] - b[j])) for i, j in pairs]
    untied = sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs)
    return sum(x * y for x, y in signs) / untied**0.5 if untied else None


def _sign(value: float) -> int:
    return (value > FLAT) - (value < -FLAT)


def _flat(rewards: Sequence[float]) -> bool:
    return max(rewards) - min(rewards) < FLAT


def _best(rewards: Sequence[float]) -> set[int]:
    return {i for i, value in enumerate(rewards) if value > max(rewards) - FLAT}


def _advantages(rewards: Sequence[float]) -> list[float]:
    mean, std = fmean(rewards), pstdev(rewards)
    return [(value - mean) / std if std > FLAT else 0.0 for value in rewards]
