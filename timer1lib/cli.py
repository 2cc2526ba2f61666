"""The `timer1` command: thin typed subcommands over library calls, which are imported only when they are used.

Bad input is one line on stderr and exit status 2; a failed stage is one line and 1. With `--json` stdout holds JSON
and nothing else, whatever a library prints.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json as json_text
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.exceptions import TyperException

from timer1lib import __version__
from timer1lib.errors import Timer1Error, shown
from timer1lib.extras import how_to_get, installed, need
from timer1lib.progress import quiet_libraries

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
TINY = "assets/tiny-qwen3-vl"

EXAMPLES = {
    "run": ("params/tiny.yaml", "params/tiny.yaml -p grpo.beta=0.04 --out outputs/beta --dry-run"),
    "params": ("grpo", "--diff params/time_r1_7b.yaml"),
    "ground": ('cooking.mp4 "the person opens the fridge"', 'cooking.mp4 "a door closes" --model outputs/tiny/checkpoints/grpo'),
    "score": ("predictions.jsonl charades_sta_test.txt", "answers.jsonl tvgbench.json --form timer1_eval --json"),
    "audit": ("train.jsonl test.jsonl", "train.jsonl --videos videos --deep"),
    "preview": ("tiny ideas/edges.py:edge_iou", 'outputs/tiny "ideas/edges.py:edge_iou:1.0, format:0.5" --json'),
    "clock": ("cooking.mp4", "cooking.mp4 --model Qwen/Qwen2.5-VL-7B-Instruct --rule published"),
    "estimate": ("params/time_r1_7b.yaml", "params/time_r1_7b.yaml -p grpo.lora_rank=64"),
    "rehearse": ("params/time_r1_7b.yaml", "params/time_r1_3b_24gb.yaml -p grpo.lora_rank=16"),
    "work": (
        "outputs/tiny --node 1 --nodes 2 --address 10.0.0.1:29500",
        "/shared/outputs/big --node 3 --nodes 4 --address node0:29500",
    ),
    "synth": ("world --videos 20", "world --videos 5 --seed 7"),
    "sweep": ("params/sweeps/five_seeds.yaml", "params/sweeps/rewards.yaml --jobs 2"),
    "inspect": ("tiny other", "--predictions a.jsonl b.jsonl --annotations test.jsonl --videos videos"),
    "labels": ("tiny --to tasks.json", "tiny --from export.json"),
    "lab": ("--port 8899 --no-browser", "--diff 04_grpo"),
    "pretrain": ("base", "base --steps 200 --seed 1"),
    "compare": ("tiny other", "outputs/a outputs/b --format latex"),
    "report": ("tiny", "tiny other --out comparison.html"),
    "init": ("book", "."),
    "upgrade": ("", "book --yes"),
}
"""Two a subcommand; tests/test_cli.py holds that each can be read."""

NEEDS = {"work": "train", "ground": "train", "sweep": "train", "rehearse": "train", "pretrain": "train", "lab": "lab"}
"""{subcommand: the extra without which it cannot start}; `run` needs train for more than a plan."""

app = typer.Typer(
    help="Temporal video grounding with reinforcement learning, from notebooks.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a subcommand hands back: text for a person, the same as JSON, and the exit status."""

    text: str
    value: Any = None
    status: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status. Help has colours and boxes in a terminal and is plain text elsewhere."""
    app.rich_markup_mode = "rich" if sys.stdout.isatty() else None
    given = sys.argv[1:] if arguments is None else list(arguments)
    for before, argument in zip(["timer1", *given], given, strict=False):
        if not argument.strip() or re.fullmatch(r"--[\w-]+=\s*", argument):
            what = argument.strip("= ") or (
                before if before.startswith("-") else f"an argument (a query, a file) after {before!r}"
            )
            return _complain(f"{what} is empty", BAD_INPUT)
    try:
        return int(typer.main.get_command(app).main(arguments, prog_name="timer1", standalone_mode=False) or 0)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "timer1"
        return _complain(f"{error.format_message()} (see {command} --help)", BAD_INPUT, command)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)


def command(function: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Make a function a subcommand: print what it returns, as text or JSON, and turn what it raises into one line."""

    @functools.wraps(function)
    def run(**given: Any) -> int:
        as_json = bool(given.get("json"))
        try:
            if name in NEEDS:
                need(NEEDS[name], f"timer1 {name}")
            with _stdout_is_ours() if as_json else contextlib.nullcontext():
                outcome = function(**given)
            text = json_text.dumps(outcome.value, ensure_ascii=False, allow_nan=False) if as_json else outcome.text
            sys.stdout.write(text + "\n" if text and not text.endswith("\n") else text)
            sys.stdout.flush()
            return outcome.status
        except TyperException:
            raise
        except Timer1Error as error:
            return _complain(str(error), BAD_INPUT)
        except ModuleNotFoundError as error:
            if not error.name or error.name.partition(".")[0] == __package__:
                return _fault(error)
            why = f"timer1 {name} needs {error.name}, which is not installed: {how_to_get(error.name)}"
            return _complain(why, BAD_INPUT)
        except KeyboardInterrupt:
            return _complain("interrupted; run the same command again to go on", INTERRUPTED)
        except BrokenPipeError:
            # The reader has gone (`timer1 ... | head`): nothing is left to say, and nothing may be flushed into the pipe at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            return _complain(f"{where}{error.strerror or error}", BAD_INPUT)
        except Exception as error:
            if type(error).__name__ == "NotebookFailed":
                return _complain(str(error), FAILED)
            return _fault(error)

    name = function.__name__
    examples = "\n\n".join(f"timer1 {name} {example}" for example in EXAMPLES.get(name, ()))
    app.command(name, epilog=f"Examples:\n\n{examples}")(run)
    return function


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"timer1 {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """What stands before the subcommand."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)
    if not sys.stderr.isatty():
        quiet_libraries()


def _runs(incomplete: str) -> list[str]:
    """Completion: the runs below outputs/."""
    folder = Path("outputs")
    names = sorted(path.parent.name for path in folder.glob("*/params.yaml")) if folder.is_dir() else []
    return [name for name in names if name.startswith(incomplete)]


Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]
Yes = Annotated[bool, typer.Option("--yes", help="Replace finished checkpoints without asking.")]
ParamsFiles = Annotated[
    list[Path], typer.Argument(metavar="PARAMS.yaml...", help="The parameters of a run; later files go over earlier ones.")
]
Overrides = Annotated[list[str] | None, typer.Option("-p", metavar="SECTION.KEY=VALUE", help="Override a parameter; repeatable.")]
Format = Annotated[
    str | None, typer.Option("--format", metavar="NAME", help="Format of the annotations; recognised where left out.")
]
Nodes = Annotated[int, typer.Option("--nodes", min=1, metavar="N", help="Machines that train this run together.")]
Address = Annotated[str, typer.Option("--address", metavar="HOST:PORT", help="Where they meet: the first machine's name.")]
RunArgument = typer.Argument(metavar="RUN", autocompletion=_runs, help="A run's folder, or its name under outputs/.")


@command
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or one that holds none of these files.")],
) -> Outcome:
    """Make a workbook: notebooks, recipes and example ideas, to run and to change."""
    from timer1lib.workbook import init as make

    files = make(folder)
    return Outcome(f"{folder}: a workbook of {len(files)} files; next: cd {folder} && timer1 run params/tiny.yaml")


@command
def upgrade(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="The workbook; this folder where left out.")] = Path(),
    yes: Annotated[bool, typer.Option("--yes", help="Take every change without asking.")] = False,
) -> Outcome:
    """Show what this version has changed since a workbook was made, and take what you accept."""
    from timer1lib import workbook

    taken, left = 0, 0
    asks = sys.stdin.isatty() and sys.stdout.isatty() and not yes
    for change in workbook.changes(folder):
        sys.stdout.write(f"{change}\n")
        if yes or (asks and _agrees(f"take {change.name}? [y/N] ")):
            taken += 1
            if said := workbook.take(folder, change):
                sys.stdout.write(f"{said}\n")
        else:
            left += 1
    workbook.finish(folder, left)
    how = "" if asks or yes or not left else "; --yes takes them, and a terminal asks about each"
    return Outcome(f"{taken} taken, {left} left{how}" if taken or left else f"{folder}: as timer1 {__version__} has it")


@command
def run(
    params: ParamsFiles,
    overrides: Overrides = None,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="04", help="First stage; earlier results are taken as they stand.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="05", help="Last stage.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run stages anew even where nothing has changed.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The run's folder in place of outputs/<name>.")] = None,
    nodes: Nodes = 1,
    address: Address = "",
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which stages would run and why, and do nothing.")] = False,
    json: Json = False,
) -> Outcome:
    """Run the notebooks of a params file; skip what is unchanged."""
    from timer1lib.files import resolve
    from timer1lib.params.load import load_params
    from timer1lib.runs.runner import plan_text, planned, summary_lines
    from timer1lib.runs.runner import run as run_notebooks
    from timer1lib.workers.nodes import parse_nodes

    loaded = load_params(resolve(params[0]), overrides or [], *map(resolve, params[1:]))
    if dry_run:
        plan = planned(loaded, from_=from_, until=until, fresh=fresh, out=out)
        return Outcome(plan_text(plan), [dataclasses.asdict(stage) for stage in plan])
    need("train", "timer1 run")
    machines = parse_nodes(0, nodes, address) if nodes > 1 else None
    result = run_notebooks(loaded, from_=from_, until=until, fresh=fresh, out=out, yes=yes, nodes=machines)
    report = str(result.report) if result.report else None
    value = {"run": str(result.root), "stages": result.stages, "metrics": result.metrics, "report": report}
    return Outcome("\n".join(summary_lines(result)), value)


@command
def params(
    section: Annotated[str, typer.Argument(metavar="[SECTION]", help="shared, curate, sft, ...; all where it is left out.")] = "",
    diff: Annotated[
        Path | None, typer.Option(metavar="RUN_OR_FILE", help="Only what differs from the defaults in a run or a params file.")
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="A JSON schema of params files, for an editor.")] = False,
    json: Json = False,
) -> Outcome:
    """List every parameter with type, default, range and meaning."""
    from timer1lib.evaluation.answers import find_run
    from timer1lib.evaluation.tables import table_of, text_table
    from timer1lib.files import resolve
    from timer1lib.params import listing
    from timer1lib.params.load import load_params

    if schema:
        return Outcome(json_text.dumps(listing.schema(), indent=1), listing.schema())
    values = None
    if diff is not None:
        values = load_params(file if (file := resolve(diff)).is_file() else find_run(diff) / "params.yaml")
    rows = listing.rows(section, values, differing=diff is not None)
    return Outcome(text_table(table_of(rows)) if rows else "all as in the defaults", rows)


@command
def work(
    run: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The run's folder, which all machines share.")],
    node: Annotated[int, typer.Option(min=1, metavar="K", help="Which machine this is; 0 is the one that runs `timer1 run`.")],
    nodes: Nodes,
    address: Address,
) -> Outcome:
    """Join the trainings of a run that another machine began (docs/scale.md), until it is finished."""
    from timer1lib.files import resolve
    from timer1lib.workers.launch import join
    from timer1lib.workers.nodes import parse_nodes

    join(resolve(run), parse_nodes(node, nodes, address), lambda line: sys.stderr.write(line + "\n"))
    return Outcome(f"{run}: the run has ended")


@command
def ground(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="A video file.")],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What happens in the segment.")],
    model: Annotated[str, typer.Option(metavar="PATH_OR_ID", help="A model folder or a hub id.")] = TINY,
    json: Json = False,
) -> Outcome:
    """Find the segment of one video that a query describes."""
    from timer1lib.inference.ground import ground as ground_video

    answer = ground_video(video, query, model)
    if answer["start"] is None:
        return Outcome(f"no span in the model's answer: {answer['completion']!r}", answer)
    return Outcome(f"{answer['start']:.2f} to {answer['end']:.2f} s of {answer['duration']:.2f} s", answer)


@command
def score(
    predictions: Annotated[Path, typer.Argument(metavar="PREDICTIONS.jsonl", help="Rows with id and start, end or completion.")],
    annotations: Annotated[Path, typer.Argument(metavar="ANNOTATIONS", help="In any format that the readers know.")],
    format: Format = None,
    form: Annotated[
        str | None, typer.Option(metavar="NAME", help="Answer form by which completions are read: timer1, tvg_r1, timelens, ...")
    ] = None,
    repair: Annotated[
        Literal["keep", "clip", "swap", "drop", "repair"],
        typer.Option(help="What to do with broken ground truth; it counts as published where left out."),
    ] = "keep",
    json: Json = False,
) -> Outcome:
    """Score a file of predictions against an annotation file."""
    from timer1lib.evaluation.score import score_files, score_text

    value = score_files(predictions, annotations, format, form, repair)  # type: ignore[arg-type]
    return Outcome(score_text(value), value)


@command
def audit(
    annotations: Annotated[list[Path], typer.Argument(metavar="ANNOTATIONS...", help="One or several annotation files.")],
    format: Format = None,
    videos: Annotated[Path | None, typer.Option(metavar="DIR", help="Also check the videos in this folder.")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Decode the videos whole: damage behind the first frame.")] = False,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where --deep keeps its verdicts; outputs/.cache where left out.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=0, metavar="N", help="Processes that look at videos; every core.")] = None,
    checks: Annotated[str, typer.Option(metavar="FILE.py:NAME", help="Checks of your own, as in curate.checks.")] = "",
    json: Json = False,
) -> Outcome:
    """Find the flaws of annotation files."""
    from timer1lib.data.audit import audit_files
    from timer1lib.params.sections import SharedParams
    from timer1lib.rules import parse_checks
    from timer1lib.video.store import open_store

    mine = parse_checks(checks)

    if deep and videos is None:
        raise Timer1Error("--deep decodes videos: name their folder with --videos")
    if cache is not None and not deep:
        raise Timer1Error("--cache says where --deep keeps its verdicts: give both, or neither")
    many = (os.cpu_count() or 1) if workers is None else workers
    known = {"cache_dir": str(cache)} if cache is not None else {}
    store = open_store(SharedParams(workers=min(64, many), **known)) if deep else None  # type: ignore[arg-type]
    report = audit_files(annotations, format=format, videos=videos, deep=store, workers=many, checks=mine)
    return Outcome(str(report), report.to_json())


@command
def preview(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder, or its name under outputs/.")],
    rewards: Annotated[
        str, typer.Argument(metavar="REWARDS", help="As in grpo.rewards: ideas/edges.py:edge_iou, or with weights.")
    ],
    json: Json = False,
) -> Outcome:
    """Try a reward on a run's stored rollouts, before anything is trained."""
    from timer1lib.evaluation.answers import find_run
    from timer1lib.rewards import parse_rewards
    from timer1lib.runfolder import RunFolder
    from timer1lib.runs.preview import preview

    value = preview(RunFolder(find_run(run)), parse_rewards(rewards), rewards)
    return Outcome(str(value), dataclasses.asdict(value))


@command
def clock(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="A video file.")],
    model: Annotated[str, typer.Option(metavar="ID_OR_FOLDER", help="A model folder or a hub id.")] = TINY,
    rule: Annotated[Literal["auto", "published", "installed"], typer.Option(help="Position rule (Qwen2.5-VL).")] = "auto",
    timestamps: Annotated[
        Literal["auto", "text", "positions"],
        typer.Option(help="How times are told; auto: as its config.json or its family says."),
    ] = "auto",
    json: Json = False,
) -> Outcome:
    """Show when each sampled frame is, and when the model is told."""
    from timer1lib.inference.clock_report import clock_report, format_clock

    value = clock_report(video, model, clock_rule=rule, timestamps=timestamps)
    return Outcome(format_clock(value), value)


@command
def synth(
    out_dir: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Folder to write to.")],
    videos: Annotated[int, typer.Option(min=1, metavar="N", help="How many videos.")],
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, metavar="S", help="Another seed gives other videos.")] = 0,
    json: Json = False,
) -> Outcome:
    """Write videos and annotations of the embedded world."""
    from timer1lib.world.splits import synth as write_world

    value = write_world(out_dir, videos, seed)
    return Outcome(_plain(value), value)


@command
def sweep(
    sweep: Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="A base, its variants and seeds.")],
    overrides: Overrides = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Rows that run at the same time; as many as fit on the cards, or 1.")
    ] = None,
    seeds: Annotated[str, typer.Option(metavar="0,1,2", help="Run every row once for each seed.")] = "",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder in place of outputs/sweeps/<name>.")] = None,
    engine: Annotated[Literal["local", "ray", "slurm"], typer.Option(help="Where rows run.")] = "local",
    address: Annotated[
        str, typer.Option(metavar="A", help="Ray: auto or host:port of a cluster. Slurm: local tries it on this machine.")
    ] = "",
    storage: Annotated[
        str, typer.Option(metavar="URL", help="Where nodes that share no disk leave artefacts: a folder, s3://bucket/x, ...")
    ] = "",
    yes: Yes = False,
    json: Json = False,
) -> Outcome:
    """Run many variants of a params file and compare them.

    \b
    A sweep file is YAML; only its name is needed:
      name: rates                    # the sweep is outputs/sweeps/rates
      about: Which rate is best?
      base: params/tiny.yaml         # params file that every row starts from
      until: "05"                    # last stage of every row
      set: {curate.world_seed: 100}  # parameters of every row
      rows:                          # listed rows, each with parameters of its own
        - {name: plain}
        - {name: fast, set: {grpo.learning_rate: 1.0e-4}}
      grid: {grpo.beta: [0, 0.04]}   # and all combinations of these
      seeds: [0, 1, 2]               # everything once for each seed
      pairs: [[plain, fast]]         # rows to compare over seeds
      minutes: 4                     # what a row took, to say at the start how long all will take
      gpus: 1                        # cards a row, or a part of one (0.5)
      cpus: 4                        # cores a row
      slurm: {partition: gpu, time: 240}  # options of sbatch; time in minutes

    \b
    timer1 sweep params/sweeps/rewards.yaml --jobs 2
    timer1 sweep params/sweeps/five_seeds.yaml --engine ray --address auto
    """
    from timer1lib.runs.sweep import sweep as run_sweep

    numbers = _numbers(seeds, "--seeds")
    result = run_sweep(
        sweep,
        overrides=overrides or [],
        jobs=jobs,
        out=out,
        seeds=numbers,
        yes=yes,
        engine=engine,
        address=address,
        storage=storage,
    )
    return Outcome(result.text(), {"root": str(result.root), **result.to_json()}, FAILED if result.failed else 0)


@command
def compare(
    runs: Annotated[list[str] | None, RunArgument] = None,
    format: Annotated[
        Literal["text", "html", "csv", "latex", "markdown"], typer.Option("--format", help="How the tables are written.")
    ] = "text",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write them there.")] = None,
    json: Json = False,
) -> Outcome:
    """Put runs into one table: their parameters, intervals, paired differences.

    Without runs: those that there are, and the newest beside the default one.
    """
    from timer1lib.evaluation.compare import compare_document, compare_runs
    from timer1lib.evaluation.differing import default_pair, runs_table, runs_there
    from timer1lib.evaluation.tables import document
    from timer1lib.files import atomic_write_text, project_root

    outputs = project_root() / "outputs"
    there = [] if runs else runs_there(outputs)
    named: list[Any] = runs or [outputs / name for name in default_pair(there)]
    if not named:
        raise Timer1Error(f"{outputs}: no run was evaluated yet; timer1 run params/tiny.yaml makes one")
    value = compare_runs(named)
    listed = "" if runs or format == "csv" else document([runs_table(there)], format) + "\n\n"
    text = listed + compare_document(value, format)
    if out is not None:
        atomic_write_text(out, text + "\n")
        text = f"written to {out}"
    return Outcome(text, value)


@command
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", autocompletion=_runs, help="Runs, or the folder of a sweep.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the page there.")] = None,
    json: Json = False,
) -> Outcome:
    """Write the page of a run anew, of several beside each other, or of a sweep.

    \b
    timer1 report tiny                 # outputs/tiny/report.html
    timer1 report tiny edge            # outputs/reports/tiny-edge.html: A/B, with the samples that changed
    timer1 report outputs/sweeps/rates # its page, and one of each of its rows
    """
    from timer1lib.view.comparison import write_pages

    pages = [str(path) for path in write_pages(runs, out)]
    return Outcome("\n".join(pages), {"pages": pages})


@command
def lab(
    port: Annotated[int, typer.Option(min=1, max=65535, metavar="N", help="The first port to try.")] = 8888,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only say the address.")] = False,
    diff: Annotated[str | None, typer.Option(metavar="04_grpo", help="Show what you changed in a copy.")] = None,
    take: Annotated[str | None, typer.Option(metavar="04_grpo", help="Take a copy's cells into the project's notebook.")] = None,
    new: Annotated[str | None, typer.Option(metavar="04_grpo", help="Make a copy anew; yours is kept beside it.")] = None,
) -> Outcome:
    """Open copies of the notebooks (outputs/lab) in JupyterLab; the project's own stay as they are."""
    from timer1lib.view import open as opened

    if name := diff or take:
        changed = opened.bring_back(name, yes=take is not None)
        return Outcome(changed or f"{name}: nothing was changed")
    if new:
        opened.copy_notebooks(new)
    return Outcome("", status=opened.lab(port, not no_browser))


@command
def inspect(
    runs: Annotated[list[str] | None, RunArgument] = None,
    predictions: Annotated[list[Path] | None, typer.Option(metavar="P...", help="Files of predictions from elsewhere.")] = None,
    annotations: Annotated[
        Path | None, typer.Option(metavar="A", help="Their annotations, in any format that the readers know.")
    ] = None,
    videos: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder of their videos.")] = None,
) -> Outcome:
    """Look at runs side by side, or at predictions from elsewhere, in JupyterLab; without the extra lab, as a page."""
    from timer1lib.view.open import inspect as open_lab
    from timer1lib.view.open import runs_to_inspect
    from timer1lib.view.still import write_page

    given = [*(predictions or ()), *map(Path, runs or ())] if predictions else []  # what stands behind the option's first file
    named = [] if given else runs or []
    if not installed("lab"):
        pages = [write_page(run) for run in runs_to_inspect(named, given, annotations, videos)]
        return Outcome(
            f"{', '.join(map(str, pages))}: samples on a page; to play videos and save notes: {how_to_get('jupyterlab')}"
        )
    status = open_lab(named, predictions=given, annotations=annotations, videos=videos)
    return Outcome("", status=FAILED if status else 0)


@command
def labels(
    run: Annotated[str, RunArgument],
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE", help="Write the windows for the other tool.")] = None,
    read: Annotated[Path | None, typer.Option("--from", metavar="FILE", help="Take what was changed there as notes.")] = None,
    tool: Annotated[str, typer.Option("--tool", metavar="NAME", help="For --to: label-studio or fiftyone.")] = "label-studio",
    splits: Annotated[str, typer.Option(metavar="NAMES", help="Splits, comma-separated; train alone if not given.")] = "train",
) -> Outcome:
    """Hand windows to Label Studio or FiftyOne, and bring back what was mended there, as notes."""
    from timer1lib.view.exports import exchange

    return Outcome(exchange(run, to, read, tool, splits))


@command
def estimate(
    params: ParamsFiles,
    overrides: Overrides = None,
    card: Annotated[str, typer.Option(metavar="NAME", help="A100, H100, H200, L40S or RTX4090.")] = "H100",
    mfu: Annotated[float, typer.Option(min=0.01, max=1, metavar="SHARE", help="Share of its rate that is reached.")] = 0.3,
    json: Json = False,
) -> Outcome:
    """Work out a recipe's memory, arithmetic, hours and disk before renting."""
    from timer1lib.files import resolve
    from timer1lib.params.load import load_params
    from timer1lib.training.estimate import estimate as work_out
    from timer1lib.training.estimate import format_estimate

    value = work_out(load_params(resolve(params[0]), overrides or [], *map(resolve, params[1:])), card, mfu)
    return Outcome(format_estimate(value), value)


@command
def rehearse(
    params: ParamsFiles,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option(min=2, max=100, metavar="N", help="Rows of each annotation file, about.")] = 6,
    card: Annotated[str, typer.Option(metavar="NAME", help="Card that memory and hours are told for.")] = "H100",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="A folder in place of outputs/rehearsal/<name>.")] = None,
    json: Json = False,
) -> Outcome:
    """Run a whole recipe small, and say what the real one takes.

    All seven notebooks run in minutes on any machine: on your params file, a few of your own rows and videos (drawn ones
    where yours are not here), and a tiny stand-in of the model with its class, processor, chat template and special
    tokens. Then: memory, hours, disk, missing files, and rows that will be dropped.

    \b
    timer1 rehearse params/time_r1_7b.yaml
    timer1 rehearse params/time_r1_7b.yaml -p curate.videos=/data/videos --rows 20
    """
    from timer1lib.files import resolve
    from timer1lib.params.load import load_params
    from timer1lib.rehearsal import rehearse as run_small

    done = run_small(load_params(resolve(params[0]), overrides or [], *map(resolve, params[1:])), out=out, rows=rows, card=card)
    return Outcome("\n".join(done.lines()), done.to_json())


@command
def pretrain(
    out_dir: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="The model's folder; a killed pretraining goes on in it.")],
    family: Annotated[str, typer.Option(metavar="NAME", help="The model's classes, as its config.json names them.")] = "qwen3_vl",
    positions: Annotated[bool, typer.Option("--positions", help="Qwen2.5-VL: times by temporal positions, not as text.")] = False,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Updates.")] = 4000,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Videos an update.")] = 16,
    learning_rate: Annotated[float, typer.Option(min=0, metavar="RATE", help="Of both optimizers.")] = 2e-3,
    hidden: Annotated[int, typer.Option(min=32, metavar="WIDTH", help="Width of the text model, a multiple of 32.")] = 128,
    layers: Annotated[int, typer.Option(min=1, metavar="N", help="Layers of the text model.")] = 3,
    hardest: Annotated[float, typer.Option(min=0, max=1, metavar="SHARE", help="Difficulty of the hardest scenes.")] = 0.45,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, metavar="S", help="Of the weights and of what is drawn.")] = 0,
) -> Outcome:
    """Build the embedded tiny model from the world alone."""
    from timer1lib.world.base.lessons import Mix
    from timer1lib.world.base.pretrain import Recipe
    from timer1lib.world.base.pretrain import pretrain as train

    recipe = Recipe(steps=steps, batch=batch, learning_rate=learning_rate, seed=seed)
    folder = train(out_dir, recipe, Mix(hardest=hardest), family, hidden, layers, not positions)
    return Outcome(f"{folder}: trained for {steps} steps; its training.json says how")


def _agrees(question: str) -> bool:
    """What a person at the terminal answers; no where they close it."""
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _numbers(text: str, name: str) -> list[int]:
    numbers = []
    for part in filter(None, map(str.strip, text.split(","))):
        if not part.isdecimal() or len(part) > 10:
            raise typer.BadParameter(f"{shown(part)} is not a whole number from 0 to 4294967295.", param_hint=name)
        numbers.append(int(part))
    return numbers


def _plain(value: Any) -> str:
    """A mapping as aligned lines, for results that have no table of their own."""
    width = max((len(str(key)) for key in value), default=0)
    items = ((str(key).ljust(width), f"{item:.2f}" if isinstance(item, float) else item) for key, item in value.items())
    return "\n".join(f"{key}  {item}" for key, item in items)


def _fault(error: Exception) -> int:
    if os.environ.get("TIMER1_DEBUG"):
        traceback.print_exc()
    return _complain(f"{type(error).__name__}: {error} (a fault of timer1's own; TIMER1_DEBUG=1 shows where)", FAILED)


def _complain(message: str, status: int, command_path: str = "timer1") -> int:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{command_path}: {' '.join(message.split())}\n")
        sys.stderr.flush()
    return status


@contextlib.contextmanager
def _stdout_is_ours() -> Iterator[None]:
    """Send everything that anything writes to stdout, C libraries included, to stderr while a command works."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


if __name__ == "__main__":
    sys.exit(main())
