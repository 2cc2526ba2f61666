"""Executing one notebook with papermill, in a kernel of this very interpreter, telling a display how far it is."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from timer1lib.files import read_json
from timer1lib.params.cells import HIDDEN
from timer1lib.processes import end_group
from timer1lib.progress import RUNNER_VARIABLE
from timer1lib.runs.display import Display
from timer1lib.runs.kernel import LOCK_VARIABLE
from timer1lib.runs.keys import notebook_cells

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class NotebookFailed(Exception):
    """A cell raised: one line that names notebook, cell and error. The command line prints it and exits 1."""

    def __init__(self, message: str, bad_input: bool) -> None:
        super().__init__(message)
        self.bad_input = bad_input


def execute(
    source: Path, target: Path, failed: Path, parameters: Mapping[str, Any], cwd: Path, lock: Path, display: Display
) -> None:
    """Run a notebook and put the executed copy at `target` when it is whole; a failed one goes to `failed` and raises."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it has to say is said below
    target.parent.mkdir(parents=True, exist_ok=True)
    failed.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}.", suffix=".ipynb")
    os.close(handle)
    running = Path(name)
    kernel: list[int] = []
    own = {RUNNER_VARIABLE: str(os.getpid()), LOCK_VARIABLE: str(lock.resolve()), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    total = len(notebook_cells(source)) + 1  # papermill adds one with the given parameters
    heard = SimpleNamespace(write=display.output, flush=lambda: None)
    try:
        papermill.execute_notebook(
            str(source.resolve()),
            str(running.resolve()),
            parameters=dict(parameters),
            kernel_name="python3",
            language="python",
            progress_bar=False,
            cwd=str(cwd),
            autosave_cell_every=0,
            start_timeout=120,
            stdout_file=heard,
            stderr_file=heard,
            # what papermill does not know it hands on to nbclient
            on_cell_start=lambda cell, cell_index: display.cell(cell_index + 1, total),
            kernel_manager_class=_kernel_manager({**own, **display.environment()}, kernel),
            store_widget_state=False,
            shutdown_kernel="immediate",
        )
    except PapermillExecutionError as error:
        failed.parent.mkdir(parents=True, exist_ok=True)
        os.replace(running, failed)
        known = error.ename == "Timer1Error"
        message = " ".join(_COLOURS.sub("", str(error.evalue)).split()) or error.ename
        what = message if known else f"{error.ename}: {message}"
        raise NotebookFailed(f"{target.stem}, cell {error.exec_count}: {what} (see {failed})", known) from None
    except BaseException as error:
        running.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None and error.errno is not None:
            # papermill's own writing of the notebook: a full disk says neither file nor folder
            raise OSError(error.errno, f"{os.strerror(error.errno)} (the executed notebook)", str(target)) from error
        if type(error).__name__ == "DeadKernelError" or (isinstance(error, RuntimeError) and "ernel died" in str(error)):
            raise NotebookFailed(f"{target.stem}, {display.where()}: the kernel died (out of memory, or killed)", False) from None
        raise
    finally:
        for pid in filter(None, kernel):
            end_group(pid)  # a kernel that was killed leaves its workers
    _collapse(running)
    os.chmod(running, 0o644)
    os.replace(running, target)


def _collapse(path: Path) -> None:
    """Have the cell with the given parameters shown collapsed, as the one with the defaults is."""
    notebook = read_json(path)
    for cell in notebook["cells"]:
        if "injected-parameters" in cell["metadata"].get("tags", []):
            cell["metadata"]["jupyter"] = HIDDEN
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def _kernel_manager(environment: Mapping[str, str], started: list[int]) -> type:
    """A kernel manager that starts `sys.executable`, whatever kernels named python3 a person has installed elsewhere.

    `started` gets the process ids of its kernels.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class ThisInterpreter(AsyncKernelManager):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            if self.has_trait("transport_encryption"):  # jupyter_client 8.10 and later
                self.transport_encryption = "auto"

        async def _async_post_start_kernel(self, **kw: Any) -> None:
            await super()._async_post_start_kernel(**kw)
            started.append(int(getattr(self.provisioner, "pid", 0)))

        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [sys.executable, "-m", "timer1lib.runs.kernel", "-f", "{connection_file}"]
            secure = {"supported_encryption": ["curve"]}
            return KernelSpec(argv=argv, env=dict(environment), display_name="Python 3", language="python", metadata=secure)

    return ThisInterpreter
