"""The world's facts: seeds, windows by an independent simulation, splits that share nothing."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from itertools import combinations, islice, pairwise

import numpy as np
import pytest

from timer1lib.clock.told import seen
from timer1lib.files import resolve
from timer1lib.world.base import lessons as answers
from timer1lib.world.lexicon import (
    COLOURS,
    COMMON,
    HELD_OUT,
    MOST_PHRASINGS,
    NEW_PHRASES,
    PHRASES,
    POOL_PHRASES,
    SHAPES,
    TYPES,
    pool_phrases,
    vocabulary,
)
from timer1lib.world.queries import Query, long_questions, pick_queries, scene_queries, short_questions
from timer1lib.world.scene import Change, Look, Person, Scene, Thing, sample_scene
from timer1lib.world.splits import NOVELTIES, SPLITS, Variety, build_splits, scene_number, scene_samples, split_scenes

SCENES = [sample_scene(seed, difficulty) for seed in range(60) for difficulty in (0.0, 0.5, 1.0)]


def holds(scene: Scene, query: Query, t: float) -> bool | None:
    """Whether a query's predicate holds at time t, read off the scene anew; None for forms about a sequence."""
    slots = dict(query.slots)
    there = {thing.name for thing in scene.things if any(a <= t < b for a, b in thing.visible)}
    pose = "stand"
    if scene.person:
        pose = next((name for name, a, b in scene.person.acts if a <= t < b), "stand")
    verbs = {"waves": "wave", "jumps": "jump", "kicks": "kick", "sits": "sit", "lies down": "lie"}
    if query.form in ("HAS", "HP"):
        return pose == verbs[slots["does"]]
    if query.form == "HAC":
        return pose == verbs[slots["does"]] and slots["thing"] in there
    if query.form == "HAP":
        return pose in (verbs[slots["does"]], verbs[slots["does2"]])
    if query.form == "OES":
        return slots["thing"] in there
    if query.form == "OEC":
        return {slots["thing"], slots["thing2"]} <= there
    if query.form == "OC":
        return len([x for x in scene.things if any(a <= t < b for a, b in x.visible)]) == (
            "no",
            "one",
            "two",
            "three",
            "four",
        ).index(slots["count"])
    if query.form == "OA":
        thing = next(x for x in scene.things if x.name == slots["thing"] and x.grown)
        return thing.grown is not None and thing.grown[0] <= t < thing.grown[1]
    change = scene.wall if "light" not in query.form else scene.light
    if query.form.startswith("ES"):
        return change is not None and change.full <= t < change.end
    if query.form.startswith("EC"):
        return change is not None and change.start <= t < change.full
    return None


def test_windows_are_exactly_where_the_predicate_holds() -> None:
    checked = set()
    for scene in SCENES:
        times = np.arange(0.05, scene.duration, 0.1)
        for query in scene_queries(scene):
            truth = [holds(scene, query, float(t)) for t in times]
            if truth[0] is None:
                continue
            inside = [query.window[0] <= t < query.window[1] for t in times]
            wrong = [float(t) for t, a, b in zip(times, truth, inside, strict=True) if a != b]
            assert not wrong, (query, wrong[:3])
            checked.add(query.form)
    assert checked >= {"HAS", "HAC", "HAP", "HP", "OES", "OEC", "OA", "OC", "EC", "ES", "EC.light", "ES.light"}


def test_a_scene_worked_out_by_hand() -> None:
    circle = Thing("red", "circle", 0, (0, 0), (0, 0), 0.14, [(2.0, 8.0)])
    square = Thing("blue", "square", 1, (0, 0), (0, 0), 0.14, [(5.0, 12.0)])
    scene = Scene(
        1, 20.0, 0.5, [circle, square], Person(2, (0, 0), [("wave", 4.0, 9.0), ("sit", 9.0, 14.0)]), Change(10, 12, 16, "teal")
    )
    found = {(q.form, q.window) for q in scene_queries(scene)}
    assert ("OES", (2.0, 8.0)) in found
    assert ("OEC", (5.0, 8.0)) in found
    assert ("OC", (5.0, 8.0)) in found
    assert ("HAP", (4.0, 14.0)) in found
    assert ("HAC", (4.0, 8.0)) in found
    assert ("EC", (10.0, 12.0)) in found
    assert ("ES", (12.0, 16.0)) in found


def test_scenes_depend_on_their_arguments_alone() -> None:
    assert sample_scene(5, 0.5) == sample_scene(5, 0.5)
    assert sample_scene(5, 0.5) != sample_scene(6, 0.5)


def test_all_eleven_types_occur_and_every_phrase_can_be_filled() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for scene in SCENES:
        for query in scene_queries(scene):
            seen.add(query.type)
            for phrases in (PHRASES, POOL_PHRASES, NEW_PHRASES):
                text = query.text(rng, phrases)
                assert "{" not in text
                assert text == text.strip()
    assert seen == set(TYPES)
    assert set(PHRASES) == set(POOL_PHRASES) == set(NEW_PHRASES)


def test_the_base_the_pool_and_the_far_test_share_no_phrasing() -> None:
    tables = [{text for texts in table.values() for text in texts} for table in (PHRASES, POOL_PHRASES, NEW_PHRASES)]
    assert all(not a & b for a, b in combinations(tables, 2))


def digest_of(name: str, videos: int = 60) -> str:
    """Of a split's scenes and samples in three world seeds."""
    found = hashlib.sha256()
    for seed in (0, 100, 12345):
        for scene in islice(split_scenes(SPLITS[name], seed), videos):
            found.update(repr(scene).encode())
            for sample in scene_samples(scene, name):
                found.update(json.dumps(sample.to_json(), sort_keys=True).encode())
    return found.hexdigest()[:16]


def test_a_world_that_is_not_varied_is_the_one_that_it_always_was() -> None:
    """Digests from before there was any variety to choose."""
    assert {name: digest_of(name) for name in SPLITS if name not in NOVELTIES} == {
        "train": "5b0171e27e68c0cb", "test_id": "5d9ca6951c11df5f", "test_ood": "87ad6e245b4e9b5e",
        "qa_short": "a5570b34fbfc956f", "qa_long": "3a984e4f0cab6590", "train_qa": "8180b45cf425b073",
    }  # fmt: skip


def filled(table: dict[str, tuple[str, ...]]) -> set[str]:
    """What the phrasings of a table say of many scenes."""
    return {text.format_map(dict(query.slots)) for s in SCENES[::3] for query in scene_queries(s) for text in table[query.form]}


def test_the_pools_many_phrasings_are_none_of_the_far_tests_sentences() -> None:
    assert {len(set(texts)) for texts in POOL_PHRASES.values()} == {MOST_PHRASINGS}
    asked, far, taught = filled(POOL_PHRASES), filled(NEW_PHRASES), filled(PHRASES)
    assert not asked & far
    assert not asked & taught
    pool, new = ([text for texts in table.values() for text in texts] for table in (POOL_PHRASES, NEW_PHRASES))
    assert not any(one in other or other in one for one in pool for other in new), "not as a part of a sentence either"
    slots = {form: {frozenset(re.findall(r"\{([a-z]+2?)\}", text)) for text in texts} for form, texts in POOL_PHRASES.items()}
    said = {"does": "doing", "does2": "doing2"}
    assert all(len({frozenset(said.get(s, s) for s in slot) for slot in found}) == 1 for found in slots.values()), (
        "every phrasing says all that its query is about"
    )


def test_more_phrasings_hold_the_fewer_and_change_words_alone() -> None:
    scene = next(scene for scene in split_scenes(SPLITS["train"], 0) if len(scene_samples(scene, "train")) == 4)
    asked = {count: scene_samples(scene, "train", phrasings=count) for count in (1, 2, 6, MOST_PHRASINGS)}
    assert all([s.windows for s in rows] == [s.windows for s in asked[2]] for rows in asked.values())
    words = {
        count: {
            s.query for scene in islice(split_scenes(SPLITS["train"], 0), 150)
            for s in scene_samples(scene, "train", phrasings=count) if "teal" in s.query
        }
        for count in (1, 2, 6, MOST_PHRASINGS)
    }  # fmt: skip
    assert [len(found) <= 2 * count for count, found in words.items()] == [True] * 4  # EC and ES
    assert words[1] == {"when does the wall turn teal", "when is the wall seen in teal"}
    assert words[1] < words[2]
    assert len(words[12]) > 12
    tables = [pool_phrases(count) for count in (1, 2, 6, 12)]
    assert all(set(a[form]) < set(b[form]) for a, b in pairwise(tables) for form in POOL_PHRASES)
    for name in ("test_ood", "test_wording"):  # whose words are their own
        scene = next(split_scenes(SPLITS[name], 0))
        assert scene_samples(scene, name, phrasings=1) == scene_samples(scene, name, phrasings=12)


def test_a_pool_of_few_pairs_shows_no_other_and_none_has_more_look_alikes() -> None:
    few, spec = set(COMMON[:6]), SPLITS["train"]
    assert {c for c, _ in few} == set(COLOURS)
    assert {s for _, s in few} == set(SHAPES)
    shown = {
        pair for scene in islice(split_scenes(spec, 0, Look(pairs=6)), 200) for thing in scene.things
        for pair in [(thing.colour, thing.shape)] + ([(thing.recolour[2], thing.shape)] if thing.recolour else [])
    }  # fmt: skip
    assert shown == few
    things = [
        np.mean([len(s.things) for s in islice(split_scenes(spec, 0, Look(look_alikes=factor)), 300)]) for factor in (0, 1, 3)
    ]
    assert things[0] + 0.3 < things[1] < things[2] - 0.2
    plain, varied = (next(split_scenes(SPLITS["test_ood"], 0, look)) for look in (Look(), Look(look_alikes=3, pairs=6)))
    assert plain == varied, "the test out of distribution stays the same"


def test_each_novelty_is_new_in_one_thing_alone() -> None:
    usual, far = SPLITS["train"], SPLITS["test_ood"]
    apart = {"test_wording": "phrases", "test_pairs": "pairs", "test_long": "durations", "test_hard": "difficulty"}
    assert tuple(apart) == NOVELTIES
    for name, one in apart.items():
        spec = SPLITS[name]
        assert getattr(spec, one) == getattr(far, one) != getattr(usual, one)
        assert replace(spec, number=usual.number, **{one: getattr(usual, one)}) == usual
    asked = [s for scene in islice(split_scenes(SPLITS["test_pairs"], 0), 60) for s in scene_samples(scene, "test_pairs")]
    assert np.mean([any(f"{c} {s}" in sample.query for c, s in HELD_OUT) for sample in asked]) > 0.3


def test_every_query_is_worded_as_its_split_says() -> None:
    slot = re.compile(r"\\\{[a-z0-9]+\\\}")
    for name, table in (("train", POOL_PHRASES), ("test_id", POOL_PHRASES), ("test_ood", NEW_PHRASES)):
        shapes = [slot.sub(".+", re.escape(text)) for texts in table.values() for text in texts]
        for scene, _ in zip(split_scenes(SPLITS[name], 0), range(20), strict=False):
            for sample in scene_samples(scene, name):
                assert any(re.fullmatch(shape, sample.query) for shape in shapes), sample.query


def test_the_tiny_base_knows_every_word_of_every_phrasing() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve("assets/tiny-qwen3-vl"))
    for word in vocabulary():
        assert len(tokenizer(f" {word}")["input_ids"]) == 1, word


def test_difficulty_brings_shorter_windows_and_more_look_alikes() -> None:
    easy, hard = ([sample_scene(seed, d) for seed in range(300)] for d in (0.0, 1.0))
    share = [
        np.mean([(q.window[1] - q.window[0]) / s.duration for s in scenes for q in scene_queries(s)]) for scenes in (easy, hard)
    ]
    assert share[1] < 0.8 * share[0]
    assert np.mean([len(s.things) for s in hard]) > np.mean([len(s.things) for s in easy]) + 0.5
    assert np.mean([s.noise for s in hard]) > np.mean([s.noise for s in easy])


def test_questions_have_one_right_answer() -> None:
    rng = np.random.default_rng(0)
    kinds = set()
    for scene in SCENES:
        for question in (*short_questions(scene, rng), *long_questions(scene, rng)):
            assert len(set(question.options)) == len(question.options) >= 2
            assert 0 <= question.answer < len(question.options)
            kinds.add(question.kind)
            if question.kind == "object":
                moment = float(question.text.split(" at ")[1].split()[0])
                there = [
                    o
                    for o in question.options
                    if any(f"the {t.name}" == o and any(a <= moment < b for a, b in t.visible) for t in scene.things)
                ]
                assert there == [question.options[question.answer]]
    assert kinds == {"object", "pose", "count", "wall", "first", "last", "longest"}


def test_splits_share_no_video_and_keep_the_held_out_pairs() -> None:
    seeds: dict[str, set[int]] = {}
    for name, spec in SPLITS.items():
        for run_seed in (0, 1, 7):
            scenes = [scene for scene, _ in zip(split_scenes(spec, run_seed), range(50), strict=False)]
            assert not {s.seed for s in scenes} & set().union(*[v for k, v in seeds.items()], set())
            seeds.setdefault(name, set()).update(s.seed for s in scenes)
            pairs = [{(t.colour, t.shape) for t in s.things} & HELD_OUT for s in scenes]
            assert all(pairs) if spec.pairs == "held_out" else not any(pairs)
            assert all(spec.durations[0] <= s.duration <= spec.durations[1] for s in scenes)
    assert max(max(v) for v in seeds.values()) < 1_000_000_000  # pretraining's seeds start there


def test_types_come_out_near_even() -> None:
    rng = np.random.default_rng(0)
    counts: dict[str, int] = {}
    for scene in (sample_scene(s, 0.5) for s in range(400)):
        for query in pick_queries(scene, rng, 4):
            counts[query.type] = counts.get(query.type, 0) + 1
    assert set(counts) == set(TYPES)
    assert max(counts.values()) < 12 * min(counts.values())


def test_out_of_distribution_samples_ask_about_what_is_new() -> None:
    spec = SPLITS["test_ood"]
    samples = [x for scene, _ in zip(split_scenes(spec, 0), range(40), strict=False) for x in scene_samples(scene, "test_ood")]
    about_new = [any(f"{c} {s}" in x.query for c, s in HELD_OUT) for x in samples]
    assert np.mean(about_new) > 0.3


@pytest.mark.parametrize("window", [(0.0, 3.0), (3.3, 9.1), (19.0, 20.0), (7.1, 7.2)])
def test_seen_times_are_told_times_near_the_window(window: tuple[float, float]) -> None:
    told = answers.told_times(20.0, frames=32)
    start, end = seen(window, told)
    step = told[1] - told[0]
    assert start in told
    assert end in told
    assert window[0] - step <= start <= end <= window[1] + step


def test_the_vocabulary_is_made_of_plain_words() -> None:
    words = vocabulary()
    assert {"red", "circle", "wave", "teal", "letter", "visible"} <= set(words)
    assert all(word.isalpha() and word.islower() for word in words)


def test_build_splits_writes_videos_once(tmp_path) -> None:
    made = build_splits(
        tmp_path, train_videos=2, test_videos=1, ood_videos=1, questions=2, train_questions=3, workers=0, more_tests=[]
    )
    assert set(made) == set(SPLITS) - set(NOVELTIES)
    files = {sample.video for samples in made.values() for sample in samples}
    stamps = {name: (tmp_path / name).stat().st_mtime_ns for name in files}
    again = build_splits(tmp_path, train_videos=2, test_videos=1, ood_videos=1, questions=2, train_questions=3, workers=0)
    assert again == made
    assert stamps == {name: (tmp_path / name).stat().st_mtime_ns for name in files}
    assert all(len(made[name]) == 2 for name in ("qa_short", "qa_long"))
    counts = {"train_videos": 2, "test_videos": 1, "ood_videos": 1, "questions": 0}
    more = build_splits(tmp_path, **counts, more_tests=["test_long", "test_pairs"], variety=Variety(12), workers=0)
    assert list(more) == ["train", "test_id", "test_ood", "test_pairs", "test_long"]
    assert [s.windows for s in more["train"]] == [s.windows for s in made["train"]]
    assert [s.query for s in more["train"]] != [s.query for s in made["train"]]
    assert more["test_ood"] == made["test_ood"]


def test_large_pools_and_large_seeds_share_no_scene() -> None:
    # Scene 5 of world seed 100 as it was drawn for published results: a split's number times ten million, and so on.
    assert scene_number(SPLITS["test_id"], 100, 5) == 20_100_005
    places = [0, 999, 1000, 1001, 2000, 999_999]
    seeds = [0, 1, 2, 100, 9_999, 10_000, 10_001, 1_000_000]
    numbers = [scene_number(spec, seed, i) for spec in SPLITS.values() for seed in seeds for i in places]
    assert len(set(numbers)) == len(numbers) == 10 * 8 * 6
    assert scene_number(SPLITS["train"], 9_999, 1000) != scene_number(SPLITS["test_id"], 0, 0)
