"""What only some commands need: packages by the extra that installs them, and one line where one is not there."""

from __future__ import annotations

import importlib.util

from timer1lib.errors import Timer1Error

NOTEBOOKS = ("papermill", "ipykernel", "jupyter_client", "IPython", "ipywidgets", "anywidget", "traitlets", "pandas")
"""Modules that notebooks need to run; the extras train and lab bring them."""
TORCH = (
    "torch", "torchvision", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "huggingface_hub", "fsspec",
)  # fmt: skip

EXTRAS: dict[str, tuple[str, ...]] = {
    "train": (*TORCH, *NOTEBOOKS),
    "lab": ("jupyterlab", *NOTEBOOKS),
    "ray": ("ray",),
    "slurm": ("submitit",),
    "s3": ("s3fs",),
    "bnb": ("bitsandbytes",),
    "torchao": ("torchao",),
}
"""{extra: the modules that it brings}. Not decord: it has no wheel on some machines, and PyAV reads the same frames."""


def installed(extra: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in EXTRAS[extra])


def need(extra: str, who: str) -> None:
    """A Timer1Error that says what to install where a module of an extra is missing; `who` needs it (`timer1 run`)."""
    for module in EXTRAS[extra]:
        if importlib.util.find_spec(module) is None:
            raise Timer1Error(f"{who} needs {module}, which is not installed: {_install(extra)}")


def how_to_get(module: str) -> str:
    """The command that installs a missing module, by the extra that brings it, or by its own name."""
    top = module.partition(".")[0]
    if top in ("fcntl", "termios", "resource"):
        return "it is part of Linux and macOS; on Windows, use WSL"
    extra = next((extra for extra, modules in EXTRAS.items() if top in modules), None)
    return _install(extra) if extra else f"pip install {top}"


def _install(extra: str) -> str:
    return f"pip install 'timer1lib[{extra}]'"
