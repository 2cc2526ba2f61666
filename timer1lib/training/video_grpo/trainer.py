"""`trl.GRPOTrainer` for videos.

trl's trainer (1.16) is blind to video: its loss forward gets no video pixels. This subclass gives it eyes by
overriding what stands between the data set and the log-probabilities, and leaves rewards, advantages, losses and
metrics to trl:

    _generate_and_score_completions   encode each prompt once a group, replace failed ones, then trl's own
    _tokenize_prompts                 hand trl the encoded tokens
    _generate_single_turn             sample all completions of the step together
    _prepare_inputs                   split a generation batch without tearing groups apart
    _compute_loss                     remember whose completions are scored
    _get_per_token_logps_and_entropies   score G completions against one prompt
    _calculate_rewards                keep the rewards for the rollout log
    _get_train_sampler                an order that depends on the epoch, so that a resumed run sees the same rows
    _load_from_checkpoint             weights that really come from the checkpoint

These are private to trl: the version is pinned, and tests/test_grpo_contract.py holds the signatures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import RepeatSampler, split_tensor_dict

from timer1lib.errors import Timer1Error
from timer1lib.models import rollouts, shared_attention
from timer1lib.models.decoding import take_over
from timer1lib.models.encoded import EncodedPrompt, base_model, encode
from timer1lib.models.fast_vision import speed_up_vision
from timer1lib.models.features import FeatureCache, accept_features, tower_hash, tower_is_frozen
from timer1lib.models.memory import rollout_tokens
from timer1lib.training.common import Autocast, load_weights
from timer1lib.training.feeding import EncodeAhead
from timer1lib.training.parallel import SharedTraining, gathered
from timer1lib.training.video_grpo import VideoGRPOConfig, repeated, shared_prefix
from timer1lib.training.video_grpo.groups import EncodePrompt, GroupSource, Row, flat_groups, group_order
from timer1lib.workers.team import team

OnRollouts = Callable[[int, list[dict[str, Any]]], None]
"""Called after every generation with the step and a row a group: step, id, completions (text), rewards (weighted sums)."""


@dataclass
class _Batch:
    """The generation batch at hand: whose prompt each row has, and completions sampled ahead of trl's asking."""

    prompts: list[EncodedPrompt]
    group: int
    numbers: list[int]  # each prompt's place among the groups of all ranks
    rewards: Tensor | None = None  # of all ranks
    completions: list[list[int]] = field(default_factory=list)

    @property
    def rows(self) -> list[EncodedPrompt]:
        return [prompt for prompt in self.prompts for _ in range(self.group)]


class VideoGRPOTrainer(SharedTraining, GRPOTrainer):  # type: ignore[misc]
    """GRPO whose prompts hold videos.

    Args:
        model: a model of any family, from a path where `beta > 0` without PEFT (trl reloads the reference).
        reward_funcs: as trl's.
        args: `VideoGRPOConfig`.
        encode_prompt: turns a row into the processor's output for its prompt. Called in threads; where it raises, the
            row's group is replaced by another row's and the reason logged.
        feature_cache: keeps the frozen tower's features across steps (and runs, with a folder); None keeps them for a
            step.
        on_rollouts: gets each step's completions and rewards.
        kwargs: trl's. The rows of `train_dataset` need `prompt` (messages or text: what rewards and logs see),
            `sample_id`, and what `encode_prompt` and the rewards read.
    """

    _buffered_inputs: Any
    entropy_coef: float

    def __init__(
        self,
        model: Any,
        reward_funcs: Any,
        args: VideoGRPOConfig,
        *,
        encode_prompt: EncodePrompt,
        feature_cache: FeatureCache | None = None,
        on_rollouts: OnRollouts | None = None,
        **kwargs: Any,
    ) -> None:
        for unsupported in ("tools", "rollout_func", "environment_factory"):
            if kwargs.get(unsupported):
                raise ValueError(f"the video trainer does not take {unsupported}")
        options: dict[str, Any] = dict(args.generation_kwargs or {})
        if args.rollouts == "shared_prefix":
            rollouts.check_generation_kwargs(options)
        if (config := getattr(model, "config", None)) is not None:
            banned = {*args.banned_token_ids, *options.get("suppress_tokens", []), config.image_token_id, config.video_token_id}
            args.generation_kwargs = {**options, "suppress_tokens": sorted(banned)}
        if hasattr(model, "generation_config") and (processor := kwargs.get("processing_class")) is not None:
            take_over(base_model(model), getattr(processor, "tokenizer", processor))
        super().__init__(model, reward_funcs, args, **kwargs)
        base = base_model(self.accelerator.unwrap_model(self.model))
        models = [base] if self.ref_model is None else [base, base_model(self.accelerator.unwrap_model(self.ref_model))]
        for each in models:
            if args.fast_vision:
                speed_up_vision(each)
            if args.scoring != "repeated":
                shared_prefix.watch_backbone(each)
            if "shared_prefix" in (args.scoring, args.rollouts):
                shared_attention.install(each)
            accept_features(each)
        # One tower pass serves policy, reference and rollouts only where all of them have the same tower for good.
        # The reference never trains, whatever its parameters say.
        hashes = {tower_hash(each) for each in models} if tower_is_frozen(base) else set()
        self._tower = hashes.pop() if len(hashes) == 1 else None
        if feature_cache is not None and self._tower is None:
            raise ValueError("a feature cache needs a frozen vision tower, the same in policy and reference")
        self._features = feature_cache
        self._share_tower = "shared_prefix" in (args.scoring, args.rollouts) or args.scoring == "packed_mask"
        self._on_rollouts = on_rollouts
        self._encoder = EncodeAhead(encode_prompt, args.encode_threads)
        self.data_collator = self._encoder.announce
        self._batch: _Batch | None = None
        self._scored_rows: list[EncodedPrompt] = []

    # --- the data set ---------------------------------------------------------------------------------------------

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if self._signature_columns is not None and "sample_id" not in self._signature_columns:
            self._signature_columns.append("sample_id")

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        return _EpochSampler(
            data_source=self.train_dataset if dataset is None else dataset,
            mini_repeat_count=self.num_generations,
            batch_size=self.args.generation_batch_size // self.num_generations,
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            shuffle=self.shuffle_dataset,
            seed=self.args.seed,
            updates=self._updates,
        )

    # --- generation -----------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[Row]) -> dict[str, Any]:
        mode = "train" if self.model.training else "eval"
        group = self.num_generations if mode == "train" else self.num_generations_eval
        updates = self._updates if mode == "train" else 1
        given = [row for rows in team.all(inputs[::group]) for row in rows]
        source = GroupSource(
            rows=[row for _, row in sorted(zip(group_order(len(given), updates), given, strict=True), key=lambda pair: pair[0])],
            dataset=self.train_dataset if mode == "train" else self.eval_dataset,
            encode=partial(self._encode, self.accelerator.unwrap_model(self.model)),  # once: it walks the whole model
            seed=rollouts.seed_from(self.args.seed, *self._place(), "replacement"),
            updates=updates,
        )
        started = time.perf_counter()
        source.fill()
        self._note(mode, "time/encode", time.perf_counter() - started)
        self._note(mode, "groups_failed", float(source.failed))
        self._batch = batch = _Batch(source.prompts, group, source.own)
        started = time.perf_counter()
        self._add_features(batch)
        self._note(mode, "time/tower", time.perf_counter() - started)
        if self._features is not None:
            costs = self._features.costs
            self._note(mode, "time/cache_hit", costs.hit_s / max(1, costs.hits))
            self._note(mode, "time/cache_miss", costs.miss_s / max(1, costs.misses))
        if mode == "train" and self.args.dynamic_sampling:
            self._resample(source, batch)
        started = time.perf_counter()
        own = [source.rows[i] for i in source.own for _ in range(group)]
        output: dict[str, Any] = super()._generate_and_score_completions(own)
        output["encoded_prompts"] = batch.rows
        if team.size > 1 and mode == "train":
            output["unit_tokens"] = self._unit_tokens(output["completion_mask"], source)
        assert batch.rewards is not None
        everyone = batch.rewards.view(-1, group, batch.rewards.shape[-1])
        weighted = (everyone * self.reward_weights.to(everyone.device)).nansum(-1)
        self._note(mode, "frac_groups_without_gradient", flat_groups(weighted).float().mean().item())
        if self._on_rollouts is not None and mode == "train":
            here = weighted[team.rank * source.share : (team.rank + 1) * source.share]
            mine = everyone[team.rank * source.share : (team.rank + 1) * source.share]
            rows = [row for rows in team.all(self._rollout_rows(batch, here, mine)) for row in rows]
            if team.first:
                in_order = sorted(zip(source.order, rows, strict=True), key=lambda pair: pair[0])
                self._on_rollouts(self.state.global_step, [row for _, row in in_order])
        return output

    @property
    def _updates(self) -> int:
        """Optimizer steps that share a generation."""
        return max(1, int(self.args.steps_per_generation) // int(self.args.gradient_accumulation_steps))

    def _unit_tokens(self, mask: Tensor, source: GroupSource) -> Tensor:
        """For each of this rank's rows, the completion tokens of all rows that the loss averages together (N,)."""
        counts = self.accelerator.gather(mask.sum(1)).view(len(source.rows), -1).sum(1)
        in_order = torch.empty_like(counts)
        in_order[source.order] = counts
        unit = self.args.groups_per_loss or len(source.rows) // source.updates
        of_unit = in_order.view(-1, unit).sum(1).repeat_interleave(unit)
        return of_unit[source.own].repeat_interleave(len(mask) // source.share)

    def _encode(self, model: Any, row: Row) -> EncodedPrompt:
        return encode(model, self._encoder.get(row), str(row["sample_id"]))

    def _place(self) -> tuple[int, int, int]:
        """Where in the run this generation is, the same in a resumed run and on every rank: step, micro-batch, 0."""
        micro = self._step % (self.args.gradient_accumulation_steps * self.num_iterations)
        return self.state.global_step, micro, 0

    def _add_features(self, batch: _Batch) -> None:
        """Run the frozen tower once for every video of the batch, for rollouts, policy and reference together."""
        todo = [p for p in batch.prompts if p.video is not None and p.video.ndim == 2]
        if self._tower is None or not todo or (self._features is None and not self._share_tower):
            return
        cache = self._features or FeatureCache(None, memory_gb=0.0)
        videos: list[Any] = [(p.video, p.grid) for p in todo]
        model = base_model(self.accelerator.unwrap_model(self.model))
        with self.accelerator.autocast():
            found = cache.features(model, self._tower, videos, [p.key for p in todo])
        for prompt, features in zip(todo, found, strict=True):
            prompt.video = features

    def _resample(self, source: GroupSource, batch: _Batch) -> None:
        """DAPO's dynamic sampling (arXiv 2503.14476, section 3.2): groups of equal rewards make room for other samples."""
        replaced = 0
        batch.completions = self._sample(batch, range(len(batch.prompts)), attempt=0)
        for attempt in range(1, self.args.dynamic_sampling + 1):
            rows = [source.rows[i] for i in source.own for _ in range(batch.group)]
            asked = [row["prompt"] for row in rows]
            texts = self._texts(asked, batch.completions)
            # Gathered over processes: every one of them calls this equally often, whatever it finds in its own rows.
            gathered = self._calculate_rewards(rows, asked, texts, batch.completions)
            self._pending_extra_logs.clear()
            self._pending_metrics.clear()
            flat_everywhere = flat_groups((gathered * self.reward_weights.to(gathered.device)).nansum(-1).view(-1, batch.group))
            if not flat_everywhere.any():
                break
            everywhere = sorted(source.order[i] for i in flat_everywhere.nonzero().flatten().tolist())
            source.replace(everywhere)
            replaced += len(everywhere)
            flat = [place for place, i in enumerate(source.own) if i in everywhere]
            self._add_features(batch)
            fresh = self._sample(batch, flat, attempt)
            for position, index in enumerate(flat):
                at = slice(index * batch.group, (index + 1) * batch.group)
                batch.completions[at] = fresh[position * batch.group : (position + 1) * batch.group]
        self._note("train", "groups_resampled", float(replaced))

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        assert self._batch is not None
        return [prompt.input_ids.tolist() for prompt in self._batch.rows], None, {}

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, has_tool_images: bool = False
    ) -> tuple[list[list[int]], None]:
        batch = self._batch
        assert batch is not None
        if not batch.completions:
            batch.completions = self._sample(batch, range(len(batch.prompts)), attempt=0)
        return batch.completions, None

    def _sample(self, batch: _Batch, which: Any, attempt: int) -> list[list[int]]:
        """Completions of some of the batch's prompts, G each, under seeds that name run, step, group and attempt.

        The group is counted over all ranks. All ranks call this together, with whatever prompts each has.
        """
        indices = list(which)
        started = time.perf_counter()
        prompts = [batch.prompts[i] for i in indices]
        seeds = [rollouts.seed_from(self.args.seed, *self._place(), attempt, batch.numbers[i]) for i in indices]
        pad = self._tokenizer.pad_token_id
        out: list[list[int]] = []
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                generation_kwargs=self.generation_kwargs,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            gathered(self.model_wrapped),
            torch.no_grad(),
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
            self.accelerator.autocast(Autocast(cache_enabled=True)),  # every step reads the same weights
        ):
            lengths = list(map(len, prompts))
            most = rollout_tokens(base_model(model), max(lengths, default=1), batch.group, self.max_completion_length)
            for chunk in _chunks(lengths, most):
                asked = prompts[chunk]
                if self.args.rollouts == "repeated":  # a call a prompt: what it samples must not depend on who else is asked
                    each = zip(asked, seeds[chunk], strict=True)
                    made = [repeated.generate(model, [p], batch.group, self.generation_config, pad, seed) for p, seed in each]
                else:
                    made = [rollouts.generate(base_model(model), asked, batch.group, self.generation_kwargs, pad, seeds[chunk])]
                out += [row for tokens in made for rows in rollouts.cut_after_end(tokens, self.eos_token_ids) for row in rows]
        self._note("train" if self.model.training else "eval", "time/rollout", time.perf_counter() - started)
        return out

    def _texts(self, prompts: list[Any], completions: list[list[int]]) -> list[Any]:
        """Completions as rewards get them: text, or one assistant message where prompts are messages."""
        texts = self.processing_class.batch_decode(completions, skip_special_tokens=True)
        return list(texts) if isinstance(prompts[0], str) else [[{"role": "assistant", "content": text}] for text in texts]

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if rewards.isnan().any():  # gathered, so that all ranks stop here together
            self._stop_at_a_reward()
        if self._batch is not None:
            self._batch.rewards = rewards
        return rewards

    def _stop_at_a_reward(self) -> None:
        """End a training in which a reward failed, at a checkpoint of the steps that are done."""
        said = [
            line for lines in team.all([f for each in self.reward_funcs for f in getattr(each, "failures", [])]) for line in lines
        ]
        if step := self.state.global_step:
            self._save_checkpoint(self.model, trial=None)
        first = said[0] if said else "a reward is NaN"
        raise Timer1Error(f"{first}; training stopped after {step} steps, which are kept")

    def _rollout_rows(self, batch: _Batch, weighted: Tensor, each: Tensor) -> list[dict[str, Any]]:
        """A group's completions, their `rewards` (weighted sums), and `parts`: what each reward gave by its name (B, G, F)."""
        texts = self.processing_class.batch_decode(batch.completions, skip_special_tokens=True)
        groups = [texts[i : i + batch.group] for i in range(0, len(texts), batch.group)]
        names = self.reward_func_names
        return [
            {"step": self.state.global_step, "id": prompt.sample_id, "completions": group, "rewards": rewards}
            | {"parts": {name: [None if v != v else v for v in part[:, i].tolist()] for i, name in enumerate(names)}}
            for prompt, group, rewards, part in zip(batch.prompts, groups, weighted.tolist(), each, strict=True)
        ]

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        # trl shuffles the rows of a generation batch before it splits them over accumulation steps, which would put
        # the completions of one prompt into several forwards. The sampler has shuffled the prompts already.
        if not self.model.training:
            return self._generate_and_score_completions(generation_batch)
        every = self.args.steps_per_generation * self.num_iterations
        if self._step % every == 0 or self._buffered_inputs is None:
            batch = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_tensor_dict(batch, self.args.steps_per_generation)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    # --- scoring --------------------------------------------------------------------------------------------------

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        self._scored_rows = inputs["encoded_prompts"]
        try:
            weight = self._weight(inputs)
            if weight == 1.0:
                return super()._compute_loss(model, inputs)
            if self.loss_type == "bnpo":
                return super()._compute_loss(model, inputs) * weight
            # the others' own means are right; the entropy bonus is a mean over this forward's tokens whatever the loss
            plain = self.entropy_coef
            self.entropy_coef = plain * weight
            try:
                return super()._compute_loss(model, inputs)
            finally:
                self.entropy_coef += plain - plain * weight
                if told := self._metrics["train"].get("entropy_coef"):
                    told[-1] = self.entropy_coef
        finally:
            self._scored_rows = []

    def _weight(self, inputs: dict[str, Any]) -> float:
        """What a mean over this forward's tokens must count, so that the mean over ranks is that of one process.

        trl averages tokens over a forward (bnpo, and every loss's entropy bonus), and DDP over ranks. One process averages
        over `groups_per_loss` groups, and then over the step: a forward that has n of a unit's N tokens counts n / N of
        the unit, which is one of so many in a step.
        """
        if "unit_tokens" not in inputs:
            return 1.0
        here = inputs["completion_mask"].sum().clamp(min=1) / inputs["unit_tokens"][0].clamp(min=1)
        forwards = self.current_gradient_accumulation_steps * team.size
        groups = forwards * self.args.per_device_train_batch_size // self.num_generations
        units = groups // (self.args.groups_per_loss or groups)
        return float(here * forwards / units)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None, None]:
        rows = self._scored_rows or (self._batch.rows if self._batch else [])
        completions, mask = input_ids[:, -logits_to_keep:], attention_mask[:, -logits_to_keep:]
        size = batch_size or len(rows)
        parts = [
            self._score(model, rows[i : i + size], completions[i : i + size], mask[i : i + size])
            for i in range(0, len(rows), size)
        ]
        logps = torch.cat([p for p, _ in parts])
        entropies = torch.cat([e for _, e in parts if e is not None]) if compute_entropy else None
        return logps, entropies, None

    def _score(self, model: Any, rows: list[EncodedPrompt], completions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities (N, C) of N rows, rows of one prompt sharing it."""
        prompts: list[EncodedPrompt] = []
        members: list[list[int]] = []
        for i, prompt in enumerate(rows):
            if not prompts or prompts[-1] is not prompt:
                prompts.append(prompt)
                members.append([])
            members[-1].append(i)
        group = max(map(len, members))
        # A group that a micro-batch holds only in part is filled up with its last row, whose copies are not read.
        index = torch.tensor([m + [m[-1]] * (group - len(m)) for m in members], device=completions.device)
        pad = self._tokenizer.pad_token_id
        with self.accelerator.autocast():
            if self.args.scoring == "repeated":
                policy = self.accelerator.unwrap_model(self.model)
                logps, entropies = repeated.score(model, policy, prompts, completions[index], mask[index], pad)
            else:
                dense = self.args.scoring == "packed_mask"
                logps, entropies = shared_prefix.score(model, prompts, completions[index], mask[index], pad, dense=dense)
        real = torch.tensor([k < len(m) for m in members for k in range(group)], device=completions.device)
        return logps.flatten(0, 1)[real], None if entropies is None else entropies.flatten(0, 1)[real]

    # --- bookkeeping ----------------------------------------------------------------------------------------------

    def _note(self, mode: str, name: str, value: float) -> None:
        self._metrics[mode][name].append(value)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        target = self.model if model is None else model
        if hasattr(target, "peft_config") or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_weights(self.accelerator.unwrap_model(target), resume_from_checkpoint)


def _chunks(lengths: list[int], most: int) -> list[slice]:
    """Neighbours that together, padded to the longest, have at most `most` tokens; one that is longer stands alone."""
    slices, start = [], 0
    for i in range(1, len(lengths) + 1):
        if i == len(lengths) or (i + 1 - start) * max(lengths[start : i + 1]) > most:
            slices.append(slice(start, i))
            start = i
    return slices


class _EpochSampler(RepeatSampler):  # type: ignore[misc]
    """trl's sampler with an order that depends on seed and epoch alone.

    trl's draws the orders of all epochs from one stream, and a run that resumes in its second epoch would start that
    stream anew. Several ranks take neighbouring parts of what it gives: each finds its share of every update there.
    """

    def __init__(self, *args: Any, updates: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._order = group_order(self.batch_size, updates)

    def __iter__(self) -> Iterator[int]:
        given = super().__iter__()
        while block := list(islice(given, self.batch_size * self.mini_repeat_count)):
            groups = block[:: self.mini_repeat_count]
            yield from (groups[i] for i in self._order for _ in range(self.mini_repeat_count))

    def set_epoch(self, epoch: int) -> None:
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) + 1_000_003 * epoch)
