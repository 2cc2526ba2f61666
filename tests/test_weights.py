"""Trained weights move: every accepted pair of types and optimizer goes the float32 path's way, the refused one does not."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from grpo_runs import trainer  # noqa: E402

from timer1lib.errors import Timer1Error  # noqa: E402
from timer1lib.models.config import base_name, family_of_model, model_source  # noqa: E402
from timer1lib.models.load import load_model, local_folder  # noqa: E402
from timer1lib.params.load import load_params  # noqa: E402
from timer1lib.params.sections import GrpoParams, SftParams, SharedParams  # noqa: E402
from timer1lib.params.trainer import SLOWEST_BFLOAT16, check_weights, config_fields, optimizer_names, parse_trl  # noqa: E402
from timer1lib.training import common  # noqa: E402
from timer1lib.world.base.tiny import build_tiny  # noqa: E402

TINY = Path(__file__).resolve().parent.parent / "params" / "tiny.yaml"
RATE = 1e-6
"""The papers' learning rate."""


def needs(package: str) -> Any:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    """A random model whose matrices are as those of a real one: std 0.02, exact in bfloat16."""
    path = build_tiny(tmp_path_factory.mktemp("weights") / "m", hidden=64, layers=2, vision_hidden=32, vision_depth=1)
    loaded = load_model(path, device="cpu")
    torch.manual_seed(0)
    for parameter in loaded.model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.02)
        parameter.data = parameter.data.bfloat16().float()
    loaded.model.save_pretrained(path)
    return path


def moved(folder: Path, steps: int = 40, **options: Any) -> Any:
    """Where `steps` of GRPO's own optimizer end: its movement of every text weight, beside the start.

    Gradients are made here and the same for all: what differs is how weights take them.
    """
    params = GrpoParams.model_construct(
        **{**GrpoParams(learning_rate=RATE, gradient_checkpointing=False).model_dump(), **options}
    )
    shared = SharedParams(model=str(folder), dtype="bfloat16", device="cpu")
    loaded = common.load_trained(folder, params, shared)
    settings = common.trainer_settings(params, shared, loaded, folder / "work")
    args = {name: settings[name] for name in ("learning_rate", "weight_decay", "max_grad_norm", "optim", "optim_args", "bf16")}
    made, _ = trainer(folder, folder / "work", max_steps=steps, **args)
    made.model = made.model_wrapped = loaded.model
    optimizer = made.create_optimizer()
    text = {n: p for n, p in loaded.model.named_parameters() if p.requires_grad and p.ndim > 1 and "visual" not in n}
    start = {name: p.detach().float().clone() for name, p in text.items()}
    generator = torch.Generator().manual_seed(1)
    drift = {name: torch.randn(p.shape, generator=generator) for name, p in text.items()}
    for _ in range(steps):
        for name, p in text.items():
            p.grad = (drift[name] + 0.5 * torch.randn(p.shape, generator=generator)).to(p.dtype)
        optimizer.step()
        optimizer.zero_grad()
    small = [
        v
        for state in optimizer.state.values()
        for v in state.values()
        if hasattr(v, "__tensor_flatten__") or getattr(v, "dtype", None) == torch.uint8
    ]
    assert bool(small) == ("bit" in params.optim)  # moments are in few bits where the name says so
    return start, {name: p.detach().float() - start[name] for name, p in text.items()}


def share_and_cosine(moves: dict[str, Any], true: dict[str, Any]) -> tuple[float, float, float]:
    """Share of the weights that changed, cosine of the movement to the true one, and its length along it."""
    a, b = (torch.cat([value.flatten().double() for value in each.values()]) for each in (moves, true))
    found = (a != 0).double().mean().item(), (a @ b / (a.norm() * b.norm())).item(), (a @ b / (b @ b)).item()
    logging.getLogger("weights").info("changed %.3f, cosine %.3f, of the way %.3f", *found)  # docs/trainer.md
    return found


@pytest.fixture(scope="module")
def float32(folder: Path) -> dict[str, Any]:
    return moved(folder, optim="adamw_torch")[1]


ROUNDS = "bf16_stochastic_round=True"


@pytest.mark.parametrize(
    ("options", "share", "cosine"),
    [
        ({}, 0.999, 0.999),
        pytest.param({"optim": "adamw_bnb_8bit"}, 0.95, 0.97, marks=needs("bitsandbytes")),
        pytest.param({"optim": "adamw_torch_8bit"}, 0.99, 0.97, marks=needs("torchao")),
        pytest.param({"optim": "adamw_torch_4bit"}, 0.95, 0.85, marks=needs("torchao")),
        pytest.param({"weights": "bfloat16", "optim": "adamw_torch_8bit", "optim_args": ROUNDS}, 0.3, 0.5, marks=needs("torchao")),
    ],
    ids=["float32", "float32 bnb 8bit", "float32 torchao 8bit", "float32 torchao 4bit", "bfloat16 stochastic"],
)  # fmt: skip
def test_what_is_accepted_goes_the_float32_way(folder: Path, float32: Any, options: Any, share: float, cosine: float) -> None:
    GrpoParams(learning_rate=RATE, **options)  # it is accepted
    with torch.compiler.set_stance("force_eager"):  # torchao compiles its step, which takes minutes on a CPU
        _, moves = moved(folder, **options)
    changed, alike, along = share_and_cosine(moves, float32)
    assert changed > share
    assert alike > cosine
    assert along == pytest.approx(1, abs=0.2 if options.get("optim") == "adamw_torch_4bit" else 0.1)


@pytest.mark.parametrize("optim", ["adamw_torch_fused", pytest.param("adamw_bnb_8bit", marks=needs("bitsandbytes"))])
def test_what_is_refused_would_not_have_learned(folder: Path, float32: Any, optim: str) -> None:
    with pytest.raises(ValueError, match="rounds to nothing"):
        GrpoParams(learning_rate=RATE, weights="bfloat16", optim=optim)
    start, moves = moved(folder, weights="bfloat16", optim=optim)
    changed, _, along = share_and_cosine(moves, float32)
    assert changed < 0.05
    assert along < 0.05
    # and the bound is where it says: at it, half of the weights can make a step
    small = torch.cat([value.flatten().abs() for value in start.values()])
    step = torch.full_like(small, SLOWEST_BFLOAT16)
    assert ((small.bfloat16() + step).bfloat16() != small.bfloat16()).double().mean() > 0.5 - 0.1
    assert ((small.bfloat16() + RATE).bfloat16() != small.bfloat16()).double().mean() < 0.05


def test_what_can_move_is_not_refused() -> None:
    check_weights("bfloat16", 0, "adamw_torch", "", 4e-5)
    check_weights("bfloat16", 8, "adamw_torch", "", RATE)  # the base of LoRA does not move
    check_weights("bfloat16", 0, "adamw_torch_8bit", "block_size=128, bf16_stochastic_round=true", RATE)
    for optim, options in (
        ("adamw_torch_8bit", ""),
        ("adamw_torch", ROUNDS),
        ("adamw_torch_8bit", "bf16_stochastic_round=False"),
    ):
        with pytest.raises(ValueError, match="rounds to nothing"):
            check_weights("bfloat16", 0, optim, options, RATE)


def test_types_of_a_trained_model(folder: Path) -> None:
    shared = SharedParams(model=str(folder), dtype="bfloat16", device="cpu")
    loaded = common.load_trained(folder, GrpoParams(), shared)
    family = family_of_model(loaded.model)
    kinds = {(p.requires_grad, p.dtype) for p in loaded.model.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}  # masters, and the frozen tower
    assert all(p.requires_grad for merger in family.mergers(family.tower(loaded.model)) for p in merger.parameters())
    lora = common.load_trained(folder, GrpoParams(lora_rank=4), shared)
    assert {p.dtype for p in lora.model.parameters()} == {torch.bfloat16}


@needs("bitsandbytes")
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_a_quantised_base_trains_through_adapters_and_is_merged_into_its_own_weights(
    folder: Path, tmp_path: Path, bits: Any
) -> None:
    import bitsandbytes as bnb

    params = GrpoParams(weights=bits, lora_rank=4)
    shared = SharedParams(model=str(folder), dtype="bfloat16", device="cpu")
    loaded = common.load_trained(folder, params, shared)
    kind = bnb.nn.Linear4bit if bits == "4bit" else bnb.nn.Linear8bitLt
    small = {name for name, module in loaded.model.named_modules() if isinstance(module, kind)}
    assert len(small) == 2 * 7  # the seven projections of two layers: no tower, no head
    assert all("language_model.layers" in name for name in small)
    made, _ = trainer(folder, tmp_path, max_steps=3, peft_config=common.lora_config(4, loaded.family), bf16=True, model=loaded)
    common.prepare(made)
    adapters = [p for p in made.model.parameters() if p.requires_grad]
    assert {p.dtype for p in adapters} == {torch.float32}
    made.train()
    merged = common.merged(made.model, folder, shared)
    assert {p.dtype for p in merged.parameters()} == {torch.float32}
    before = dict(load_model(folder, device="cpu").model.named_parameters())
    changed = {name for name, p in merged.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {f"{name}.weight" for name in small}
    # what was merged answers as what was trained, but for the base's quantisation
    move = torch.cat([(p - before[name]).flatten() for name, p in merged.named_parameters() if name in changed])
    assert 0 < move.abs().max() < 0.05


@pytest.mark.parametrize("options", [{}, {"lora_rank": 4}], ids=["full", "lora"])
def test_small_changes_survive_saving_and_reading(folder: Path, tmp_path: Path, options: Any) -> None:
    """A model that bfloat16 computes with keeps, from folder to folder, what float32 weights learned."""
    shared = SharedParams(model=str(folder), dtype="bfloat16", device="cpu")
    params = GrpoParams(learning_rate=RATE, **options)
    loaded = common.load_trained(folder, params, shared)
    work = tmp_path / "work"
    made, _ = trainer(
        folder, work, max_steps=2, learning_rate=RATE, bf16=True, peft_config=common.lora_config(params.lora_rank, loaded.family),
        model=loaded,
    )  # fmt: skip
    common.prepare(made)
    made.train()
    common.save_model(made, loaded.processor, tmp_path / "kept", work, str(folder), shared)
    again = common.load_trained(tmp_path / "kept", GrpoParams(learning_rate=RATE), shared).model
    before = dict(load_model(folder, device="cpu").model.named_parameters())
    moves = torch.cat([(p - before[n]).flatten() for n, p in again.named_parameters() if p.requires_grad and ".layers." in n])
    assert 0 < moves.abs().max() < 1e-4
    share = (moves != 0).double().mean()
    assert share > (0.9 if not options else 0.3)


@pytest.mark.parametrize(
    ("weights", "options"),
    [
        ("auto", {}),
        pytest.param("bfloat16", {"optim": "adamw_torch_8bit", "optim_args": ROUNDS}, marks=needs("torchao")),
        pytest.param("auto", {"optim": "adamw_bnb_8bit"}, marks=needs("bitsandbytes")),
    ],
)
def test_a_killed_training_goes_on_in_its_types(folder: Path, tmp_path: Path, weights: Any, options: Any) -> None:
    shared = SharedParams(model=str(folder), dtype="bfloat16", device="cpu")
    params = GrpoParams(learning_rate=1e-4, weights=weights, **options)

    def made(out: Path) -> Any:
        loaded = common.load_trained(folder, params, shared)
        tr, _ = trainer(
            folder, out, max_steps=4, save_strategy="steps", save_steps=2, bf16=True, learning_rate=1e-4, model=loaded, **options
        )
        common.prepare(tr)
        return tr

    def ends(tr: Any) -> Any:
        return {name: p.detach().clone() for name, p in tr.model.named_parameters()}

    with torch.compiler.set_stance("force_eager"):
        straight = made(tmp_path / "straight")
        torch.manual_seed(0)
        straight.train()
        point = common.resume_point(tmp_path / "straight")
        assert point is not None  # its optimizer can be read
        resumed = made(tmp_path / "straight")
        torch.manual_seed(1)
        resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-2"))
    a, b = ends(straight), ends(resumed)
    assert {n: p.dtype for n, p in a.items()} == {n: p.dtype for n, p in b.items()}
    assert max((a[n].float() - b[n].float()).abs().max().item() for n in a) < 1e-6


# --- arguments by name ------------------------------------------------------------------------------------------------


def test_what_is_read_off_the_source_is_what_the_classes_have() -> None:
    import dataclasses

    from transformers.training_args import OptimizerNames
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.sft_config import SFTConfig

    for section, cls in (("grpo", GRPOConfig), ("sft", SFTConfig)):
        assert set(config_fields(section)) == {field.name for field in dataclasses.fields(cls)}
    assert set(optimizer_names()) == {name.value for name in OptimizerNames}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tpo_p=0.9", "did you mean 'top_p'"),
        ("seed=1", "shared.seed"),
        ("beta=0.1", "set grpo.beta"),
        ("steps_per_generation=4", "grpo.updates_per_rollout"),
        ("per_device_train_batch_size=2", "grpo.prompts_per_step"),
        ("report_to=wandb", "shared.report_to"),
        ("push_to_hub=true", "uploads nothing"),
        ("output_dir=/x", "workbook's"),
        ("sync_ref_model=true", "goes on after a kill"),
        ("top_p=much", "is no float"),
        ("disable_dropout=3", "is no bool"),
        ("top_k=1.5", "is no int"),
        ("importance_sampling_level=group", "one of token, sequence"),
        ("lr_scheduler_kwargs=x", "cannot be written here"),
        ("top_p", "key=value"),
        ("top_p=1, top_p=1", "twice"),
    ],
)
def test_an_argument_of_trl_that_cannot_be_is_refused_when_parameters_are_read(text: str, says: str) -> None:
    with pytest.raises(Timer1Error, match=r"grpo\.trl") as caught:
        load_params(TINY, [f'grpo.trl="{text}"'])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arguments_of_trl_reach_it(folder: Path, tmp_path: Path) -> None:
    from timer1lib.training.grpo import trainer_config
    from timer1lib.training.outer_loop import PhasePlan

    params = GrpoParams(trl="top_p=0.9, delta=4, adam_beta2=0.95, mask_truncated_completions=true", loss_type="sapo")
    loaded = load_model(folder, device="cpu")
    plan = PhasePlan(0, ["s0"], "", str(folder), str(folder), 1, 1, tmp_path, None)
    config = trainer_config(plan, params, SharedParams(model=str(folder), device="cpu"), loaded, [1.0], tmp_path)
    assert (config.top_p, config.delta, config.adam_beta2) == (0.9, 4.0, 0.95)
    assert config.mask_truncated_completions is True
    assert config.loss_type == "sapo"
    assert config.report_to == []  # nobody is told unasked
    assert parse_trl("adam_beta1=0.8", "sft", SftParams.model_fields) == {"adam_beta1": 0.8}


def test_cispo_s_bound_is_one_of_the_ratio() -> None:
    with pytest.raises(ValueError, match=r"epsilon_high 0\.2 must be above 1"):
        GrpoParams(loss_type="cispo")
    GrpoParams(loss_type="cispo", epsilon_high=5.0)


# --- hub ids ----------------------------------------------------------------------------------------------------------


def test_a_hub_id_stays_one_and_has_a_revision(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    home = tmp_path / "models--somebody--tiny-vl"
    main, other = "a" * 40, "b" * 40
    for commit in (main, other):
        shutil.copytree(folder, home / "snapshots" / commit, ignore=shutil.ignore_patterns("work"))
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(main)
    changed = load_model(folder, device="cpu").model
    changed.lm_head.weight.data.fill_(0.5)
    changed.save_pretrained(home / "snapshots" / other)

    assert model_source("somebody/tiny-vl") == ("somebody/tiny-vl", None)
    name = base_name(SharedParams(model="somebody/tiny-vl", revision=other))
    assert model_source(name) == ("somebody/tiny-vl", other)
    assert load_model("somebody/tiny-vl", device="cpu").model.lm_head.weight.std() < 0.1
    assert load_model(name, device="cpu").model.lm_head.weight.unique().tolist() == [0.5]
    # the reference of the KL divergence is read from where the policy's files lie
    assert local_folder(name) == str(home / "snapshots" / other)
    assert local_folder(str(folder)) == str(folder)
    with pytest.raises(Timer1Error, match="revision is of a hub id"):
        model_source(f"{folder}@{main}")
    with pytest.raises(Timer1Error, match=r"revision cccc.*not in the local hub cache"):
        load_model("somebody/tiny-vl@" + "c" * 40)
