"""The published annotation files themselves: how many rows, and values looked up by hand. Skipped where they are not at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from timer1lib.data.readers import read_annotations
from timer1lib.schema import Sample

ANNOTATIONS = Path(__file__).resolve().parents[2] / "shared" / "data" / "annotations"

pytestmark = pytest.mark.skipif(
    not ANNOTATIONS.is_dir(), reason="the published annotation files (../shared/data) are not on this machine"
)

FILES = {
    "tvgbench.json": ("tvgbench", 800),
    "timerft_train_2k5.json": ("timerft", 2500),
    "charades_sta_test.json": ("captions", 3720),
    "activitynet_captions_val2.json": ("captions", 17031),
    "qvhighlights_val.jsonl": ("qvhighlights", 1550),
    "tacos_test_lighthouse.jsonl": ("lighthouse", 4001),
    "rextime_val.json": ("rextime", 921),
    "nextgqa_val.json": ("nextgqa", 3358),
}


@pytest.mark.parametrize("name", FILES)
def test_every_row_is_read_and_the_format_recognised(name: str) -> None:
    expected, rows = FILES[name]
    result = read_annotations(ANNOTATIONS / name)
    assert result.format == expected
    assert result.rows_in == len(result.samples) == rows
    assert len({sample.id for sample in result.samples}) == rows
    for sample in result.samples:
        assert sample.windows
        assert sample.duration
        assert Sample.from_json(json.loads(json.dumps(sample.to_json(), allow_nan=False))) == sample
        if sample.options is not None:
            assert sample.answer is not None


def test_values_that_were_looked_up_by_hand() -> None:
    tvg = read_annotations(ANNOTATIONS / "tvgbench.json").samples
    (chair,) = [s for s in tvg if s.video.endswith("/OHOFG.mp4")]
    assert (chair.query, chair.windows, chair.duration) == ("person sitting down in a chair.", [(1.0, 7.5)], 35.04)
    assert sum(s.video_start is not None for s in tvg) == 252
    rex = read_annotations(ANNOTATIONS / "rextime_val.json").samples[0]
    assert (rex.id, rex.windows, rex.answer) == ("qvh_val241", [(0.0, 28.0)], 0)
    nex = read_annotations(ANNOTATIONS / "nextgqa_val.json").samples[0]
    assert (nex.options or [])[nex.answer or 0] == "unwrap it"
    qvh = read_annotations(ANNOTATIONS / "qvhighlights_val.jsonl").samples[0]
    assert (qvh.id, qvh.windows, len(qvh.extra["relevant_clip_ids"])) == ("2579", [(82.0, 150.0)], 34)
