"""`predict` on a tiny random model and real video files: order, resumption, shards, failures, perturbations."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_kinds import KINDS, build_kind

from timer1lib.clock.frames import Frames
from timer1lib.errors import Timer1Error
from timer1lib.files import read_json, read_jsonl
from timer1lib.forms import Prompt
from timer1lib.inference import generate
from timer1lib.inference.generate import predict
from timer1lib.inference.ledger import Ledger, batches, merge_shards, shard_path, shuffle_frames, swap_videos, take_shard
from timer1lib.params import parse_shard
from timer1lib.params.sections import SharedParams
from timer1lib.schema import Prediction, Sample

QUERIES = ("a red circle", "the wall turns blue", "a green square appears")


def write_video(path: Path, seconds: int, seed: int) -> None:
    import av

    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=2)
        stream.width = stream.height = 56
        stream.pix_fmt = "yuv420p"
        for _ in range(2 * seconds):
            picture = np.broadcast_to(rng.integers(0, 255, (1, 1, 3), dtype=np.uint8), (56, 56, 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for i in range(5):
        write_video(folder / f"v{i}.mp4", 6 + 2 * i, i)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load("qwen3_vl", tmp_path_factory.mktemp("tiny"))


def load(family: Any, folder: Path, **how: Any) -> Any:
    import torch

    from timer1lib.models.load import load_model

    loaded = load_model(build_kind(folder, family, seed=3), **how)
    # A random model hardly looks at what it is shown; larger weights make its answers depend on video and query.
    with torch.no_grad():
        for name, weight in loaded.model.named_parameters():
            if weight.ndim > 1 and "embed" not in name:
                weight.mul_(4)
    return loaded


@pytest.fixture
def shared(tmp_path: Path) -> SharedParams:
    return SharedParams(frames=8, cache_dir=str(tmp_path / "cache"), workers=0)


@pytest.fixture
def samples() -> list[Sample]:
    return [Sample(f"{i}-{j}", f"v{i}.mp4", query, 6.0 + 2 * i) for j, query in enumerate(QUERIES) for i in range(5)]


def ask(loaded: Any, samples: list[Sample], videos: Path, shared: SharedParams, out: Path, **options: Any) -> list[Any]:
    options = {"max_new_tokens": 8, "batch_size": 4, **options}
    return predict(loaded, samples, lambda s: videos / s.video, shared, out, **options)


@pytest.mark.parametrize("asking", ["shared_prefix", "repeated"])
@pytest.mark.parametrize("penalty", [1.0, 1.4])
def test_batched_answers_equal_single_ones(
    loaded: Any, samples: list[Sample], videos: Path, shared: SharedParams, tmp_path: Path, asking: str, penalty: float
) -> None:
    """Prompts of different lengths, several to a video, padding, shared features: as the plain forward, one by one."""
    import torch

    from timer1lib.models.config import sampling_for
    from timer1lib.models.inputs import banned_token_ids, encode_prompt, sample_prompt
    from timer1lib.video.decode import read_frames

    shared = shared.model_copy(update={"asking": asking})
    answers = ask(loaded, samples, videos, shared, tmp_path / "p.jsonl", batch_size=6, repetition_penalty=penalty)
    assert [a.id for a in answers] == [s.id for s in samples]
    sampling = sampling_for(shared, loaded.name)
    texts = []
    for sample in samples:
        frames = read_frames(videos / sample.video, sampling)
        row = encode_prompt(loaded, frames, sample_prompt(sample, shared))
        with torch.inference_mode():
            how = {"do_sample": False, "repetition_penalty": penalty, "suppress_tokens": banned_token_ids(loaded)}
            tokens = loaded.model.generate(**row, max_new_tokens=8, **how)
        texts.append(loaded.tokenizer.decode(tokens[0, row["input_ids"].shape[1] :], skip_special_tokens=True))
    assert [a.completion for a in answers] == texts
    assert len(set(texts)) > 3, "answers that are all alike would prove nothing"
    assert all(a.parser == "plain" and a.seconds and a.seconds > 0 and a.model == loaded.name for a in answers)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_questions_share_their_video_under_the_wrong_rule_too(
    family: str, samples: list[Sample], videos: Path, shared: SharedParams, tmp_path: Path
) -> None:
    """There text begins anew behind a video, and an answer goes on from the text."""
    model = load(family, tmp_path / "model", clock_rule="wrong_text")
    told = [
        [
            answer.completion
            for answer in ask(model, samples, videos, shared.model_copy(update={"asking": asking}), tmp_path / f"{asking}.jsonl")
        ]
        for asking in ("shared_prefix", "repeated")
    ]
    assert told[0] == told[1]
    assert len(set(told[0])) > 3


def test_one_video_with_many_questions_gives_the_others_no_empty_room(
    model: Any, videos: Path, shared: SharedParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from timer1lib.models import rollouts

    rooms = []
    original = rollouts.generate

    def spy(base: Any, prompts: Any, group: int, *rest: Any) -> Any:
        rooms.append((len(prompts), group))
        return original(base, prompts, group, *rest)

    monkeypatch.setattr(rollouts, "generate", spy)
    many = [Sample(f"0-{i}", "v0.mp4", f"{QUERIES[i % 3]} {i}", 6.0) for i in range(12)]
    few = [Sample(f"{v}-0", f"v{v}.mp4", QUERIES[0], 6.0 + 2 * v) for v in (1, 2, 3, 4)]
    told = ask(model, [*few[:2], *many, *few[2:]], videos, shared, tmp_path / "p.jsonl", batch_size=32)
    assert sorted(rooms) == [(1, 12), (4, 1)]
    plain = shared.model_copy(update={"asking": "repeated"})
    alone = ask(model, [*few[:2], *many, *few[2:]], videos, plain, tmp_path / "q.jsonl", batch_size=32)
    assert [a.completion for a in told] == [a.completion for a in alone]


def test_positions_are_those_of_the_model_whatever_stands_behind_the_video(loaded: Any, videos: Path) -> None:
    import torch

    from timer1lib.models.config import sampling_for
    from timer1lib.models.encoded import encode
    from timer1lib.models.inputs import encode_prompt
    from timer1lib.video.decode import read_frames

    asked = []
    original = loaded.model.model.get_rope_index
    for number in (0, 1, 0, 1):
        frames = read_frames(videos / f"v{number}.mp4", sampling_for(SharedParams(frames=8), loaded.name))
        for text in ("when?", "when does the very long thing that nobody knows happen?", ""):
            row = encode_prompt(loaded, frames, Prompt(text))
            rope = {name: row[name] for name in ("mm_token_type_ids", "video_grid_thw", "second_per_grid_ts") if name in row}
            positions, delta = original(row["input_ids"], attention_mask=torch.ones_like(row["input_ids"]), **rope)
            found = encode(loaded.model, row, "s")
            assert found.positions.equal(positions[:, 0])
            assert found.delta == int(delta)
            asked.append(found.positions.shape[1])
    assert len(set(asked)) == 3


def test_a_form_file_is_asked_as_it_says_and_counts_by_its_content(
    model: Any, samples: list[Sample], videos: Path, shared: SharedParams, tmp_path: Path
) -> None:
    import torch

    from timer1lib.models.config import sampling_for
    from timer1lib.models.inputs import banned_token_ids, encode_prompt
    from timer1lib.video.decode import read_frames

    path = tmp_path / "mine.yaml"
    path.write_text("ask: 'when: {query}?'\nsystem: describe\ntext_first: true\nread: timelens\n")
    own = SharedParams(**{**shared.model_dump(), "form": str(path)})
    answers = ask(model, samples[:4], videos, own, tmp_path / "p.jsonl")
    sampling = sampling_for(own, model.name)
    texts = []
    for sample in samples[:4]:
        row = encode_prompt(
            model,
            read_frames(videos / sample.video, sampling),
            Prompt(f"when: {sample.query.rstrip('.')}?", "describe", text_first=True),
        )
        with torch.inference_mode():
            tokens = model.model.generate(**row, max_new_tokens=8, do_sample=False, suppress_tokens=banned_token_ids(model))
        texts.append(model.tokenizer.decode(tokens[0, row["input_ids"].shape[1] :], skip_special_tokens=True))
    assert [a.completion for a in answers] == texts
    assert {a.parser for a in answers} == {"timelens"}
    before = read_json(tmp_path / "p.meta.json")["key"]
    path.write_text(path.read_text() + "counts: first\n")
    ask(model, samples[:4], videos, own, tmp_path / "p.jsonl")
    assert read_json(tmp_path / "p.meta.json")["key"] != before


def test_a_video_is_decoded_processed_and_encoded_once(
    model: Any, samples: list[Sample], videos: Path, shared: SharedParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    askers = []
    original = generate._Asker.__init__

    def spy(self: Any, *args: Any) -> None:
        original(self, *args)
        askers.append(self)

    monkeypatch.setattr(generate._Asker, "__init__", spy)
    ask(model, samples, videos, shared, tmp_path / "p.jsonl", batch_size=4)
    assert askers[0].features.computed == 5
    assert askers[0].encoder.whole == 6  # once a video, and once more to prove that the short way is the same


def test_kept_answers_are_taken_by_the_same_weights_films_and_settings_alone(
    model: Any, samples: list[Sample], videos: Path, shared: SharedParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    original = generate._Asker.ask

    def spy(self: Any, batch: Any, seed: int) -> Any:
        asked.extend(s.id for s in batch)
        return original(self, batch, seed)

    monkeypatch.setattr(generate._Asker, "ask", spy)
    films = tmp_path / "films"
    shutil.copytree(videos, films)
    folder = Path(shared.cache_dir) / "answers"

    def again(name: str, kept: list[Sample] = samples, settings: SharedParams = shared, **options: Any) -> int:
        """How many are asked."""
        asked.clear()
        given = ask(model, kept, films, settings, tmp_path / f"{name}.jsonl", **{"keep": True, **options})
        assert [a.id for a in given] == [s.id for s in kept]
        return len(asked)

    assert again("plain", keep=False) == len(samples)
    assert not folder.exists()
    assert again("first") == len(samples)
    assert again("second", settings=shared.model_copy(update={"seed": 9})) == 0
    assert (tmp_path / "second.jsonl").read_bytes() == (tmp_path / "first.jsonl").read_bytes()
    assert read_json(tmp_path / "second.meta.json") == read_json(tmp_path / "plain.meta.json")
    assert again("fewer", samples[:-1]) == len(samples) - 1, "a file is taken whole or not at all"
    assert again("longer", max_new_tokens=9) == len(samples)
    assert again("sampled", temperature=1.0) == len(samples)
    assert len(list(folder.iterdir())) == 3
    shutil.copy(films / "v1.mp4", films / "v0.mp4")
    assert again("film") == len(samples), "another film under the same name"
    (films / "v0.mp4").unlink()
    assert again("gone") == len(samples)
    assert len(list(folder.iterdir())) == 4, "answers that failed are not kept"
    assert again("gone again") == len(samples)
    shutil.copy(videos / "v0.mp4", films / "v0.mp4")
    assert again("as it was") == 0


class Killed(BaseException):
    pass


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_killed_run_goes_on_and_ends_in_the_same_answers(
    model: Any,
    samples: list[Sample],
    videos: Path,
    shared: SharedParams,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    temperature: float,
) -> None:
    options = {"temperature": temperature, "num_samples": 2 if temperature else 1, "batch_size": 4}
    whole = ask(model, samples, videos, shared, tmp_path / "whole.jsonl", **options)
    out = tmp_path / "killed.jsonl"
    asked: list[str] = []
    original = generate._Asker.ask

    def spy(self: Any, batch: Any, seed: int) -> Any:
        if len(asked) >= 8 and not resumed:
            raise Killed
        asked.extend(s.id for s in batch)
        return original(self, batch, seed)

    monkeypatch.setattr(generate._Asker, "ask", spy)
    resumed = False
    with pytest.raises(Killed):
        ask(model, samples, videos, shared, out, **options)
    assert not out.exists()
    part = out.with_suffix(".part.jsonl")
    text = part.read_text()
    part.write_text(text[: len(text) - 30])  # a torn last line
    before, resumed = len(asked), True
    again = ask(model, samples, videos, shared, out, **options)
    strip = [(a.id, a.completion, a.start, a.end) for a in again]
    assert strip == [(a.id, a.completion, a.start, a.end) for a in whole]
    if not temperature:
        assert len(asked) - before == len(samples) - 7, "the seven whole answers are kept"
    assert not part.exists()
    asked.clear()
    assert ask(model, samples, videos, shared, out, **options) == again
    assert asked == [], "a finished file is not asked again"


def test_a_ledger_heals_what_a_disk_has_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {"model": "m", "samples": [[name] for name in "abcd"]}
    given = {name: Prediction(name, completion=name, parser="timer1", model="m") for name in "abcd"}

    def opened(copies: int = 1) -> Ledger:
        ledger = Ledger(tmp_path / "p.jsonl", settings, copies)
        ledger.open()
        return ledger

    opened().add(given.values())
    part = tmp_path / "p.part.jsonl"
    lines = part.read_text().splitlines()
    part.write_text("\n".join([lines[0], lines[1][:9] + "\x00" + lines[1][10:], '{"id": 7}', lines[3]]) + "\n")
    ledger = opened()
    assert sorted(ledger.done) == ["a", "d"]
    assert [record.message.split(":")[0] for record in caplog.records] == [f"{part}, line 2", f"{part}, line 3"]
    ledger.add([given["b"], given["c"]])
    assert [answer.id for answer in ledger.finish("abcd")] == list("abcd")
    whole = ledger.path.read_text()
    ledger.path.write_text(whole.replace(whole.splitlines()[2], "garbage"))
    again = opened()
    assert sorted(again.done) == ["a", "b", "d"]
    again.add([given["c"]])
    again.finish("abcd")
    assert again.path.read_text() == whole

    caplog.clear()
    ledger.meta.write_text('{"key": "')
    assert opened().done == {}, "whose answers these are cannot be told"
    assert "p.meta.json" in caplog.text
    assert opened().meta.read_text() == json.dumps({"key": ledger.key, "settings": settings}, indent=2) + "\n"


def test_a_torn_shard_is_not_adopted(tmp_path: Path) -> None:
    settings = {"model": "m", "samples": [["a"], ["b"]], "shard": None}
    shard = Ledger(tmp_path / "p.1of2.jsonl", {**settings, "samples": [["a"]], "shard": [1, 2]})
    shard.open()
    shard.add([Prediction("a", completion="x", parser="timer1", model="m")])
    shard.finish("a")
    assert list(Ledger(tmp_path / "p.jsonl", settings).open()) == ["a"]
    shard.meta.write_text("{")
    (tmp_path / "p.part.jsonl").unlink()
    assert Ledger(tmp_path / "p.jsonl", settings).open() == {}


def test_other_settings_or_weights_start_anew(
    model: Any, samples: list[Sample], videos: Path, shared: SharedParams, tmp_path: Path
) -> None:
    import torch

    out = tmp_path / "p.jsonl"
    first = ask(model, samples[:4], videos, shared, out)
    longer = ask(model, samples[:4], videos, shared, out, max_new_tokens=3)
    assert [a.completion for a in first] != [a.completion for a in longer]
    weight = model.model.get_input_embeddings().weight
    with torch.no_grad():
        weight.neg_()
    other = ask(model, samples[:4], videos, shared, out, max_new_tokens=3)
    with torch.no_grad():
        weight.neg_()
    assert [a.completion for a in other] != [a.completion for a in longer]


def test_shards_merge_without_loss_or_duplicates(
    model: Any, samples: list[Sample], videos: Path, shared: SharedParams, tmp_path: Path
) -> None:
    out = tmp_path / "p.jsonl"
    with pytest.raises(Timer1Error, match="run shard 1/3"):
        merge_shards(out, 3, samples)
    for k in (1, 2, 3):
        ask(model, samples, videos, shared, out, shard=(k, 3))
    merged = merge_shards(out, 3, samples)
    assert [a.id for a in merged] == [s.id for s in samples] == [row["id"] for row in read_jsonl(out)]
    whole = ask(model, samples, videos, shared, tmp_path / "whole.jsonl")
    assert [a.completion for a in merged] == [a.completion for a in whole]
    part = shard_path(out, (2, 3))
    rows = list(read_jsonl(part))
    part.write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
    with pytest.raises(Timer1Error, match="0 answers"):
        merge_shards(out, 3, samples)
    part.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    with pytest.raises(Timer1Error, match="2 answers"):
        merge_shards(out, 3, samples)


def test_shards_are_even_and_keep_videos_whole(samples: list[Sample]) -> None:
    parts = [take_shard(samples, (k, 2)) for k in (1, 2)]
    assert sorted(s.id for part in parts for s in part) == sorted(s.id for s in samples)
    assert not {s.video for s in parts[0]} & {s.video for s in parts[1]}
    assert abs(len(parts[0]) - len(parts[1])) <= 3
    assert parse_shard("2/4") == (2, 4)
    for bad in ("0/4", "5/4", "1-4", "a/b", "1/"):
        with pytest.raises(Timer1Error, match="k/n"):
            parse_shard(bad)


def test_batches_go_by_length_and_keep_videos_together(samples: list[Sample]) -> None:
    order = [s for batch in batches(samples, 4) for s in batch]
    assert [s.duration for s in order] == sorted(s.duration or 0 for s in samples)
    assert sum(a.video != b.video for a, b in pairwise(order)) == 4


def test_a_broken_video_fails_its_samples_and_no_others(
    model: Any, samples: list[Sample], videos: Path, shared: SharedParams, tmp_path: Path
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for path in videos.iterdir():
        (folder / path.name).write_bytes(path.read_bytes() if path.name != "v1.mp4" else b"no video")
    (folder / "v3.mp4").unlink()
    answers = {a.id: a for a in ask(model, samples, folder, shared, tmp_path / "p.jsonl")}
    failed = {name for name, a in answers.items() if a.error}
    assert failed == {s.id for s in samples if s.video in ("v1.mp4", "v3.mp4")}
    assert "v1.mp4" in str(answers["1-0"].error)
    assert "v3.mp4" in str(answers["3-0"].error)
    whole = ask(model, samples, videos, shared, tmp_path / "whole.jsonl")
    assert all(a.completion == answers[a.id].completion for a in whole if a.id not in failed)


def test_sampling_draws_different_answers_from_one_seed(
    model: Any, samples: list[Sample], videos: Path, shared: SharedParams, tmp_path: Path
) -> None:
    def draw(name: str, seed: int) -> list[str]:
        rows = ask(model, samples[:3], videos, shared, tmp_path / name, temperature=1.0, num_samples=4, seed=seed)
        assert [r.id for r in rows] == [s.id for s in samples[:3] for _ in range(4)]
        return [r.completion for r in rows]

    first = draw("a.jsonl", 1)
    assert first == draw("b.jsonl", 1) != draw("c.jsonl", 2)
    assert len(set(first[:4])) > 1
    with pytest.raises(Timer1Error, match="temperature"):
        ask(model, samples, videos, shared, tmp_path / "d.jsonl", num_samples=2)
    with pytest.raises(Timer1Error, match="share the id"):
        ask(model, [samples[0], samples[0]], videos, shared, tmp_path / "e.jsonl")


def test_a_samples_drawn_answers_do_not_depend_on_who_else_is_asked(
    loaded: Any, samples: list[Sample], videos: Path, shared: SharedParams, tmp_path: Path
) -> None:
    def draw(name: str, asked: list[Sample], **how: Any) -> dict[tuple[str, int], str]:
        rows = ask(loaded, asked, videos, shared, tmp_path / name, num_samples=3, seed=5, **how)
        return {(row.id, i % 3): row.completion for i, row in enumerate(rows)}

    every = draw("all.jsonl", samples, temperature=1.0, batch_size=15)
    assert len(set(every.values())) > 30
    assert draw("few.jsonl", samples[3:9:2], temperature=1.0, batch_size=2).items() <= every.items()
    cold = draw("cold.jsonl", samples, temperature=1e-6)
    greedy = {row.id: row.completion for row in ask(loaded, samples, videos, shared, tmp_path / "greedy.jsonl")}
    assert cold == {(name, copy): text for name, text in greedy.items() for copy in range(3)}


def test_swapped_and_shuffled_videos(
    model: Any, samples: list[Sample], videos: Path, shared: SharedParams, tmp_path: Path
) -> None:
    swapped = swap_videos(samples)
    partner: dict[str, set[str]] = {}
    for mine, theirs in zip(samples, swapped, strict=True):
        assert mine.video != theirs.video
        assert (mine.id, mine.query) == (theirs.id, theirs.query)
        partner.setdefault(mine.video, set()).add(theirs.video)
    assert all(len(names) == 1 for names in partner.values())
    assert len(set(map(tuple, partner.values()))) == 5
    with pytest.raises(Timer1Error, match="two videos"):
        swap_videos(samples[:1])
    frames = Frames(np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1).repeat(3, 3), np.arange(8.0), 8.0, 1.0, "none")
    mixed = shuffle_frames(frames, "v")
    assert sorted(mixed.pixels[:, 0, 0, 0]) == list(range(8))
    assert list(mixed.pixels[:, 0, 0, 0]) != list(range(8))
    assert (mixed.times_s == frames.times_s).all()
    assert (shuffle_frames(frames, "v").pixels == mixed.pixels).all()
    plain = ask(model, samples, videos, shared, tmp_path / "p.jsonl")
    for kind in ("swap", "shuffle"):
        other = ask(model, samples, videos, shared, tmp_path / f"{kind}.jsonl", perturb=kind)
        assert [a.id for a in other] == [s.id for s in samples]
        assert [a.completion for a in other] != [a.completion for a in plain]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
