"""Pixels and files: what the facts say can be seen, at the time they say, after H.264 as well."""

from __future__ import annotations

import av
import numpy as np
import pytest

from timer1lib.errors import Timer1Error
from timer1lib.files import read_jsonl
from timer1lib.schema import Sample
from timer1lib.world.lexicon import COLOURS, WALLS
from timer1lib.world.render import FPS, digit, render, write_video
from timer1lib.world.scene import Change, Scene, Thing, sample_scene
from timer1lib.world.splits import synth


def still(**changes: object) -> Scene:
    thing = Thing("red", "square", 0, (0, 0), (0, 0), 0.14, [(2.0, 5.0)])
    return Scene(1, 10.0, 0.0, **{"things": [thing], "grey": 50, **changes})  # type: ignore[arg-type]


def test_a_thing_is_where_and_when_it_should_be() -> None:
    frames = render(still(), np.array([1.9, 2.0, 4.9, 5.0]), 56)
    assert frames.shape == (4, 56, 56, 3)
    middle = frames[:, 14, 14].astype(int)  # the first quarter's centre
    assert (middle[[0, 3]] == 50).all()
    assert (abs(middle[[1, 2]] - np.array(COLOURS["red"])) <= 1).all()
    assert (frames[:, 42, 42] == 50).all()  # and nowhere else


def test_light_and_wall_change_as_told() -> None:
    scene = still(things=[], wall=Change(2, 4, 8, "teal"), light=None)
    frames = render(scene, np.array([1.0, 3.0, 5.0, 8.0]), 56).astype(int)
    teal = np.array(WALLS["teal"])
    assert (frames[0] == 50).all()
    assert (abs(frames[1, 0, 5] - teal) <= 1).all()  # half way: left side done
    assert (frames[1, 0, 50] == 50).all()
    assert (abs(frames[2] - teal) <= 1).all()
    assert (frames[3] == 50).all()
    dark = render(still(things=[], light=Change(2, 4, 8, "dark")), np.array([1.0, 5.0]), 56).astype(int)
    assert dark[1].mean() == pytest.approx(0.3 * dark[0].mean(), abs=1)


def test_a_recoloured_thing_is_half_and_half_half_way() -> None:
    thing = Thing("red", "square", 0, (0, 0), (0, 0), 0.14, [(0.0, 10.0)], recolour=(2.0, 6.0, "blue"))
    before, half, after = render(still(things=[thing]), np.array([1.0, 4.0, 7.0]), 56).astype(int)
    red, blue = np.array(COLOURS["red"]), np.array(COLOURS["blue"])
    assert abs(before[14, 11] - red).max() <= 1
    assert abs(half[14, 10] - blue).max() <= 1
    assert abs(half[14, 18] - red).max() <= 1
    assert abs(after[14, 18] - blue).max() <= 1


def test_a_frame_does_not_depend_on_its_company() -> None:
    scene = sample_scene(11, 1.0)
    times = np.linspace(0, scene.duration - 0.2, 9)
    together = render(scene, times, 56)
    alone = np.concatenate([render(scene, times[i : i + 1], 56) for i in range(9)])
    assert (together == alone).all()


def test_all_poses_differ_from_standing() -> None:
    from timer1lib.world.scene import Person

    pictures = {}
    for pose in ("stand", "wave", "jump", "kick", "sit", "lie"):
        acts = [] if pose == "stand" else [(pose, 0.0, 10.0)]
        pictures[pose] = render(still(things=[], person=Person(0, (0, 0), acts)), np.array([1.0]), 56)[0].astype(int)
    for name, picture in pictures.items():
        for other, second in pictures.items():
            if name < other:
                assert (abs(picture - second).max(-1) > 60).sum() > 12, (name, other)


def read_clock(frame: np.ndarray, scale: int) -> int:
    """Read the burnt-in seconds by comparing with the digits' pictures."""
    grey = frame[..., 1].astype(float) / 255
    top = frame.shape[0] - 7 * scale
    text = ""
    for i in range(3):
        left = (1 + 4 * i) * scale
        cell = grey[top + scale : top + 6 * scale, left : left + 3 * scale]
        small = cell.reshape(5, scale, 3, scale).mean((1, 3))
        text += str(min(range(10), key=lambda d: abs(small - digit(d)).sum()))
    return int(text)


def test_the_burnt_in_clock_survives_the_file_and_shows_each_frames_own_second(tmp_path) -> None:
    scene = sample_scene(3, 0.3, durations=(12.0, 12.0))
    path = tmp_path / "clock.mp4"
    write_video(scene, path, burn_clock=True)
    with av.open(str(path)) as container:
        shown = [(float(f.pts * f.time_base), read_clock(f.to_ndarray(format="rgb24"), 2)) for f in container.decode(video=0)]
    assert len(shown) == round(scene.duration * FPS)
    assert all(int(t + 1e-6) == second for t, second in shown)


def test_the_frame_that_the_model_gets_for_second_t_shows_t(tmp_path) -> None:
    from timer1lib.clock.frames import Sampling
    from timer1lib.video.decode import read_frames

    scene = sample_scene(4, 0.3, durations=(20.0, 20.0))
    path = tmp_path / "clock.mp4"
    write_video(scene, path, side=112, burn_clock=True)
    for sampling in (
        Sampling("frames", frames=16, min_frame_pixels=112 * 112, factor=56),
        Sampling("fps", fps=1.0, min_frame_pixels=112 * 112, factor=56),
    ):
        frames = read_frames(path, sampling)
        shown = [read_clock(frame, 2) for frame in frames.pixels]
        assert shown == [int(t + 1e-6) for t in frames.times_s]


def test_synth_writes_a_data_set(tmp_path) -> None:
    made = synth(tmp_path / "set", 2, seed=3, workers=0)
    rows = list(read_jsonl(made["annotations"]))
    samples = [Sample.from_json(row) for row in rows]
    assert made["videos"] == 2 == len({s.video for s in samples})
    for sample in samples:
        with av.open(str(tmp_path / "set" / sample.video)) as container:
            assert container.duration / 1e6 == pytest.approx(sample.duration, abs=0.2)
    again = synth(tmp_path / "other", 2, seed=3, workers=0)
    assert [r["query"] for r in rows] == [r["query"] for r in read_jsonl(again["annotations"])]


@pytest.mark.parametrize(
    "wrong", [{"videos": 0}, {"videos": 1, "difficulty": 1.5}, {"videos": 1, "shortest": 9.0, "longest": 3.0}]
)
def test_synth_names_a_wrong_number(tmp_path, wrong: dict[str, float]) -> None:
    with pytest.raises(Timer1Error):
        synth(tmp_path, **wrong)  # type: ignore[arg-type]
