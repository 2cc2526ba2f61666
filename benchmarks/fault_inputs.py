"""What the fault campaign feeds to the readers: answers, annotation files, prediction files (see faults.py)."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from fault_tools import ROOT, Bench, Tally, here, time_limit

SHARED_ANNOTATIONS = ROOT.parent / "shared" / "data" / "annotations"


Span = tuple[float, float]
PUBLISHED = ("timer1", "timer1_eval", "tvg_r1")
"""Ways of reading that are bit-equal to a paper's own script, faults included: counted on a line of their own, not against us."""

ODD_NUMBERS = [
    "1e999", "NaN", "inf", "-inf", "−3.5", "–4", "007", "1.", "1.5", ".5", "9999999", "99999999", "٣٫٥", "٣.٥", "三", "一二",
    "𝟏𝟐", "²", "½", "Ⅻ", "1_000", "1,234.5", "12,5", "00:12", "0x1F", "+5", "5s", "5.0seconds", "9" * 400, "1." + "0" * 40,
    "9" * 5000, "5\u00a0", "\u200b5",
]  # fmt: skip
TAGS = [
    "<think>", "</think>", "<answer>", "</answer>", "<time>", "</time>", "<THINK>", "<answer", "</answer", "</", "<", ">", "[",
    "]", "(", ")", "{", "}", "\\boxed{A}", "\\boxed{", "\\boxed{(B)}", "\\boxed{\\text{C}}", "<|im_end|>", "<timestep>",
]  # fmt: skip
SEPARATORS = [" to ", " and ", "-", " - ", "–", "—", ", ", " to", "to ", "\n to \n", "→", "~", " TO ", "\u2212", " bis "]
NEUTRAL = [*TAGS, *ODD_NUMBERS, *SEPARATORS, " ", "\n", "x", "The event", "seconds", "\x00", "\u2028", "\ufeff"]


def _clock(seconds: float, hours: bool) -> str:
    whole = int(seconds)
    minutes = f"{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 3600}:{minutes}" if hours else minutes


def _units(seconds: float, words: tuple[str, str], gap: str) -> str:
    return f"{int(seconds) // 60}{gap}{words[0]}{gap or ' '}{int(seconds) % 60}{gap}{words[1]}".replace("  ", " ")


def _grouped(value: float) -> str:
    return f"{value:,.1f}"


def written_times(rng: random.Random) -> tuple[str, str, Span]:
    """(notation, text, meaning in seconds): two times as a person would write them, whose meaning is beyond doubt."""
    a, b = sorted(round(rng.uniform(0, 200), rng.choice((0, 1, 2))) for _ in range(2))
    long_a, long_b = sorted(rng.randrange(60, 3600) for _ in range(2))
    far_a, far_b = sorted(rng.randrange(3600, 20_000) for _ in range(2))
    s = rng.choice(("s", " s", " sec", " seconds"))
    words = rng.choice((("m", "s"), ("min", "s"), ("minutes", "seconds"), ("min", "sec")))
    gap = " " if len(words[0]) > 1 else rng.choice(("", " "))
    tenth_a, tenth_b = round(a, 1), round(b, 1)
    arabic = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
    choices: list[tuple[str, str, Span]] = [
        ("plain", f"{a} to {b}", (a, b)),
        ("plain", f"{a:.2f} to {b:.2f}", (round(a, 2), round(b, 2))),
        ("seconds named", f"{a}{s} to {b}{s}", (a, b)),
        ("between", f"between {a} and {b}", (a, b)),
        ("secs", f"{a} secs to {b} secs", (a, b)),
        ("clock", f"{_clock(long_a, False)} to {_clock(long_b, False)}", (long_a, long_b)),
        ("clock with hours", f"{_clock(far_a, True)} to {_clock(far_b, True)}", (far_a, far_b)),
        ("clock with tenths", f"{_clock(long_a, False)}.5 to {_clock(long_b, False)}.5", (long_a + 0.5, long_b + 0.5)),
        ("minutes and seconds", f"{_units(long_a, words, gap)} to {_units(long_b, words, gap)}", (long_a, long_b)),
        ("other units", f"{int(a)} to {int(b)} minutes", (60 * int(a), 60 * int(b))),
        ("other units", f"{int(a)} to {int(b)} ms", (int(a) / 1000, int(b) / 1000)),
        ("negative", f"-{tenth_a} to {tenth_b}", (-tenth_a, tenth_b)),
        ("negative", f"{tenth_a} to -{tenth_b}", (tenth_a, -tenth_b)),
        ("negative, other sign", f"\u2212{tenth_a} to {tenth_b}", (-tenth_a, tenth_b)),
        ("decimal comma", f"{tenth_a:.1f} to {tenth_b:.1f}".replace(".", ","), (tenth_a, tenth_b)),
        ("thousands", f"{_grouped(far_a)} to {_grouped(far_b)}", (far_a, far_b)),
        ("exponent", f"{a:.3e} to {b:.3e}", (float(f"{a:.3e}"), float(f"{b:.3e}"))),
        ("exponent", f"{int(a) % 9 + 1}e1 to {int(b) % 9 + 1}e1", ((int(a) % 9 + 1) * 10.0, (int(b) % 9 + 1) * 10.0)),
        ("no leading zero", f".{int(a) % 9 + 1} to {b}", ((int(a) % 9 + 1) / 10, b)),
        ("no digit after", f"{int(a)}. to {int(b)}.", (int(a), int(b))),
        ("Arabic digits", f"{int(a)} to {int(b)}".translate(arabic), (int(a), int(b))),
        ("many digits", f"{10**8 + int(a)} to {10**8 + int(b)}", (10**8 + int(a), 10**8 + int(b))),
    ]
    return rng.choice(choices)


def wrapped(text: str, tag: str, rng: random.Random) -> str:
    """Times in the block that a way of reading looks in; `tag` "" is no block, "time" TVG-R1's brackets."""
    think = rng.choice(("", "<think>a</think>", "<think>1 to 2, perhaps</think>\n"))
    if tag == "time":
        return f"{think}<time>[{text.replace(' to ', ', ')}]</time>"
    return f"{think}<answer>{text}</answer>" if tag else text


def broken_text(rng: random.Random, number: int) -> str:
    """A text that may mean anything: broken and nested tags, numbers of all kinds, any Unicode, very long ones."""

    def any_character() -> str:
        return chr(rng.choice((rng.randrange(32, 127), rng.randrange(0, 0x110000), 0, 10, 13, 0x2028)))

    kind = number % 7
    if kind == 0:
        return "".join(any_character() for _ in range(rng.randrange(200)))
    if kind == 1:
        return "".join(rng.choice(NEUTRAL) for _ in range(rng.randrange(1, 60)))
    if kind == 2:
        return wrapped(
            rng.choice(ODD_NUMBERS) + rng.choice(SEPARATORS) + rng.choice(ODD_NUMBERS), rng.choice(("", "answer", "time")), rng
        )
    if kind == 3:
        return rng.choice(TAGS) * rng.randrange(1, 300) + rng.choice(ODD_NUMBERS)
    if kind == 4:
        text = rng.choice(("<think>a</think><answer>3.5 to 7.25</answer>", "<think>a</think><time>[3.5, 7.25]</time>"))
        at = rng.randrange(len(text))
        return text[:at] + any_character() + text[at + rng.randrange(3) :]
    if kind == 5:
        return wrapped(wrapped("1 to 2", "answer", rng), "answer", rng) + rng.choice(TAGS)
    if number % 70 == 6:
        piece = rng.choice(NEUTRAL) or " "
        return (piece * (100_000 // len(piece) + 1))[:100_000]
    return f"The event happens from {rng.choice(ODD_NUMBERS)}{rng.choice(SEPARATORS)}{rng.choice(ODD_NUMBERS)} seconds."


BLOCK = 2500
"""Texts that are drawn from one seed, in one process."""


def answers(bench: Bench, count: int = 100_000) -> list[Tally]:
    """Texts under every form, half of them with times whose meaning is beyond doubt."""
    ours, theirs = Tally("answers, our forms"), Tally("answers, as published")
    shares = [(bench, start, min(BLOCK, count - start)) for start in range(0, count, BLOCK)]
    with contextlib.ExitStack() as stack:
        spread: Any = map
        if len(shares) > 1:
            spread = stack.enter_context(ProcessPoolExecutor(bench.jobs, get_context("spawn"))).map
        for one, other in spread(block_of_answers, shares):
            ours.join(one)
            theirs.join(other)
    theirs.notes.append("Counted as their own code reads; a span that the notation does not mean is theirs, and no fault here.")
    theirs.notes += [f"{name}: {n}" for name, n in theirs.about.items()]
    _forgive(theirs)
    return [ours, theirs]


def block_of_answers(share: tuple[Bench, int, int]) -> tuple[Tally, Tally]:
    """Some of the texts: our forms, and those that read as a paper's script does."""
    from timer1lib import forms

    bench, start, count = share
    ours, theirs = Tally(""), Tally("")
    rng = bench.rng(f"answers/{start}")
    blocks = {"timer1_eval": "", "timelens": "", "tvg_r1": "time"}
    for number in range(start, start + count):
        notation, times, meaning = written_times(rng)
        broken = broken_text(rng, number // 2) if number % 2 else None
        for form in forms.FORMS.values():
            text = broken if broken is not None else wrapped(times, blocks.get(form.reading.way, "answer"), rng)
            tally = theirs if form.reading.way in PUBLISHED else ours
            said = f"{form.name}: {text[:80]!r}, {len(text)} characters"
            begun = time.process_time()
            try:
                with time_limit(60):
                    spans, values = read_all(form, text, rewards=number % 20 < 2)
            except TimeoutError:
                tally.add("hung", "no end", said)
                continue
            except Exception as error:
                tally.add("crashed", type(error).__name__, f"{said}: {error!r}")
                continue
            if time.process_time() - begun > 2:
                tally.add("hung", "slow", f"{said}: {time.process_time() - begun:.1f} s")
            elif not all(math.isfinite(t) for span in spans for t in span) or not all(0 <= v <= 1 + 1e-9 for v in values):
                tally.add("wrong", "not finite, or a reward outside 0 to 1", f"{said}: {spans} {values}")
            elif broken is not None:
                tally.add("right", "broken text")
            else:
                _judge(tally, form.name, notation, text, spans, meaning)
    return ours, theirs


def read_all(form: Any, text: str, *, rewards: bool) -> tuple[list[Span], list[float]]:
    """Everything that is read from an answer: spans, form, letter, and rewards where they are asked for."""
    from timer1lib.forms.reading import parse_letter
    from timer1lib.rewards import REWARDS, RewardInput

    spans = form.read(text)
    form.fits(text)
    parse_letter(text, ["a", "b"])
    asked = RewardInput(text, ((3.0, 8.0),), 30.0, form, ("a", "b"), 1)
    return spans, [reward(asked) for reward in REWARDS.values()] if rewards else []


def _judge(tally: Tally, form: str, notation: str, text: str, spans: list[Span], meaning: Span) -> None:
    said = f"{form}: {text!r} read as {spans}, means {meaning}"
    if not spans:
        plain = notation == "plain" or (notation in ("seconds named", "between") and "[" not in text)
        tally.add("lost" if plain else "refused", notation, said)
    else:
        same = all(abs(x - y) <= 1e-6 * max(1.0, abs(y)) for x, y in zip(spans[-1], meaning, strict=True))
        tally.add("right" if same else "wrong", notation, said)


def _forgive(tally: Tally) -> None:
    """A published way's own misreadings are right by definition: bit-equal to its source."""
    tally.counts["right"] += tally.counts.pop("wrong", 0)
    tally.counts["refused"] += tally.counts.pop("lost", 0)
    tally.examples = {key: value for key, value in tally.examples.items() if key.startswith(("crashed", "hung"))}
    tally.about = Counter({key: n for key, n in tally.about.items() if key.startswith(("crashed", "hung"))})


_OPTIONS = ["(A) a cup", "(B) a box", "(C) a door", "(D) nothing"]
_ASKED = {"options": _OPTIONS, "answer": "B"}
LAYOUTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "timer1": (".jsonl", "id video query windows duration", {}),
    "jsonl": (".jsonl", "- video query timestamp duration", {}),
    "tvgbench": (".json", "- path question - duration", {"answer": "13.4-28.1", "qsemtype": "x"}),
    "timerft": (".json", "qid video sentence timestamp duration", {}),
    "lighthouse": (".jsonl", "qid vid query relevant_windows duration", {}),
    "qvhighlights": (".jsonl", "qid vid query relevant_windows duration", {"saliency_scores": [[1, 2, 3]]}),
    "didemo": (".json", "annotation_id video description - -", {"times": [[1, 2], [1, 2]], "num_segments": 6}),
    "rextime": (".json", "qid vid question span duration", {"options": _OPTIONS, "ans": "B"}),
    "nextgqa": (".json", "- video question glue duration", _ASKED),
    "mvbench": (".json", "- video question - duration", {"candidates": _OPTIONS, "answer": "B"}),
    "tempcompass": (".json", "- video_id - - -", {"question": "What?\nA. a cup\nB. a box", "dim": "action", "answer": "A"}),
    "videomme": (".json", "question_id videoID question - duration", _ASKED),
    "egoschema": (".json", "q_uid - question - -", {f"option {k}": f"thing {k}" for k in range(5)}),
}
"""Formats of flat rows: suffix, their names for id, video, query, windows and duration (- for none), what else they have."""


def made_sources() -> dict[str, tuple[str, Any]]:
    """{format: (suffix, content)} of small undamaged files of all formats, 24 rows each."""
    things = ("door", "box", "cup", "book", "bag", "lid", "pan", "tap")
    queries = [f"person {verb} the {thing}" for verb in ("opens", "closes", "lifts") for thing in things]
    rows = [(f"s{i}", f"v{i % 6}", query, [[1.0 + i, 5.5 + i]], 60.0) for i, query in enumerate(queries)]
    captions: dict[str, Any] = {}
    hirest: dict[str, Any] = {}
    for _, video, query, (window,), duration in rows:
        record = captions.setdefault(video, {"duration": duration, "timestamps": [], "sentences": []})
        record["timestamps"].append(window)
        record["sentences"].append(query)
        hirest[query] = {f"{video}.mp4": {"relevant": True, "clip": True, "v_duration": duration, "bounds": window}}
    table = "".join(f"{video},{query},{start},{end},{duration}\n" for _, video, query, ((start, end),), duration in rows)
    sources: dict[str, tuple[str, Any]] = {
        "csv": (".csv", f"video,query,start,end,duration\n{table}"),
        "charades_sta": (".txt", "".join(f"{video} {start} {end}##{query}.\n" for _, video, query, ((start, end),), _ in rows)),
        "captions": (".json", captions),
        "hirest": (".json", hirest),
    }
    for name, (suffix, fields, more) in LAYOUTS.items():
        flat = [dict(zip(fields.split(), row, strict=True)) for row in rows]
        sources[name] = (suffix, [{**{key: value for key, value in row.items() if key != "-"}, **more} for row in flat])
    return sources


def shared_sources(folder: Path) -> dict[str, tuple[str, Any]]:
    """The first 60 records of every published file in a folder; none where there is no such folder."""
    found: dict[str, tuple[str, Any]] = {}
    for path in sorted(folder.glob("*.json*")):
        text = path.read_text()
        if path.suffix == ".jsonl":
            found[path.name] = (".jsonl", [json.loads(line) for line in text.splitlines()[:60] if line.strip()])
        else:
            value = json.loads(text)
            found[path.name] = (".json", value[:60] if isinstance(value, list) else dict(list(value.items())[:20]))
    return found


def as_bytes(suffix: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if suffix == ".jsonl":
        return "".join(json.dumps(row) + "\n" for row in value).encode()
    return json.dumps(value).encode()


BAD_VALUES: tuple[Any, ...] = (
    None, True, "", [], {}, 0, -1, 10**400, 1e308, math.nan, math.inf, -math.inf, "12", "NaN", "\ud800", "\x00", "x" * 100_000,
    [[]], [[1]], [[1, 2, 3]], [[2, 1]], [["a", "b"]], [[None, None]], {"a": 1}, "../../../etc/passwd", "/etc/passwd", "C:\\x.mp4",
    "<script>alert(1)</script>", "1-2", "5.0 - ", "1e5-1e400", ["x"], [1, 2], [[-(10**300), 10**300]], "\u202e\u0000",
)  # fmt: skip
TINY_FILES = (
    b"", b" ", b"[]", b"{}", b"null", b"0", b'""', b"[", b"{", b"[[]]", b"[{}]", b"{}\n{}\n", b"\x00" * 100, b"\xff\xfe",
    b'[null,1,"x"]',
    b",,,,\n,,,", b"video,start,end,query\n", b"video,start,end,query\na,1", b'"\n"\n', b"a b c##d", b"##", b"v x y##q\n",
    b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b'[{"video":"a","query":"b c","start":' + b"9" * 5000 + b',"end":3}]',
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path of keys in a value, itself left out."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


def mutated(rng: random.Random, kind: int, suffix: str, value: Any) -> tuple[str, str, bytes, int | None]:
    """(what was done, suffix, bytes, rows that the file certainly holds or None) of one damaged file."""
    content = as_bytes(suffix, value)
    rows = len(value) if isinstance(value, list) else None
    structured = not isinstance(value, str)
    match kind % 14:
        case 0:
            return "cut off", suffix, content[: rng.randrange(len(content))], None
        case 1:
            raw = bytearray(content)
            for _ in range(rng.choice((1, 5, 100))):
                raw[rng.randrange(len(raw))] = rng.randrange(256)
            return "bytes flipped", suffix, bytes(raw), None
        case 2 | 3 | 4 | 5 if structured:
            value = copy.deepcopy(value)
            paths = [path for path in places(value) if len(path) > 1]
            for path in rng.sample(paths, min(len(paths), rng.choice((1, 10, 100)))):
                with contextlib.suppress(KeyError, IndexError, TypeError):
                    put(value, path, copy.deepcopy(rng.choice(BAD_VALUES)))
            return "wrong types", suffix, as_bytes(suffix, value), rows
        case 6 if structured:
            text = content.decode()
            odd = ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "-0", "0x12", "1_0")
            return "odd numbers", suffix, re.sub(r"\d+\.\d+", lambda m: rng.choice((m[0],) * 9 + odd), text).encode(), None
        case 7:
            return "byte order marks", suffix, b"\xef\xbb\xbf" * rng.choice((1, 2)) + content, None
        case 8:
            return "encodings", suffix, content.decode().encode(rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-7"))), None
        case 9:
            return "line ends", suffix, content.replace(b"\n", rng.choice((b"\r\n", b"\r"))).replace(b"}, {", b"},\r\n{"), rows
        case 10 if rows is not None:
            after = rng.choice((content, b" text after the end", b"\n,\n" + content, b"]"))
            return "something after the end", suffix, content + after, rows * (2 if content in after else 1)
        case 11 if rows is not None and suffix == ".json":
            return "two lists in one object", ".json", json.dumps({"train": value, "results": value}).encode(), 2 * rows
        case 12:
            return "tiny", rng.choice((".json", ".jsonl", ".csv", ".txt")), rng.choice(TINY_FILES), None
        case _:
            raw = bytearray(content)
            at = rng.randrange(len(raw))
            del raw[at : at + rng.randrange(1, 400)]
            return "a piece cut out", suffix, bytes(raw), None


def annotations(bench: Bench, count: int = 500, published: Path = SHARED_ANNOTATIONS) -> list[Tally]:
    """Damaged annotation files of every format: rows in = kept + repaired + dropped, and no row that is not counted."""
    tally, rng, folder = Tally("annotation files"), bench.rng("annotations"), bench.new("annotations")
    sources = {**made_sources(), **shared_sources(published)}
    names = sorted(sources)
    for number in range(count):
        name = names[number % len(names)]
        what, suffix, content, rows = mutated(rng, rng.randrange(14), *sources[name])
        path = folder / f"{number}{suffix}"
        path.write_bytes(content)
        kind = f"{what} ({name})"
        result = here(["audit", str(path), "--json"])
        if fault := result.fault(path.name):
            tally.add(fault[0], what, f"{name}: {fault[1]}")
        elif result.status == 2:
            tally.add("refused", kind)
        else:
            counts = json.loads(result.out)["rows"]
            account = counts["kept"] + counts["repaired"] + counts["dropped"]
            if counts["in"] != account or (rows is not None and counts["in"] < rows):
                tally.add("lost", kind, f"{rows} rows in the file, {counts}")
            else:
                tally.add("right", kind)
        path.unlink()
    tally.notes.append(f"{len(sources)} sources: {', '.join(names)}")
    return [tally]


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """IoU of two spans, written here once more so that it is nobody's but the campaign's."""
    if a[1] <= a[0] or b[1] <= b[0]:
        return 0.0
    inside = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return inside / (a[1] - a[0] + b[1] - b[0] - inside)


def predictions(bench: Bench, count: int = 300) -> list[Tally]:
    """Damaged prediction files through `timer1 score`; where every row is whole, mIoU worked out here must be the one given."""
    tally, rng, folder = Tally("prediction files"), bench.rng("predictions"), bench.new("predictions")
    _, truth = made_sources()["timer1"]
    (folder / "truth.jsonl").write_bytes(as_bytes(".jsonl", truth))
    for number in range(count):
        path = folder / f"p{number}.jsonl"
        rows, expected = answers_of(rng, truth, number)
        if expected is None:
            what, _, content, _ = mutated(rng, rng.randrange(14), ".jsonl", rows)
        else:
            what, content = "whole rows", as_bytes(".jsonl", rows)
        path.write_bytes(content)
        more = rng.choice(([], ["--form", rng.choice(("timer1", "tvg_r1", "timelens"))], ["--repair", "repair"]))
        result = here(["score", str(path), str(folder / "truth.jsonl"), "--json", *([] if expected is not None else more)])
        if fault := result.fault(path.name, "truth.jsonl"):
            tally.add(fault[0], what, fault[1])
        elif result.status == 2:
            tally.add("refused" if expected is None else "lost", what, result.err)
        else:
            tally.add(*_scored(json.loads(result.out), expected, what))
        path.unlink()
    return [tally]


def answers_of(rng: random.Random, truth: Sequence[dict[str, Any]], number: int) -> tuple[list[dict[str, Any]], float | None]:
    """Prediction rows, and for every third file, whose rows stay whole, the mIoU in percent that they must have."""
    rows: list[dict[str, Any]] = []
    total = 0.0
    for sample in truth:
        (start, end), fate = sample["windows"][0], rng.random()
        span = (round(start + rng.uniform(-3, 3), 2), round(end + rng.uniform(-3, 3), 2))
        if fate < 0.1:
            continue
        if fate < 0.2:
            rows.append({"id": sample["id"], "start": None, "end": None})
            continue
        total += overlap(span, (start, end))
        if fate < 0.6:
            rows.append({"id": sample["id"], "start": span[0], "end": span[1]})
        elif span[0] >= 0:
            rows.append({"id": sample["id"], "completion": f"<think>a</think><answer>{span[0]} to {span[1]}</answer>"})
        else:
            rows.append({"video": sample["video"], "query": sample["query"], "start": span[0], "end": span[1]})
    rng.shuffle(rows)
    return rows, 100 * total / len(truth) if number % 3 == 0 and rows else None


def _scored(value: dict[str, Any], expected: float | None, what: str) -> tuple[str, str, str]:
    if value["n"] != value["answered"] + value["missing"]:
        return "lost", what, f"{value['n']} asked, {value['answered']} answered, {value['missing']} missing"
    if not 0 <= value["mIoU"] <= 100 or (expected is not None and abs(value["mIoU"] - expected) > 0.06):
        return "wrong", what, f"mIoU {value['mIoU']}, expected {expected}"
    return "right", what, ""
