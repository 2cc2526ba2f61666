"""Every parameter there is: what the notebooks share, one section a notebook, and the whole params file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from timer1lib import forms
from timer1lib.errors import Timer1Error, shown
from timer1lib.params import Section, parse_bands, parse_shard, split_list
from timer1lib.params.trainer import (
    REPORTERS,
    Weights,
    check_optimizer,
    check_weights,
    optimizer_arguments,
    parse_trl,
    weights_dtype,
)
from timer1lib.rewards import REWARDS, parse_rewards
from timer1lib.rules import SELECTION_RULES, check_rule, own_keep, parse_checks

LARGEST_SEED = 2**32 - 1
"""What numpy and torch take alike."""


def _read_by(read: Callable[[str], object]) -> AfterValidator:
    """Text that `read` must be able to read, when the parameters are loaded."""

    def checked(text: str) -> str:
        try:
            read(text)
        except Timer1Error as error:
            raise ValueError(str(error)) from error
        return text

    return AfterValidator(checked)


def _read(read: Callable[[], object]) -> None:
    """A Timer1Error of reading as the ValueError that pydantic reports."""
    try:
        read()
    except Timer1Error as error:
        raise ValueError(str(error)) from error


def _names(*known: str, needed: bool = True) -> AfterValidator:
    """A comma-separated list of known names."""

    def read(text: str) -> None:
        names = split_list(text)
        unknown = [name for name in names if name not in known]
        if unknown or (needed and not names):
            wrong = f"{shown(unknown[0])} is none of" if unknown else "name at least one of"
            raise Timer1Error(f"{wrong} {', '.join(known)}")

    return _read_by(read)


def _not_empty(text: str) -> None:
    if not text.strip() or "\0" in text:
        raise Timer1Error(f"must name something (given {shown(text)})")


def _hub_sets(text: str) -> None:
    for entry in split_list(text):
        if not all(entry.rpartition(":")):
            raise Timer1Error(f"hub data set {shown(entry)}: write it as id:split")


def _known_parallel(text: str) -> None:
    if text not in ("ddp", "fsdp2") and not text.endswith((".yaml", ".yml", ".json")):
        raise Timer1Error(f"{shown(text)} is none of ddp, fsdp2, and no accelerate config file (.yaml, .json)")


Named = Annotated[str, _read_by(_not_empty)]
HubSets = Annotated[str, _read_by(_hub_sets)]
# What SFT and GRPO train alike.
TrainedWeights = Annotated[
    Weights,
    Field(
        description="type of the trained weights: auto (float32 under shared.dtype; under LoRA shared.dtype) or a type; "
        "8bit and 4bit quantise the base under LoRA"
    ),
]
Optimizer = Annotated[str, _read_by(check_optimizer), Field(description="optimizer, as transformers names it")]
OptimizerArguments = Annotated[
    str,
    _read_by(optimizer_arguments),
    Field(description="arguments of that optimizer, as trl's are written (torchao's has bf16_stochastic_round)"),
]
LoraRank = Annotated[int, Field(ge=0, le=512, description="rank of LoRA adapters on the text model; 0 trains the weights")]
FreezeVision = Annotated[bool, Field(description="keep the vision tower (not its merger) as it is")]
FreezeEarly = Annotated[
    bool,
    Field(description="with freeze_vision: keep the mergers of earlier layers (Qwen3-VL's deepstack) too, as TimeLens does"),
]
GradientCheckpointing = Annotated[bool, Field(description="recompute activations in the backward pass to save memory")]
KeepDrop = Literal["keep", "drop"]
KeepClipDrop = Literal["keep", "clip", "drop"]


class SharedParams(Section):
    """What several notebooks share: seed, model, what the model sees and how it is asked."""

    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="seed of every random choice of the run")
    model: Named = Field("assets/tiny-qwen3-vl", description="base model: a folder or a hub id (Qwen2.5-VL or Qwen3-VL)")
    revision: str = Field("", description="commit, tag or branch of a hub id; empty: its main branch")
    form: Annotated[str, _read_by(forms.load)] = Field(
        "brief",
        description=f"how answers are asked, written and read: {', '.join(forms.FORMS)}, or a file (.yaml, .txt, mine.py:name)",
    )
    sampling: Literal["fps", "frames", "published"] = Field(
        "frames", description="by rate (fps), a fixed number of frames, or by rate with the counts and times of Qwen's pipeline"
    )
    fps: float = Field(2.0, gt=0, le=60, description="frames a second where sampling is fps or published")
    frames: int = Field(32, ge=2, le=4096, description="frames a video where sampling is frames; the cap where it is not")
    min_frame_pixels: int = Field(56 * 56, ge=1, description="pixels a frame has at least")
    total_pixels: int = Field(
        16 * 56 * 56, ge=1, description="pixels a video has at most, the two frames of a temporal patch counting once"
    )
    clock_rule: Literal["auto", "published", "installed", "wrong_text"] = Field(
        "auto",
        description="positions: published rule, the library's, or published where they differ; wrong_text is for the experiment",
    )
    timestamps: Literal["auto", "text", "positions"] = Field(
        "auto",
        description="how times are told: text before each frame pair, or temporal positions (Qwen2.5-VL alone); "
        "auto is what the model's config.json or its family says",
    )
    time_scale: float = Field(1.0, gt=0, le=10, description="factor on the times told; 1.0 but in the wrong-clock experiment")
    dtype: Literal["float32", "bfloat16", "float64"] = Field(
        "float32", description="number type of computation, and of weights that only answer"
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field("sdpa", description="attention of the text model")
    asking: Literal["shared_prefix", "repeated"] = Field(
        "shared_prefix",
        description="answers: a video's questions at once (shared_prefix; not with eager attention) or each by generate",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where models run; auto takes a GPU where there is one")
    threads: int = Field(1, ge=0, le=256, description="CPU threads of torch; the tiny model wants one; 0 leaves it to torch")
    cache_dir: Named = Field("outputs/.cache", description="decoded frames and vision features, shared by all runs")
    cache_gb: float = Field(4.0, gt=0, description="largest size of all of that cache in GB; the oldest entries go first")
    report_to: Annotated[str, _names(*REPORTERS, needed=False)] = Field(
        "", description="trackers that 02 and 04 tell their log, comma-separated (tensorboard, wandb, ...); empty tells nobody"
    )
    workers: int = Field(2, ge=0, le=64, description="processes that decode videos ahead of the model; 0 decodes in place")
    processes: int = Field(
        0, ge=0, le=1024, description="ranks that train and ask models together; 0: every GPU, or every core for a small model"
    )
    parallel: Annotated[str, _read_by(_known_parallel)] = Field(
        "ddp", description="ddp (whole weights on each rank), fsdp2 (sharded), or an accelerate config file (DeepSpeed)"
    )


class CurateParams(Section):
    """01_curate: where samples come from, which flaws are repaired how, and what SFT imitates."""

    source: Literal["world", "files"] = Field("world", description="the embedded world, or annotation files")
    world_seed: int = Field(
        0, ge=0, le=LARGEST_SEED, description="world: another seed, other videos; runs of any seed share them"
    )
    train_videos: int = Field(600, ge=1, description="world: videos of the training pool")
    test_videos: int = Field(100, ge=1, description="world: videos of the test in distribution")
    ood_videos: int = Field(100, ge=0, description="world: videos of the test out of distribution, and of each of more_tests")
    more_tests: Annotated[str, _names("test_wording", "test_pairs", "test_long", "test_hard", needed=False)] = Field(
        "", description="world: tests with one novelty of test_ood each: test_wording, test_pairs, test_long, test_hard"
    )
    phrasings: int = Field(2, ge=1, le=12, description="world: phrasings of each form of query in pool and test_id")
    look_alikes: float = Field(1.0, ge=0, le=6, description="world: factor on the share of look-alikes in the pool and its tests")
    pairs: int = Field(
        18, ge=6, le=18, description="world: colour-shape pairs in the pool and its tests; six more are test_ood's"
    )
    questions: int = Field(60, ge=0, description="world: questions in each of qa_short and qa_long; 0 leaves them out")
    train_questions: int = Field(0, ge=0, description="world: questions in train_qa, to train on with difficulty.pool")
    seen_videos: int = Field(
        0,
        ge=0,
        description="videos of the training pool that 05 asks about too, as split seen, to tell learning from memory; 0: none",
    )
    queries_a_video: int = Field(4, ge=1, le=20, description="world: at most this many queries a video")
    train_files: str = Field(
        "", description="files: annotation files of the training pool, comma-separated; none in a run that only tests"
    )
    test_files: str = Field("", description="files: test sets, comma-separated; a name and an equals sign may come before each")
    split: float = Field(
        1.0, gt=0, le=1, description="files: share of the videos that train, drawn by seed; the others are the split test; 1: all"
    )
    videos: str = Field("", description="files: folder that holds all videos")
    format: str = Field("auto", description="files: a reader's name; auto recognises it from each file's content")
    hub_train: HubSets = Field("", description="files: a hub data set as id:split, read instead of train_files")
    hub_test: HubSets = Field("", description="files: hub data sets as id:split, comma-separated, besides test_files")
    check_videos: bool = Field(True, description="open every video file: missing, undecodable, other duration, same content")
    deep_check: bool = Field(True, description="files: decode every video whole, once, to find damage behind its first frame")
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
    on_no_duration: KeepDrop = Field("keep", description="rows without a duration; keep takes the video file's own")
    on_text_number: KeepDrop = Field("keep", description="numbers written as text; keep reads them")
    on_duplicate: KeepDrop = Field("drop", description="the same query and window again")
    on_conflicting_windows: KeepDrop = Field("keep", description="one query with different windows")
    on_near_duplicate: KeepDrop = Field("keep", description="nearly the same query and window")
    on_duplicate_id: Literal["clip", "drop"] = Field("clip", description="an id that stands twice; clip gives a new one")
    on_leakage: KeepDrop = Field("drop", description="videos in training and test; drop takes them out of training")
    on_shared_source: KeepDrop = Field("keep", description="clips of one source video in training and test")
    on_missing_video: KeepDrop = Field("drop", description="rows whose video file is not there")
    on_undecodable: KeepDrop = Field("drop", description="rows whose video file cannot be decoded")
    on_damaged: KeepDrop = Field("drop", description="rows whose video has missing or corrupt frames (deep_check)")
    on_duration_mismatch: KeepClipDrop = Field("clip", description="durations that are not the file's; clip takes the file's")
    on_wrong_label: KeepClipDrop = Field("drop", description="noted as wrong; a note's own window is taken unless kept")
    on_ambiguous: KeepDrop = Field("drop", description="noted as ambiguous")

    checks: Annotated[str, _read_by(parse_checks)] = Field(
        "", description="checks of one's own, comma-separated: ideas/my_check.py:name, with :drop behind to drop what it finds"
    )
    end_tolerance: float = Field(0.001, ge=0, le=10, description="seconds that a window may pass the end")
    short_window: float = Field(0.5, ge=0, description="windows below this many seconds are short")
    whole_share: float = Field(0.95, gt=0, le=1, description="share of the video from which a window counts as all of it")
    duration_tolerance: float = Field(0.5, ge=0, description="seconds that a duration may differ from the file's (or 1 %)")
    blind_limit: float = Field(25.0, ge=0, le=100, description="percent R1@0.5 above which blind answers raise the warning")

    cold_start: Literal["template", "annotations", "none"] = Field(
        "template", description="SFT's completions: written as shared.form says (template), or a stronger model's"
    )
    cold_start_n: int = Field(0, ge=0, description="template: samples, drawn at random; 0 takes the whole training pool")
    cold_start_times: Literal["told", "exact"] = Field("told", description="template: times the model is told, or the window's")
    cold_start_file: str = Field("", description="annotations: JSONL of {id, completion} from a stronger model")
    cold_start_min_iou: float = Field(0.5, ge=0, le=1, description="annotations: IoU their answer must reach")
    cold_start_form: bool = Field(True, description="annotations: keep only those that have shared.form's form")
    cold_start_min_chars: int = Field(20, ge=0, description="annotations: shortest completion")
    cold_start_max_chars: int = Field(4000, ge=1, description="annotations: longest completion")
    check_clock: bool = Field(True, description="compare the time that the model is told with every sampled frame's own")

    @property
    def tests_only(self) -> bool:
        """Whether there is nothing to train on, by choice."""
        return self.source == "files" and self.train_files.strip() == "none" and not self.hub_train

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.source == "files" and not (self.train_files.strip(" ,") or self.hub_train):
            raise ValueError("source=files needs curate.train_files (or curate.hub_train)")
        if self.tests_only and not (split_list(self.test_files) or self.hub_test):
            raise ValueError("train_files none: a run that only tests needs curate.test_files (or curate.hub_test)")
        if self.split < 1 and (self.source != "files" or self.tests_only):
            raise ValueError("split divides the videos of curate.train_files: it needs source=files and such files")
        if split_list(self.more_tests) and not self.ood_videos:
            raise ValueError("more_tests need curate.ood_videos above 0, the number of their videos")
        if self.cold_start == "annotations" and not self.cold_start_file:
            raise ValueError("cold_start=annotations needs curate.cold_start_file")
        if self.cold_start_min_chars > self.cold_start_max_chars:
            raise ValueError("cold_start_min_chars is above cold_start_max_chars")
        return self


class SftParams(Section):
    """02_sft: the cold start that teaches the answer's form."""

    enabled: bool = Field(True, description="False leaves the base as it is: RL then starts from the base")
    samples: int = Field(150, ge=0, description="cold-start samples to learn from; 0 takes all of data/cold_start.jsonl")
    steps: int = Field(30, ge=1, description="optimizer steps")
    batch_size: int = Field(16, ge=1, description="samples a step")
    micro_batch_size: int = Field(16, ge=1, description="samples a forward pass; smaller ones are accumulated to the batch size")
    learning_rate: float = Field(2.0e-4, gt=0, description="peak learning rate of AdamW")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="learning-rate schedule after the warm-up")
    warmup_share: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    weights: TrainedWeights = "auto"
    optim: Optimizer = "adamw_torch_fused"
    optim_args: OptimizerArguments = ""
    trl: str = Field("", description="further arguments of trl's SFTConfig, each a key and a value with an equals sign between")
    lora_rank: LoraRank = 0
    freeze_vision: FreezeVision = True
    freeze_early: FreezeEarly = False
    gradient_checkpointing: GradientCheckpointing = False
    save_every: int = Field(20, ge=1, description="steps between checkpoints, from which a killed run goes on")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_weights(self.weights, self.lora_rank, self.optim, self.optim_args, self.learning_rate)
        _read(lambda: parse_trl(self.trl, "sft", type(self).model_fields))
        return self


class DifficultyParams(Section):
    """03_difficulty: who judges the pool, and which of it RL trains on."""

    enabled: bool = Field(True, description="False asks and selects nothing; `timer1 run` gives False where GRPO is off")
    difficulty_model: Literal["start", "sft", "base", "published", "none"] = Field(
        "start",
        description="who judges: the model RL starts from (sft where 02 trained one, else base), checkpoints/sft, shared.model, "
        "the answers that TimeRFT's file brings, or nobody (none, with rule all)",
    )
    pool: str = Field("train", description="split that difficulty is measured on")
    max_new_tokens: int = Field(48, ge=1, le=4096, description="tokens of an answer at most")
    batch_size: int = Field(32, ge=1, le=1024, description="answers generated together")
    repetition_penalty: float = Field(
        1.0, gt=0, le=10, description="on tokens that were said already; 1 is none, whatever the folder says"
    )
    rollouts: int = Field(0, ge=0, le=64, description="sampled answers a sample for top_variance; 0 asks none")
    rollout_temperature: float = Field(1.0, gt=0, le=5, description="temperature of those answers")
    rollout_reward: Annotated[str, _read_by(parse_rewards)] = Field(
        "tiou, format", description="rewards added up, as in grpo.rewards"
    )
    rule: Annotated[str, _read_by(check_rule)] = Field(
        "all", description=f"selection rule: {', '.join(SELECTION_RULES)}, or a weight of one's own (ideas/pick.py:mine)"
    )
    n: int = Field(0, ge=0, description="samples to select, at most; 0 takes all that the rule allows")
    mean: float = Field(0.3, ge=-1, le=2, description="gaussian: IoU with the largest weight")
    std: float = Field(0.2, gt=0, le=10, description="gaussian: width in IoU")
    even: bool = Field(False, description="gaussian: as many of each video length, and of each IoU before the weights (TimeLens)")
    low: float = Field(0.0, ge=-1, lt=1, description="gaussian, uniform, band: only IoU above this")
    high: float = Field(0.7, gt=-1, le=1, description="band: only IoU up to this")
    bins: int = Field(10, ge=1, le=100, description="uniform: steps of IoU with equal shares")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.rule == "band" and self.low >= self.high:
            raise ValueError(f"rule band: low {self.low} must be below high {self.high}")
        if self.rollouts and self.difficulty_model in ("published", "none"):
            raise ValueError("rollouts need a model: set difficulty.difficulty_model to sft or base")
        if self.enabled and self.difficulty_model == "none" and self.rule != "all":
            raise ValueError(f"rule {self.rule} needs a difficulty: with difficulty_model none the rule is all")
        if self.enabled and self.rule == "top_variance" and self.rollouts < 2:
            raise ValueError("rule top_variance needs difficulty.rollouts of 2 or more")
        return self


class GrpoParams(Section):
    """04_grpo: reinforcement learning with verifiable rewards, and the TimeRFT schedule around it."""

    enabled: bool = Field(True, description="False leaves out reinforcement learning")
    rewards: Annotated[str, _read_by(parse_rewards)] = Field(
        "tiou:1.0, format:1.0",
        description=f"rewards and their weights: {', '.join(REWARDS)}, or one's own (ideas/edges.py:edge_iou:1.0)",
    )
    schedule: Literal["multi_epoch", "sample_filtering", "easy_to_hard", "hard_to_easy", "staged"] = Field(
        "sample_filtering", description="which samples each epoch trains on"
    )
    epochs: int = Field(2, ge=1, description="phases of the outer loop; sample filtering measures the difficulty anew after each")
    steps_per_epoch: int = Field(0, ge=0, description="optimizer steps of an epoch; 0 sees every sample of the epoch once")
    filter_low: float = Field(0.0, ge=0, le=1, description="sample filtering keeps IoU above this")
    filter_high: float = Field(0.7, ge=0, le=1, description="sample filtering keeps IoU up to this")
    keep: Annotated[str, _read_by(lambda text: text and own_keep(text))] = Field(
        "", description="sample filtering by a rule of one's own (ideas/keep.py:mine) in place of the two bounds"
    )
    filter_tokens: int = Field(
        0, ge=0, le=4096, description="sample filtering: tokens of an answer at most; 0: as many as a rollout's"
    )
    stage_bands: Annotated[str, _read_by(parse_bands)] = Field(
        "0.5:1, 0.25:0.75, 0:0.5", description="IoU bands (low:high) of the staged schedule, one an epoch, easiest first"
    )
    phase_policy: Literal["restart", "carry"] = Field(
        "restart",
        description="restart: fresh optimizer, schedule and reference each epoch (official script); carry: one training",
    )
    prompts_per_step: int = Field(8, ge=1, description="groups a step")
    groups_per_forward: int = Field(
        0,
        ge=0,
        description="groups scored in one forward pass, a divisor of prompts_per_step: fewer take less memory; 0 takes all",
    )
    num_generations: int = Field(8, ge=2, description="rollouts a group, G")
    max_completion_length: int = Field(48, ge=1, description="tokens of a rollout at most")
    temperature: float = Field(1.0, gt=0, description="sampling temperature of the rollouts")
    learning_rate: float = Field(1.5e-4, gt=0, description="peak learning rate of AdamW")
    lr_schedule: Literal["constant", "linear", "cosine"] = Field("linear", description="learning-rate schedule after the warm-up")
    warmup_steps: int = Field(5, ge=0, description="steps in which the learning rate rises")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    beta: float = Field(0.0, ge=0, description="weight of the KL divergence to the reference")
    epsilon: float = Field(0.2, gt=0, description="clipping range of the probability ratio, downwards and upwards")
    epsilon_high: float = Field(0.2, gt=0, description="clipping range upwards; above epsilon it is DAPO's clip-higher")
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"] = Field(
        "bnpo",
        description="loss of trl; bnpo is the released trainer's, GSPO is grpo with trl: importance_sampling_level=sequence",
    )
    num_iterations: int = Field(1, ge=1, le=64, description="times that the samples of a rollout are trained on")
    updates_per_rollout: int = Field(
        1,
        ge=1,
        le=256,
        description="optimizer steps that share one batch of rollouts, of prompts_per_step groups each (TVG-R1: 4)",
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        "group", description="what advantages are divided by: the standard deviation of the group, of the batch, or nothing"
    )
    entropy_coefficient: float = Field(0.0, ge=0, description="weight of an entropy bonus (TVG-R1 uses 1e-3)")
    dynamic_sampling: int = Field(0, ge=0, description="times that a group of equal rewards is drawn anew (DAPO)")
    weights: TrainedWeights = "auto"
    optim: Optimizer = "adamw_torch_fused"
    optim_args: OptimizerArguments = ""
    trl: str = Field("", description="further arguments of trl's GRPOConfig, each a key and a value with an equals sign between")
    lora_rank: LoraRank = 0
    freeze_vision: FreezeVision = True
    freeze_early: FreezeEarly = False
    gradient_checkpointing: GradientCheckpointing = False
    scoring: Literal["shared_prefix", "packed_mask", "repeated"] = Field(
        "shared_prefix", description="fast scoring of a group, or the plain repeated forward"
    )
    rollouts: Literal["shared_prefix", "repeated"] = Field("shared_prefix", description="fast rollouts, or plain generation")
    measure_batch: int = Field(0, ge=0, description="answers generated together between epochs; 0 follows free memory, up to 64")
    cache_features: Literal["auto"] | bool = Field(
        "auto", description="keep the frozen vision tower's outputs on disk: True, False, or auto, which does not on a GPU"
    )
    save_every: int = Field(20, ge=1, description="steps between checkpoints, from which a killed run goes on")
    log_rollouts_every: int = Field(5, ge=1, description="steps between rollouts kept for inspection")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_weights(self.weights, self.lora_rank, self.optim, self.optim_args, self.learning_rate)
        _read(lambda: parse_trl(self.trl, "grpo", type(self).model_fields))
        if self.loss_type == "cispo" and self.epsilon_high <= 1:
            raise ValueError(
                f"loss_type cispo bounds the ratio itself: epsilon_high {self.epsilon_high} must be above 1 (ScaleRL: 4 to 5)"
            )
        if self.groups_per_forward and self.prompts_per_step % self.groups_per_forward:
            raise ValueError(f"groups_per_forward {self.groups_per_forward} must divide prompts_per_step {self.prompts_per_step}")
        if self.phase_policy == "carry" and self.lora_rank:
            raise ValueError("phase_policy carry and lora_rank: adapters are merged after each epoch; use restart")
        if self.schedule == "sample_filtering" and self.filter_low >= self.filter_high:
            raise ValueError(f"filter_low {self.filter_low} must be below filter_high {self.filter_high}")
        return self


class EvaluateParams(Section):
    """05_evaluate: which checkpoints are asked what, and how the answers are scored."""

    checkpoints: Annotated[str, _names("base", "sft", "grpo")] = Field(
        "base, sft, grpo", description="checkpoints to evaluate, comma-separated; those that the run has not are left out"
    )
    splits: str = Field("", description="splits to evaluate, comma-separated; empty: all whose names do not start with train")
    comparison: Literal["reaches", "exceeds"] = Field(
        "reaches", description="R1@m counts an IoU that reaches m (most papers) or exceeds it (the script of Time-R1)"
    )
    max_new_tokens: int = Field(48, ge=1, description="tokens of an answer at most")
    batch_size: int = Field(64, ge=1, description="questions that are answered together")
    repetition_penalty: float = Field(
        1.0, gt=0, le=10, description="on tokens that were said already; 1 is none, whatever the folder says"
    )
    resamples: int = Field(2000, ge=100, le=100_000, description="bootstrap resamples of the intervals, drawn over videos")
    question_method: Literal["likelihood", "letter", "none"] = Field(
        "likelihood", description="multiple choice by the likelihood of each letter, by a generated letter, or not at all"
    )
    grounded_questions: bool = Field(False, description="also ask questions that have a window for window and letter together")
    grounded_tokens: int = Field(96, ge=1, description="tokens of a grounded answer at most")
    perturb: Annotated[str, _names("swap", "shuffle", needed=False)] = Field(
        "swap, shuffle", description="changed videos for the signature prior-following: swap, shuffle; empty asks none"
    )
    perturb_samples: int = Field(160, ge=0, description="samples of each grounding split to ask about changed videos; 0: none")
    shard: Annotated[str, _read_by(lambda text: text and parse_shard(text))] = Field(
        "", description="k/n answers only the k-th of n shares of every split; empty answers all and joins the shares"
    )


class InspectParams(Section):
    """06_inspect: what is looked at."""

    runs: str = Field("", description="other runs to look at beside this one, folders or names under outputs/, comma-separated")
    splits: str = Field("", description="splits to look at, comma-separated; empty: every grounding split that has predictions")
    checkpoints: str = Field("", description="checkpoints to look at, comma-separated; empty: every one that has predictions")
    compare_from: str = Field("base", description="checkpoint that IoU differences start from; the first where it is missing")
    compare_to: str = Field("grpo", description="checkpoint that IoU differences go to; the last where it is missing")
    reward: Annotated[str, _read_by(lambda text: text and parse_rewards(text))] = Field(
        "",
        description="shown as an edge is dragged, written as grpo.rewards is; empty: the first that the run was trained with",
    )
    rollout_groups: int = Field(5000, ge=1, le=100_000, description="groups of rollouts in the table at most, the last ones")
    video_mb: float = Field(12.0, gt=0.1, le=200, description="MB of a video in the browser at most; larger ones are re-encoded")
    static_samples: int = Field(6, ge=0, le=100, description="samples drawn without a kernel: the executed notebook and its HTML")


class CompareParams(Section):
    """07_compare: which runs stand side by side."""

    runs: str = Field(
        "", description="runs to compare, folders or names under outputs/, comma-separated; empty: the default one and the newest"
    )
    sweep: str = Field("", description="a sweep with a grid, its folder or name, whose map is drawn; empty: none")
    sweep_pairs: str = Field(
        "",
        description="the sweep's listed rows (or row/checkpoint) whose differences are drawn, each from:to, as in "
        "sft:rl, rl/base:rl; empty: those of its file",
    )
    checkpoint: str = Field("", description="checkpoint of every run that is compared; empty: the last that each has")
    comparison: Literal["reaches", "exceeds"] = Field(
        "reaches", description="R1@m counts an IoU that reaches m (most papers) or exceeds it (the script of Time-R1)"
    )
    resamples: int = Field(2000, ge=100, le=100_000, description="bootstrap resamples of the intervals, drawn over videos")
    benchmark: Literal[
        "all", "TVGBench", "Charades-STA", "ActivityNet", "Charades-TimeLens", "ActivityNet-TimeLens", "QVHighlights-TimeLens"
    ] = Field("all", description="published results shown")


def _seeds(text: str) -> None:
    numbers = split_list(text)
    if not numbers or len(set(numbers)) < len(numbers) or not all(n.isdecimal() and int(n) <= LARGEST_SEED for n in numbers):
        raise Timer1Error(f"seeds {shown(text)}: whole numbers, each once, such as 0, 1, 2")


class IdeaParams(Section):
    """08_idea: how an idea is tried beside a finished run. It is no stage of a run, and no section of a params file."""

    steps: int = Field(40, ge=1, description="optimizer steps of each short training")
    seeds: Annotated[str, _read_by(_seeds)] = Field("0", description="seeds that every variant is trained with, comma-separated")
    split: str = Field("test_id", description="grounding split that every variant is asked")
    samples: int = Field(200, ge=0, description="questions of that split, about, all of some videos; 0: every one")


class Params(Section):
    """`params/<name>.yaml`."""

    name: str = Field("tiny", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="the run is outputs/<name>")
    shared: SharedParams = SharedParams()
    curate: CurateParams = CurateParams()
    sft: SftParams = SftParams()
    difficulty: DifficultyParams = DifficultyParams()
    grpo: GrpoParams = GrpoParams()
    evaluate: EvaluateParams = EvaluateParams()
    inspect: InspectParams = InspectParams()
    compare: CompareParams = CompareParams()

    @model_validator(mode="after")
    def _trains_on_something(self) -> Self:
        if self.curate.tests_only and (self.sft.enabled or self.grpo.enabled):
            raise ValueError("curate.train_files none: a run that only tests needs sft.enabled=false and grpo.enabled=false")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        width = {"bfloat16": 2, "float32": 4, "float64": 8}
        for name, part in (("sft", self.sft), ("grpo", self.grpo)):
            kept = weights_dtype(part.weights, part.lora_rank, self.shared.dtype)
            if width[kept] < width[self.shared.dtype]:
                raise ValueError(f"{name}.weights {kept} is narrower than shared.dtype {self.shared.dtype}, in which it computes")
        return self


SECTIONS: dict[str, type[Section]] = {name: type(value) for name, value in Params() if name not in ("name", "shared")}
"""Section of each notebook, in the order in which they run: 01_curate, 02_sft, ..."""

NOTEBOOKS: tuple[str, ...] = tuple(f"{i:02d}_{name}" for i, name in enumerate(SECTIONS, 1))

BESIDE: dict[str, tuple[str, Section]] = {"idea": ("08_idea", IdeaParams())}
"""Notebooks that are no stage of a run: {section: (name, its parameters)}."""
