"""Every loss of trl on the shared-prefix path, and several updates on one batch of rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from grpo_runs import Encoder, furthest, tiny_folder, trainer, weights  # noqa: E402

from timer1lib.models.load import load_model  # noqa: E402
from timer1lib.params.sections import GrpoParams, SharedParams  # noqa: E402
from timer1lib.schema import Sample  # noqa: E402
from timer1lib.training import grpo  # noqa: E402
from timer1lib.training.outer_loop import PhasePlan  # noqa: E402

LOSSES: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo"},
    "bnpo": {"loss_type": "bnpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "dapo": {"loss_type": "dapo", "epsilon_high": 0.28},
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.1},
    "sapo": {"loss_type": "sapo"},
    "luspo": {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    "vespo": {"loss_type": "vespo"},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-2},
    "two-sided": {"loss_type": "grpo", "delta": 1.05},
    "entropy mask": {"loss_type": "bnpo", "top_entropy_quantile": 0.5},
    "sequence mask": {"loss_type": "bnpo", "off_policy_mask_threshold": 0.05},
    "kl": {"loss_type": "bnpo", "beta": 0.5, "use_bias_correction_kl": True},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("losses") / "m")


def loss_and_gradient(folder: Path, out: Path, scoring: str, options: dict[str, Any]) -> tuple[float, torch.Tensor]:
    """Of one batch of rollouts whose old log-probabilities are another policy's, ragged completions included."""
    tr, _ = trainer(folder, out, scoring=scoring, max_completion_length=8, **options)
    greedy = tr._sample

    def ragged(batch: Any, which: Any, attempt: int) -> list[list[int]]:
        return [row[: 2 + (3 * i) % 7] for i, row in enumerate(greedy(batch, which, attempt))]

    tr._sample = ragged  # type: ignore[method-assign]
    tr.current_gradient_accumulation_steps = 1
    tr.model.train()
    rows = [tr.train_dataset[i] for i in range(3) for _ in range(4)]
    batch = tr._generate_and_score_completions(rows)
    with torch.no_grad():
        logps, _, _ = tr._get_per_token_logps_and_entropies(
            tr.model,
            torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
            torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1),
            batch["completion_ids"].shape[1],
        )
    noise = torch.randn(logps.shape, generator=torch.Generator().manual_seed(5)) * 0.3
    batch["old_per_token_logps"] = logps + noise
    if "ref_per_token_logps" in batch:
        batch["ref_per_token_logps"] = logps - noise
    loss = tr._compute_loss(tr.model, batch)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in tr.model.parameters() if p.grad is not None])


PLAIN: dict[str, float] = {}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_and_its_gradient_are_those_of_trl_s_own_path(folder: Path, tmp_path: Path, name: str) -> None:
    """The repeated path is trl's forward; the loss is trl's code in both, the log-probabilities are ours in one."""
    plain, true = loss_and_gradient(folder, tmp_path / "plain", "repeated", LOSSES[name])
    fast, gradient = loss_and_gradient(folder, tmp_path / "fast", "shared_prefix", LOSSES[name])
    assert fast == pytest.approx(plain, rel=1e-4, abs=1e-6)
    assert true.norm() > 0
    assert (gradient - true).norm() / true.norm() < 1e-3
    assert all(abs(plain - other) > 1e-5 for other in PLAIN.values())  # each option did something
    PLAIN[name] = plain


OFF: dict[str, Any] = {"num_iterations": 2, "steps_per_generation": 2, "learning_rate": 5e-3, "epsilon": 0.02, "max_steps": 4}
"""Two updates of three groups on one batch of rollouts, all of it twice."""


@pytest.mark.parametrize("scoring", ["shared_prefix", "repeated"])
def test_later_updates_on_a_rollout_are_off_policy(folder: Path, tmp_path: Path, scoring: str) -> None:
    sampled: list[int] = []
    tr, _ = trainer(folder, tmp_path, scoring=scoring, on_rollouts=lambda step, _: sampled.append(step), **OFF)
    ratios: list[float] = []
    inner = tr._get_per_token_logps_and_entropies

    def watched(*args: Any, **kwargs: Any) -> Any:
        out = inner(*args, **kwargs)
        if tr._scored_rows:  # called by the loss
            old, mask = watched.inputs["old_per_token_logps"], watched.inputs["completion_mask"]  # type: ignore[attr-defined]
            ratios.append((((out[0].detach() - old).exp() - 1).abs() * mask).max().item())
        return out

    compute = tr._compute_loss

    def loss(model: Any, inputs: Any) -> Any:
        watched.inputs = inputs  # type: ignore[attr-defined]
        return compute(model, inputs)

    tr._get_per_token_logps_and_entropies, tr._compute_loss = watched, loss  # type: ignore[method-assign, assignment]
    tr.train()
    assert sampled == [0]  # one batch of rollouts for four steps
    assert ratios[0] < 1e-4  # the rollout's own policy
    assert min(ratios[1:]) > 1e-3
    clipped = [row["clip_ratio/region_mean"] for row in tr.state.log_history if "clip_ratio/region_mean" in row]
    assert clipped[0] == 0
    assert min(clipped[2:]) > 0  # rows that were trained on before


def test_off_policy_updates_end_alike_on_both_paths(folder: Path, tmp_path: Path) -> None:
    ends = []
    for scoring in ("shared_prefix", "repeated"):
        tr, _ = trainer(folder, tmp_path / scoring, scoring=scoring, **{**OFF, "learning_rate": 1e-4, "adam_epsilon": 1e-4})
        tr.train()
        ends.append(weights(tr))
    assert furthest(*ends) < 1e-5


class Killed(Exception):
    pass


def test_a_run_killed_among_the_updates_of_a_rollout_goes_on_to_the_same_weights(folder: Path, tmp_path: Path) -> None:
    from transformers import TrainerCallback

    class Kill(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 6:
                raise Killed

    options = {**OFF, "max_steps": 12, "learning_rate": 1e-3, "save_strategy": "steps", "save_steps": 4}
    straight, _ = trainer(folder, tmp_path / "straight", **options)
    straight.train()
    cut, _ = trainer(folder, tmp_path / "cut", **options)
    cut.add_callback(Kill())
    with pytest.raises(Killed):
        cut.train()
    resumed, _ = trainer(folder, tmp_path / "cut", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-4"))
    assert furthest(weights(straight), weights(resumed)) < 1e-6


def plan_of(folder: Path, out: Path, ids: list[str], steps: int) -> PhasePlan:
    return PhasePlan(0, ids, "", str(folder), str(folder), steps, steps, out, None)


def test_checkpoints_fall_between_rollouts(folder: Path, tmp_path: Path) -> None:
    """A kill loses the rollouts at hand: what goes on samples new ones, where an undisturbed run does too."""
    params = GrpoParams(prompts_per_step=4, groups_per_forward=2, updates_per_rollout=3, num_iterations=2, save_every=7)
    loaded = load_model(folder, device="cpu")
    shared = SharedParams(model=str(folder), device="cpu")
    config = grpo.trainer_config(plan_of(folder, tmp_path, ["s0"], 12), params, shared, loaded, [1.0], tmp_path)
    assert config.save_steps == 12
    assert config.per_device_train_batch_size == 2 * 8
    assert config.gradient_accumulation_steps == 2
    assert config.generation_batch_size == 3 * 4 * 8  # three updates of four groups
    assert config.num_iterations == 2


def test_fewer_samples_than_a_step_takes_are_taken_more_than_once(folder: Path, tmp_path: Path) -> None:
    params = GrpoParams(
        prompts_per_step=3,
        num_generations=2,
        max_completion_length=4,
        rewards="format:1.0",
        log_rollouts_every=1,
        cache_features=False,
    )
    shared = SharedParams(model=str(folder), device="cpu")
    samples = {f"s{i}": Sample(id=f"s{i}", video="v.mp4", query="a cat", windows=[(0.0, 1.0)], duration=4.0) for i in range(2)}

    def encode(loaded: Any, sample: Sample) -> Any:
        return Encoder(loaded)({"sample_id": sample.id, "prompt": sample.query})

    rows = grpo.train_phase(
        plan_of(folder, tmp_path / "epoch1", ["s0", "s1"], 1),
        samples,
        encode,
        params,
        shared,
        tmp_path / "log.jsonl",
        tmp_path / "rollouts.jsonl",
    )
    assert [row["step"] for row in rows] == [1]
    assert len((tmp_path / "rollouts.jsonl").read_text().splitlines()) == 3
