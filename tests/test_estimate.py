"""What a recipe takes, by arithmetic: against the classes' own parameters and against a measured small model."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from grpo_models import FAMILIES, PAD, VOCAB, double_head, ragged_completions, random_model, video_prompt  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_map_only  # noqa: E402

from timer1lib.cli import main  # noqa: E402
from timer1lib.errors import Timer1Error  # noqa: E402
from timer1lib.models import rollouts, shared_attention  # noqa: E402
from timer1lib.models.config import FAMILIES as FAMILY_OBJECTS  # noqa: E402
from timer1lib.models.config import KNOWN, architecture_of, family_of, family_of_model, known_sizes  # noqa: E402
from timer1lib.models.encoded import encode  # noqa: E402
from timer1lib.models.features import accept_features, merged_features, mergers, tower_features  # noqa: E402
from timer1lib.params.load import load_params  # noqa: E402
from timer1lib.training.estimate import estimate, format_estimate, seen_pairs  # noqa: E402
from timer1lib.training.video_grpo import shared_prefix  # noqa: E402

QWEN3 = FAMILY_OBJECTS["qwen3_vl"].sizes
ROOT = Path(__file__).resolve().parent.parent


def counted(model: Any) -> tuple[int, int, int]:
    """Parameters of the text model, the mergers and the tower; tied ones once."""
    merger = {id(p): p.numel() for m in mergers(family_of_model(model).tower(model)) for p in m.parameters()}
    tower = {id(p): p.numel() for p in family_of_model(model).tower(model).parameters() if id(p) not in merger}
    text = {id(p): p.numel() for p in model.parameters() if id(p) not in merger and id(p) not in tower}
    return sum(text.values()), sum(merger.values()), sum(tower.values())


@pytest.mark.parametrize("name", KNOWN)
def test_published_sizes_give_the_parameters_of_the_class(name: str) -> None:
    """The class is built without memory from the sizes, and its parameters counted one by one."""
    import transformers as t

    sizes = KNOWN[name]
    text: dict[str, Any] = {
        "hidden_size": sizes.hidden, "num_hidden_layers": sizes.layers, "num_attention_heads": sizes.heads, "vocab_size": sizes.vocabulary,
        "num_key_value_heads": sizes.key_heads, "intermediate_size": sizes.intermediate,
    }  # fmt: skip
    vision: dict[str, Any] = {
        "hidden_size": sizes.vision_hidden, "depth": sizes.vision_layers, "intermediate_size": sizes.vision_intermediate,
        "patch_size": sizes.patch, "out_hidden_size": sizes.hidden, "num_heads": 16,
    }  # fmt: skip
    if name in QWEN3:
        text["head_dim"] = sizes.head_dim
        config = t.Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=sizes.tied)
        cls: Any = t.Qwen3VLForConditionalGeneration
    else:
        config = t.Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=sizes.tied)
        cls = t.Qwen2_5_VLForConditionalGeneration
    with torch.device("meta"):
        model = cls(config)
    if sizes.tied:
        model.lm_head.weight = model.model.language_model.embed_tokens.weight
    assert (sizes.text_parameters(), sizes.merger_parameters(), sizes.tower_parameters()) == counted(model)


@pytest.mark.parametrize(("name", "billion"), [("qwen2.5-vl-3b", 3.75), ("qwen2.5-vl-7b", 8.29), ("qwen3-vl-8b", 8.77)])
def test_published_sizes_are_the_published_ones(name: str, billion: float) -> None:
    """Totals as the models' pages on the hub state them."""
    assert KNOWN[name].parameters() / 1e9 == pytest.approx(billion, abs=0.01)


@pytest.mark.parametrize("family", FAMILIES)
def test_arithmetic_and_memory_are_those_of_a_measured_model(family: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = random_model(family, torch.float32)
    sizes = family_of(model.config, "here").architecture(model.config.to_dict(), "here")
    assert (sizes.text_parameters(), sizes.merger_parameters(), sizes.tower_parameters()) == counted(model)
    double_head(model)
    shared_prefix.watch_backbone(model)
    shared_attention.install(model)
    raw = video_prompt(family, (8, 8, 8), words=40, dtype=torch.float32)
    prompt = encode(model, raw, "0")
    group, length = 4, 24
    size = len(prompt)
    tokens, mask = ragged_completions(1, group, length)

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        merged_features(model, prompt.video, prompt.grid)  # type: ignore[arg-type]
    # its attention is outside the counter on a CPU and small here; mergers run too
    assert counter.get_total_flops() == pytest.approx(sizes.tower_flops(512, 64), rel=0.1)

    model.train()
    model.model.visual.requires_grad_(False)
    storages: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    held: list[Any] = []
    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        logps, _ = shared_prefix.score(model, [prompt], tokens, mask, PAD)
        held.append(logps)
    packed = size - 1 + group * length
    within, across = seen_pairs(size - 1, length, group)
    expected = sizes.text_flops(packed, within + across, group * length) + sizes.tower_flops(512, 64)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.2)
    activations = sizes.activation_bytes(packed, 4, False, copied=group * (size - 1 + length))
    assert sum(storages.values()) == pytest.approx(activations, rel=0.2)

    states: list[shared_attention.Rollout] = []
    original = shared_attention.Rollout.__init__

    def remember(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        states.append(self)

    shared_attention.Rollout.__init__ = remember  # type: ignore[method-assign]
    try:
        options = {"max_new_tokens": length, "eos_token_id": [VOCAB - 1], "suppress_tokens": [VOCAB - 1]}
        rollouts.generate(model, [prompt], group, options, PAD, [0])
    finally:
        shared_attention.Rollout.__init__ = original  # type: ignore[method-assign]
    kept = sum(t.numel() * t.element_size() for s in states for pair in (*s.shared.values(), *s.own.values()) for t in pair)
    assert kept == sizes.key_bytes(size + group * length, 4)


def test_the_tiny_run_s_numbers_are_its_model_s() -> None:
    params = load_params(ROOT / "params" / "tiny.yaml")
    value = estimate(params)
    from safetensors import safe_open

    with safe_open(str(ROOT / params.shared.model / "model.safetensors"), "np") as weights:
        stored = sum(weights.get_tensor(name).size for name in weights.keys())  # noqa: SIM118
    assert round(value["parameters (billion)"] * 1e9) == stored
    assert value["visual tokens of a video"] == params.shared.frames // 2
    assert value["less arithmetic by"] > 2


def test_a_recipe_s_numbers_hang_together() -> None:
    path = ROOT / "params" / "time_r1_7b.yaml"
    value = estimate(load_params(path))
    assert value["of them trained"] + value["of them the vision tower"] == pytest.approx(value["parameters (billion)"])
    assert value["optimizer GB"] == pytest.approx(2 * value["gradients GB"])
    assert value["memory GB"] == pytest.approx(145.3, abs=1)  # by hand: masters 30.6 + tower 1.3 + moments 61.3 + reference 16.6
    assert value["verdict"] == "does not fit one 80 GB card (H100), nor up to 8 of them"  # two prompts a step keep two cards busy
    more = estimate(load_params(path, ["grpo.prompts_per_step=8"]))
    assert more["verdict"] == "does not fit one 80 GB card (H100); fits 4 with fsdp2"
    assert value["visual tokens of a video"] == 384 * 15  # 768 frames of 3 x 5 patches: the minimum wins over 3,584 tokens
    assert 5 < value["less arithmetic by"] < 8
    lora = estimate(load_params(path, ["grpo.lora_rank=16"]))
    assert lora["of them trained"] * 1e9 == 16 * 28 * (2 * 3584 + 2 * (3584 + 512) + 2 * 3584 + 3 * (3584 + 18944))
    assert lora["memory GB"] < value["memory GB"] / 2
    assert lora["reference GB"] == 0  # adapters switched off are the reference
    wide = estimate(load_params(path, ["grpo.groups_per_forward=2"]))
    assert wide["activations GB"] == pytest.approx(2 * value["activations GB"])
    assert estimate(load_params(path, ["grpo.beta=0"]))["TFLOP a step"] < value["TFLOP a step"]
    kept = estimate(load_params(path, ["grpo.gradient_checkpointing=false"]))
    assert kept["activations GB"] > 5 * value["activations GB"]


def test_sizes_of_an_unknown_model_are_asked_for(tmp_path: Path) -> None:
    assert known_sizes("Qwen/Qwen2.5-VL-72B-Instruct") is None
    with pytest.raises(Timer1Error, match=r"config\.json is not on this machine"):
        architecture_of("somebody/other-7b")
    with pytest.raises(Timer1Error, match="type 'llama'"):
        family_of({"model_type": "llama"}, "m")
    with pytest.raises(Timer1Error, match="lacks 'hidden_size'"):
        FAMILY_OBJECTS["qwen3_vl"].architecture({"model_type": "qwen3_vl", "text_config": {}}, "m")


def test_the_command_prints_numbers(capsys: Any) -> None:
    assert main(["estimate", str(ROOT / "params" / "time_r1_7b.yaml"), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["model"] == "Qwen/Qwen2.5-VL-7B-Instruct"
    text = format_estimate(value)
    assert "memory GB" in text
    assert len(text.splitlines()) == len(value)
    assert text.splitlines()[-1] == value["verdict"]
    assert main(["estimate", str(ROOT / "params" / "time_r1_7b.yaml"), "--card", "T4"]) == 2
    assert "one of A100, H100" in capsys.readouterr().err


def test_written_times_are_counted_whichever_family_writes_them() -> None:
    """A frame pair costs `<12.4 seconds>` and its marks; by positions the whole video has two marks."""
    asked = ["shared.model=Qwen/Qwen2.5-VL-7B-Instruct", "shared.frames=40"]
    path = ROOT / "params" / "tiny.yaml"
    positions, text = (estimate(load_params(path, [*asked, f"shared.timestamps={how}"])) for how in ("positions", "text"))
    assert text["prompt tokens P"] - positions["prompt tokens P"] == 20 * 9 - 2
    assert text["visual tokens of a video"] == positions["visual tokens of a video"]


class Meter(TorchDispatchMode):  # type: ignore[misc]
    """The largest number of bytes alive at once, of the tensors given and of all that are made inside."""

    def __init__(self, given: list[Any]) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.peak = 0
        for tensor in given:
            parts = (
                [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
                if hasattr(tensor, "__tensor_flatten__")
                else [tensor]
            )
            for part in parts:
                self._meet(part)

    def _meet(self, tensor: Any) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.alive:
            self.alive[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self.alive.pop, storage._cdata, None)
            self.peak = max(self.peak, sum(self.alive.values()))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, lambda t: self._meet(t) if type(t) is torch.Tensor else None, out)
        return out


WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "full": ({}, {"optim": "adamw_torch_fused"}),
    "full, checkpointing": ({"gradient_checkpointing": True}, {"optim": "adamw_torch_fused"}),
    "lora": ({"lora_rank": 8}, {"optim": "adamw_torch_fused"}),
    "bfloat16 with 8-bit moments": ({"weights": "bfloat16", "optim_args": "bf16_stochastic_round=True"}, {"optim": "adamw_torch_8bit"}),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_the_peak_is_that_of_a_measured_step(way: str) -> None:
    """Forward, backward and optimizer of a small model in the types of a real one, every allocation followed."""
    import importlib.util

    from timer1lib.params.sections import GrpoParams, Params, SharedParams
    from timer1lib.params.trainer import weights_dtype
    from timer1lib.training.common import freeze_vision_tower, lora_config
    from timer1lib.training.estimate import _memory

    if "8bit" in WAYS[way][1]["optim"] and importlib.util.find_spec("torchao") is None:
        pytest.skip("torchao is not installed")
    group, length = 4, 24
    grpo = GrpoParams(prompts_per_step=1, num_generations=group, max_completion_length=length, **WAYS[way][0], **WAYS[way][1])
    params = Params(shared=SharedParams(dtype="bfloat16"), grpo=grpo)
    model = random_model("qwen3_vl", torch.float32, hidden=256, layers=4)
    sizes = family_of(model.config, "here").architecture(model.config.to_dict(), "here")
    model.to(getattr(torch, weights_dtype(grpo.weights, grpo.lora_rank, "bfloat16")))
    freeze_vision_tower(model, torch.bfloat16)
    whole: Any = model
    if grpo.lora_rank:
        from peft import get_peft_model

        whole = get_peft_model(model, lora_config(grpo.lora_rank, family_of(model.config, "here")))
    double_head(model)
    shared_prefix.watch_backbone(model)
    shared_attention.install(model)
    accept_features(model)
    if grpo.gradient_checkpointing:
        whole.gradient_checkpointing_enable({"use_reentrant": False})
    whole.train()
    prompt = encode(whole, video_prompt("qwen3_vl", (8, 8, 8), words=40, dtype=torch.float32), "0")
    tokens, mask = ragged_completions(1, group, length)
    learned = [p for p in whole.parameters() if p.requires_grad]
    optimizer: Any
    if grpo.optim == "adamw_torch_8bit":
        from torchao.optim import AdamW8bit

        optimizer = AdamW8bit(learned, lr=1e-4, bf16_stochastic_round=True)
    else:
        optimizer = torch.optim.AdamW(learned, lr=1e-4, fused=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        prompt.video = tower_features(whole, prompt.video, prompt.grid)  # type: ignore[arg-type]

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            logps, _ = shared_prefix.score(whole, [prompt], tokens, mask, PAD)
        logps.sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    with torch.compiler.set_stance("force_eager"):
        step()  # moments are made in the first step
        states = [v for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v)]
        with Meter([*whole.parameters(), *states, prompt.video]) as meter:
            step()
    assert _memory(sizes, params, len(prompt)).peak() == pytest.approx(meter.peak, rel=0.2)
