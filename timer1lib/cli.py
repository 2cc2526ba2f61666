"""The `timer1` command: thin subcommands over library calls, which are imported only when they are used.

Bad input is one line on stderr and exit status 2; a failed stage is one line and 1. With `--json` stdout holds JSON
and nothing else, whatever a library prints.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from timer1lib import __version__
from timer1lib.errors import Timer1Error
from timer1lib.parsing import POLICIES

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
TINY = "assets/tiny-qwen3-vl"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a subcommand hands back: text for a person, the same as JSON, and the exit status."""

    text: str
    value: Any = None
    status: int = 0


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status and never raises."""
    options = build_parser().parse_args(arguments)
    as_json = getattr(options, "json", False)
    level = logging.INFO if options.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(name)s: %(message)s", stream=sys.stderr)
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        with _stdout_is_ours() if as_json else contextlib.nullcontext():
            outcome = options.command(options)
        text = json.dumps(outcome.value, ensure_ascii=False, allow_nan=False) if as_json else outcome.text
        sys.stdout.write(_ending(text))
        sys.stdout.flush()
        return int(outcome.status)
    except Timer1Error as error:
        return _complain(str(error), BAD_INPUT)
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
        if os.environ.get("TIMER1_DEBUG"):
            traceback.print_exc()
        return _complain(f"{type(error).__name__}: {error} (a fault of timer1's own; TIMER1_DEBUG=1 shows where)", FAILED)


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(prog="timer1", description="Temporal video grounding with reinforcement learning, from notebooks.")
    parser.add_argument("--version", action="version", version=f"timer1 {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="say more on stderr")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_run, _add_ground, _add_score, _add_audit, _add_clock, _add_synth):
        add(commands)
    for add in (_add_sweep, _add_compare, _add_inspect, _add_estimate, _add_pretrain):
        add(commands)
    return parser


Commands = Any  # argparse's subparsers action, which has no public type


def _command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], Outcome], help_text: str, json_too: bool = True
) -> Parser:
    parser: Parser = commands.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
    parser.set_defaults(command=run)
    if json_too:
        parser.add_argument("--json", action="store_true", help="print JSON, and nothing else, on stdout")
    return parser


def _add_overrides(parser: Parser) -> None:
    parser.add_argument(
        "-p", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a parameter; repeatable"
    )


def _add_run(commands: Commands) -> None:
    parser = _command(commands, "run", _run, "run the notebooks of a params file; what is unchanged is skipped")
    parser.add_argument("params", metavar="PARAMS.yaml")
    _add_overrides(parser)
    parser.add_argument("--from", dest="from_", metavar="04", help="first stage; earlier results are taken as they stand")
    parser.add_argument("--until", metavar="05", help="last stage")
    parser.add_argument("--fresh", action="store_true", help="run stages anew even where nothing has changed")
    parser.add_argument("--out", metavar="DIR", help="the run's folder in place of outputs/<name>")


def _run(options: argparse.Namespace) -> Outcome:
    from timer1lib.files import resolve
    from timer1lib.params.load import load_params
    from timer1lib.runs.runner import run, summary_lines

    params = load_params(resolve(options.params), options.overrides)
    result = run(params, from_=options.from_, until=options.until, fresh=options.fresh, out=options.out)
    report = str(result.report) if result.report else None
    value = {"run": str(result.root), "stages": result.stages, "metrics": result.metrics, "report": report}
    return Outcome("\n".join(summary_lines(result)), value)


def _add_ground(commands: Commands) -> None:
    parser = _command(commands, "ground", _ground, "find the segment of one video that a query describes")
    parser.add_argument("video", metavar="VIDEO")
    parser.add_argument("query", metavar="QUERY")
    parser.add_argument("--model", metavar="PATH_OR_ID", default=TINY, help="default: the embedded tiny model")


def _ground(options: argparse.Namespace) -> Outcome:
    from timer1lib.inference.ground import ground

    answer = ground(options.video, options.query, options.model)
    if answer["start"] is None:
        return Outcome(f"no span in the model's answer: {answer['completion']!r}", answer)
    return Outcome(f"{answer['start']:.2f} to {answer['end']:.2f} s of {answer['duration']:.2f} s", answer)


def _add_score(commands: Commands) -> None:
    parser = _command(commands, "score", _score, "score a file of predictions against an annotation file")
    parser.add_argument("predictions", metavar="PREDICTIONS.jsonl")
    parser.add_argument("annotations", metavar="ANNOTATIONS")
    parser.add_argument("--format", metavar="NAME", help="the annotations' format; recognised from the file where left out")
    parser.add_argument("--parser", choices=POLICIES, help="how completions are read")
    what = "what to do with broken ground truth; it counts as published where left out"
    parser.add_argument("--repair", choices=("keep", "clip", "swap", "drop", "repair"), default="keep", help=what)


def _score(options: argparse.Namespace) -> Outcome:
    from timer1lib.evaluation.score import score_files, score_text

    value = score_files(options.predictions, options.annotations, options.format, options.parser, options.repair)
    return Outcome(score_text(value), value)


def _add_synth(commands: Commands) -> None:
    parser = _command(commands, "synth", _synth, "write videos and annotations of the embedded world")
    parser.add_argument("out_dir", metavar="OUT_DIR")
    parser.add_argument("--videos", type=_at_least(1), required=True, metavar="N")
    parser.add_argument("--seed", type=_at_least(0), default=0, metavar="S")


def _synth(options: argparse.Namespace) -> Outcome:
    from timer1lib.world.synth import synth

    value = synth(options.out_dir, options.videos, options.seed)
    return Outcome(_plain(value), value)


def _add_clock(commands: Commands) -> None:
    parser = _command(commands, "clock", _clock, "show when each sampled frame is, and when the model is told it is")
    parser.add_argument("video", metavar="VIDEO")
    parser.add_argument("--model", metavar="ID_OR_FOLDER", default=TINY, help="default: the embedded tiny model")
    parser.add_argument("--rule", choices=("auto", "published", "installed"), default="auto", help="position rule (Qwen2.5-VL)")
    how = "how times are told; auto: as its config.json or its family says"
    parser.add_argument("--timestamps", choices=("auto", "text", "positions"), default="auto", help=how)


def _clock(options: argparse.Namespace) -> Outcome:
    from timer1lib.video.clock_report import clock_report, format_clock

    value = clock_report(options.video, options.model, clock_rule=options.rule, timestamps=options.timestamps)
    return Outcome(format_clock(value), value)


def _add_audit(commands: Commands) -> None:
    parser = _command(commands, "audit", _audit, "find the flaws of annotation files")
    parser.add_argument("annotations", nargs="+", metavar="ANNOTATIONS")
    parser.add_argument("--format", metavar="NAME", help="recognised from the file where left out")
    parser.add_argument("--videos", metavar="DIR", help="also check the videos in this folder")


def _audit(options: argparse.Namespace) -> Outcome:
    from timer1lib.data.audit import audit_files

    report = audit_files(options.annotations, format=options.format, videos=options.videos)
    return Outcome(str(report), report.to_json())


def _add_sweep(commands: Commands) -> None:
    parser = _command(commands, "sweep", _sweep, "run many variants of a params file and compare them")
    parser.add_argument("sweep", metavar="SWEEP.yaml")
    _add_overrides(parser)
    parser.add_argument("--jobs", type=_at_least(1), default=1, metavar="N", help="rows that run at the same time")
    parser.add_argument("--seeds", type=_numbers, default=[], metavar="0,1,2", help="run every row once for each seed")
    parser.add_argument("--out", metavar="DIR", help="folder in place of outputs/sweeps/<name>")


def _sweep(options: argparse.Namespace) -> Outcome:
    from timer1lib.runs.sweep import sweep

    result = sweep(options.sweep, overrides=options.overrides, jobs=options.jobs, out=options.out, seeds=options.seeds)
    return Outcome(result.text(), result.to_json(), FAILED if result.failed else 0)


def _add_compare(commands: Commands) -> None:
    parser = _command(commands, "compare", _compare, "put several runs into one table, with intervals and paired differences")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, or its name under outputs/")


def _compare(options: argparse.Namespace) -> Outcome:
    from timer1lib.evaluation.compare import compare_runs, compare_text

    value = compare_runs(options.runs)
    return Outcome(compare_text(value), value)


def _add_inspect(commands: Commands) -> None:
    what = "look at a run, or at predictions from elsewhere, in JupyterLab"
    parser = _command(commands, "inspect", _inspect, what, json_too=False)
    parser.add_argument("run", nargs="?", metavar="RUN")
    parser.add_argument("--predictions", metavar="P", help="predictions from elsewhere")
    parser.add_argument("--annotations", metavar="A", help="their annotations, in any format the readers know")
    parser.add_argument("--videos", metavar="DIR", help="the folder of their videos")


def _inspect(options: argparse.Namespace) -> Outcome:
    from timer1lib.view.open import inspect

    status = inspect(options.run, predictions=options.predictions, annotations=options.annotations, videos=options.videos)
    return Outcome("", status=FAILED if status else 0)


def _add_estimate(commands: Commands) -> None:
    parser = _command(commands, "estimate", _estimate, "work out memory and arithmetic of a recipe before renting a machine")
    parser.add_argument("params", metavar="PARAMS.yaml")
    _add_overrides(parser)


def _estimate(options: argparse.Namespace) -> Outcome:
    from timer1lib.files import resolve
    from timer1lib.params.load import load_params
    from timer1lib.training.estimate import estimate, format_estimate

    value = estimate(load_params(resolve(options.params), options.overrides))
    return Outcome(format_estimate(value), value)


def _add_pretrain(commands: Commands) -> None:
    parser = _command(commands, "pretrain", _pretrain, "build the embedded tiny model from the world alone", json_too=False)
    parser.add_argument("out_dir", metavar="OUT_DIR", help="the model's folder; a killed pretraining goes on in it")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="options of timer1lib.training.pretrain")


def _pretrain(options: argparse.Namespace) -> Outcome:
    from timer1lib.training.pretrain import main as pretrain

    pretrain([options.out_dir, *options.rest])
    return Outcome("")


def _at_least(smallest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < smallest:
            raise argparse.ArgumentTypeError(f"{value} is less than {smallest}")
        return value

    return number


def _numbers(text: str) -> list[int]:
    return [_at_least(0)(part) for part in text.split(",") if part.strip()]


def _plain(value: Any) -> str:
    """A mapping as aligned lines, for results that have no table of their own."""
    width = max((len(str(key)) for key in value), default=0)
    items = ((str(key).ljust(width), f"{item:.2f}" if isinstance(item, float) else item) for key, item in value.items())
    return "\n".join(f"{key}  {item}" for key, item in items)


def _ending(text: str) -> str:
    return text + "\n" if text and not text.endswith("\n") else text


def _complain(message: str, status: int) -> int:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"timer1: {' '.join(message.split())}\n")
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
