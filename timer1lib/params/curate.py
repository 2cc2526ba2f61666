"""Parameters of the notebook curate."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from timer1lib.params.base import Section

KeepDrop = Literal["keep", "drop"]
KeepClipDrop = Literal["keep", "clip", "drop"]


class CurateParams(Section):
    source: Literal["world", "files"] = Field("world", description="the embedded world, or annotation files")
    world_seed: int = Field(
        0, ge=0, description="world: another seed gives other videos; apart from the run's seed, so that runs share them"
    )
    train_videos: int = Field(600, ge=1, description="world: videos of the training pool")
    test_videos: int = Field(100, ge=1, description="world: videos of the test in distribution")
    ood_videos: int = Field(100, ge=0, description="world: videos of the test out of distribution")
    questions: int = Field(60, ge=0, description="world: questions in each of qa_short and qa_long; 0 leaves them out")
    train_questions: int = Field(0, ge=0, description="world: questions in train_qa, to train on with difficulty.pool")
    queries_a_video: int = Field(4, ge=1, le=20, description="world: at most this many queries a video")
    train_files: str = Field("", description="files: annotation files of the training pool, comma-separated")
    test_files: str = Field("", description="files: test sets, comma-separated; a name and an equals sign may come before each")
    videos: str = Field("", description="files: folder that holds all videos")
    format: str = Field("auto", description="files: a reader's name; auto recognises it from each file's content")
    hub_train: str = Field("", description="files: a hub data set as id:split, read instead of train_files")
    hub_test: str = Field("", description="files: hub data sets as id:split, comma-separated, besides test_files")
    check_videos: bool = Field(True, description="open every video file: missing, undecodable, other duration, same content")
    repair_test: bool = Field(False, description="treat test sets too; else their rows stay as published")
    use_notes: bool = Field(True, description="read the run's notes.jsonl (left in 06_inspect) back as repairs")
    notes_file: str = Field("", description="notes.jsonl of an earlier run to read as well")

    on_past_end: KeepClipDrop = Field("clip", description="windows that end after the video")
    on_reversed: Literal["keep", "swap", "drop"] = Field("swap", description="windows that end before they start")
    on_empty_window: KeepDrop = Field("drop", description="windows without length")
    on_negative: KeepClipDrop = Field("clip", description="windows that start before the video")
    on_bad_duration: KeepDrop = Field("drop", description="durations of zero or less")
    on_bad_clip: KeepDrop = Field("drop", description="clips that disagree with the duration")
    on_short_window: KeepDrop = Field("keep", description="windows shorter than short_window")
    on_whole_video: KeepDrop = Field("keep", description="windows that cover whole_share of the video")
    on_bad_query: KeepDrop = Field("drop", description="empty queries and such without a word")
    on_audio_query: KeepDrop = Field("keep", description="queries about what can only be heard")
    on_bad_answer: KeepDrop = Field("drop", description="answers that are none of the options")
    on_missing_field: KeepDrop = Field("keep", description="rows that lack a field their format has")
    on_text_number: KeepDrop = Field("keep", description="numbers written as text; keep reads them")
    on_duplicate: KeepDrop = Field("drop", description="the same query and window again")
    on_conflicting_windows: KeepDrop = Field("keep", description="one query with different windows")
    on_near_duplicate: KeepDrop = Field("keep", description="nearly the same query and window")
    on_duplicate_id: Literal["clip", "drop"] = Field("clip", description="an id that stands twice; clip gives a new one")
    on_leakage: KeepDrop = Field("drop", description="videos in training and test; drop takes them out of training")
    on_shared_source: KeepDrop = Field("keep", description="clips of one source video in training and test")
    on_missing_video: KeepDrop = Field("drop", description="rows whose video file is not there")
    on_undecodable: KeepDrop = Field("drop", description="rows whose video file cannot be decoded")
    on_duration_mismatch: KeepClipDrop = Field("clip", description="durations that are not the file's; clip takes the file's")
    on_wrong_label: KeepClipDrop = Field("drop", description="noted as wrong; a note's own window is taken unless kept")
    on_ambiguous: KeepDrop = Field("drop", description="noted as ambiguous")

    end_tolerance: float = Field(0.001, ge=0, le=10, description="seconds that a window may pass the end")
    short_window: float = Field(0.5, ge=0, description="windows below this many seconds are short")
    whole_share: float = Field(0.95, gt=0, le=1, description="share of the video from which a window counts as all of it")
    duration_tolerance: float = Field(0.5, ge=0, description="seconds that a duration may differ from the file's (or 1 %)")
    blind_limit: float = Field(25.0, ge=0, le=100, description="percent R1@0.5 above which blind answers raise the warning")

    cold_start: Literal["template", "annotations", "none"] = Field("template", description="where SFT's completions come from")
    cold_start_n: int = Field(0, ge=0, description="template: samples, drawn at random; 0 takes the whole training pool")
    cold_start_template: str = Field("brief", description="template: a name in timer1lib/data/coldstart.py or a file")
    cold_start_times: Literal["told", "exact"] = Field(
        "told", description="template: times the model was told, or the window's own"
    )
    cold_start_decimals: int = Field(1, ge=0, le=4, description="template: digits after the point")
    cold_start_file: str = Field("", description="annotations: JSONL of {id, completion} from a stronger model")
    cold_start_min_iou: float = Field(0.5, ge=0, le=1, description="annotations: IoU their answer must reach")
    cold_start_form: bool = Field(True, description="annotations: keep only those in the parser's form")
    cold_start_min_chars: int = Field(20, ge=0, description="annotations: shortest completion")
    cold_start_max_chars: int = Field(4000, ge=1, description="annotations: longest completion")
    check_clock: bool = Field(True, description="compare the time that the model is told with every sampled frame's own")
