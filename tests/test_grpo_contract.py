"""What the video trainer relies on in trl 1.16: the hooks' signatures, and that its scoring really sees the video."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")

from grpo_runs import tiny_folder, trainer  # noqa: E402
from trl.trainer.grpo_trainer import GRPOTrainer  # noqa: E402

from timer1lib.models import rollouts  # noqa: E402
from timer1lib.training.video_grpo import shared_prefix  # noqa: E402
from timer1lib.training.video_grpo.trainer import VideoGRPOTrainer  # noqa: E402

HOOKS = {
    "_set_signature_columns_if_needed": ["self"],
    "_get_train_sampler": ["self", "dataset"],
    "_generate_and_score_completions": ["self", "inputs"],
    "_tokenize_prompts": ["self", "prompts"],
    "_generate_single_turn": ["self", "prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images"],
    "_prepare_inputs": ["self", "generation_batch"],
    "_compute_loss": ["self", "model", "inputs"],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
}


def test_trl_is_the_version_whose_hooks_are_overridden() -> None:
    assert trl.__version__.startswith("1.16.")


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_has_the_signature_that_is_overridden(hook: str) -> None:
    assert list(inspect.signature(getattr(GRPOTrainer, hook)).parameters) == HOOKS[hook]
    assert getattr(VideoGRPOTrainer, hook) is not getattr(GRPOTrainer, hook)


def test_the_scoring_hook_has_the_parameters_that_are_passed_on() -> None:
    names = list(inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters)
    assert names[:8] == [
        "self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size", "compute_entropy", "compute_aux_loss",
    ]  # fmt: skip


@pytest.fixture(scope="module", params=["qwen3_vl", "qwen2_5_vl"])
def made(request: Any, tmp_path_factory: Any) -> Any:
    folder = tiny_folder(tmp_path_factory.mktemp("model") / request.param, request.param)
    return folder, tmp_path_factory.mktemp("out")


def own_logps(tr: Any, prompt: Any, completion: list[int], video: Any) -> Any:
    """Log-probabilities of one completion by the model's own forward, all of it written out."""
    base = tr.accelerator.unwrap_model(tr.model)
    ids = torch.cat([prompt.input_ids, torch.tensor(completion)])[None]
    types = torch.cat([prompt.token_types, torch.zeros(len(completion), dtype=prompt.token_types.dtype)])[None]
    extra = {} if prompt.seconds is None else {"second_per_grid_ts": prompt.seconds}
    base.model.rope_deltas = None
    with torch.no_grad():
        logits = base(
            input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=types, pixel_values_videos=video, video_grid_thw=prompt.grid, **extra
        ).logits[0, -len(completion) - 1 : -1]  # fmt: skip
    return logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0]


@pytest.mark.parametrize("scoring", ["shared_prefix", "packed_mask", "repeated"])
def test_what_the_trainer_scores_is_what_the_model_thinks_of_the_video(made: Any, scoring: str) -> None:
    folder, out = made
    tr, _ = trainer(folder, out, scoring=scoring)
    tr.model.train()
    batch = next(iter(tr.get_train_dataloader()))
    inputs = tr._prepare_inputs(batch)
    rows = inputs["encoded_prompts"]
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    tr._scored_rows = rows
    with torch.no_grad():
        logps, entropies, _ = tr._get_per_token_logps_and_entropies(
            tr.model, ids, mask, inputs["completion_ids"].shape[1], compute_entropy=True
        )
    assert entropies.shape == logps.shape == inputs["completion_ids"].shape
    moved = 0.0
    for i, prompt in enumerate(rows):
        length = int(inputs["completion_mask"][i].sum())
        completion = inputs["completion_ids"][i, :length].tolist()
        expected = own_logps(tr, prompt, completion, prompt.video)
        torch.testing.assert_close(logps[i, :length], expected, rtol=0, atol=2e-5)
        moved = max(moved, (own_logps(tr, prompt, completion, torch.zeros_like(prompt.video)) - expected).abs().max().item())
    assert moved > 1e-4
    for prompt in {id(p): p for p in rows}.values():
        prompt.video = torch.zeros_like(prompt.video)
    with torch.no_grad():
        blind, _, _ = tr._get_per_token_logps_and_entropies(tr.model, ids, mask, inputs["completion_ids"].shape[1])
    assert (blind - logps).abs().max() > 1e-4
    tr._scored_rows = []


def test_vision_tokens_are_banned_without_being_named(made: Any) -> None:
    folder, out = made
    tr, _ = trainer(folder, out, banned_token_ids=[17])
    banned = set(tr.generation_kwargs["suppress_tokens"])
    assert {17, tr.model.config.image_token_id, tr.model.config.video_token_id} <= banned


def test_the_saved_configuration_names_no_attention_of_ours(made: Any, tmp_path: Any) -> None:
    folder, out = made
    tr, _ = trainer(folder, out)
    tr.save_model(str(tmp_path))
    assert "shared_prefix" not in (tmp_path / "config.json").read_text()


def test_bad_options_are_named() -> None:
    from timer1lib.training.video_grpo import VideoGRPOConfig

    common: dict[str, Any] = {"output_dir": "nowhere", "use_cpu": True, "bf16": False, "report_to": []}
    with pytest.raises(ValueError, match="scoring 'fast'"):
        VideoGRPOConfig(**common, scoring="fast")
    with pytest.raises(ValueError, match="rollouts 'vllm'"):
        VideoGRPOConfig(**common, rollouts="vllm")
    with pytest.raises(ValueError, match="remove_unused_columns"):
        VideoGRPOConfig(**common, remove_unused_columns=True)


def test_the_pieces_are_where_the_trainer_calls_them() -> None:
    assert callable(rollouts.generate)
    assert callable(shared_prefix.score)
