"""Executing one notebook with papermill, in a kernel of this very interpreter, telling a display how far it is."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timer1lib.errors import Timer1Error
from timer1lib.progress import RUNNER_VARIABLE
from timer1lib.runs.display import Display
from timer1lib.runs.kernel import LOCK_VARIABLE

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_ENGINE = "timer1"


class NotebookFailed(Exception):
    """A cell raised: one line that names notebook, cell and error. The command line prints it and exits 1."""

    def __init__(self, message: str, bad_input: bool) -> None:
        super().__init__(message)
        self.bad_input = bad_input


def execute(source: Path, target: Path, parameters: Mapping[str, Any], cwd: Path, lock: Path, display: Display) -> None:
    """Run a notebook and put the executed copy at `target` when it is whole; a failed one goes to `*.failed.ipynb`.

    Raises:
        NotebookFailed: a cell raised, or the kernel died.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    _register_engine()
    logging.getLogger("papermill").setLevel(logging.ERROR)
    target.parent.mkdir(parents=True, exist_ok=True)
    failed = target.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}.", suffix=".ipynb")
    os.close(handle)
    running = Path(name)
    try:
        papermill.execute_notebook(
            str(source.resolve()),
            str(running.resolve()),
            parameters=dict(parameters),
            engine_name=_ENGINE,
            kernel_name="python3",
            language="python",
            progress_bar=False,
            cwd=str(cwd),
            autosave_cell_every=0,
            display=display,
            lock=lock,
        )
    except PapermillExecutionError as error:
        os.replace(running, failed)
        known = error.ename == "Timer1Error"
        message = " ".join(_COLOURS.sub("", str(error.evalue)).split()) or error.ename
        what = message if known else f"{error.ename}: {message}"
        raise NotebookFailed(f"{target.stem}, cell {error.exec_count}: {what} (see {failed})", known) from None
    except BaseException as error:
        running.unlink(missing_ok=True)
        if type(error).__name__ == "DeadKernelError":
            raise NotebookFailed(f"{target.stem}, {display.where()}: the kernel died (out of memory, or killed)", False) from None
        raise
    os.chmod(running, 0o644)
    os.replace(running, target)


def _register_engine() -> None:
    """Make papermill's engine of ours known: same client, our kernel, and a display that hears every message."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, papermill_engines

    if _ENGINE in papermill_engines._engines:
        return

    class ThisInterpreter(AsyncKernelManager):
        """Starts `sys.executable`, whatever kernels named python3 a person has installed elsewhere."""

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            if self.has_trait("transport_encryption"):  # jupyter_client 8.10 and later
                self.transport_encryption = "auto"

        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(
                argv=[sys.executable, "-m", "timer1lib.runs.kernel", "-f", "{connection_file}"],
                display_name="Python 3",
                language="python",
                metadata={"supported_encryption": ["curve"]},
            )

    class Client(PapermillNotebookClient):
        display: Display

        def process_message(self, *args: Any, **kwargs: Any) -> Any:
            output = super().process_message(*args, **kwargs)
            if output and output.output_type == "stream":
                self.display.output("".join(output.text))
            return output

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(
            cls, nb_man: Any, kernel_name: str, *, display: Display, lock: Path, start_timeout: int = 120, **_: Any
        ) -> None:
            original = nb_man.cell_start

            def cell_start(cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
                display.cell((cell_index or 0) + 1, len(nb_man.nb.cells))
                original(cell, cell_index, **kwargs)

            nb_man.cell_start = cell_start
            client = Client(
                nb_man,
                kernel_name=kernel_name,
                kernel_manager_class=ThisInterpreter,
                startup_timeout=start_timeout,
                timeout=None,
                store_widget_state=False,
                shutdown_kernel="immediate",
            )
            client.display = display
            own = {RUNNER_VARIABLE: str(os.getpid()), LOCK_VARIABLE: str(lock.resolve())}
            client.execute(env={**os.environ, **own, **display.environment()})

    papermill_engines.register(_ENGINE, Engine)


def check_notebook(path: Path) -> None:
    """Fail early where a notebook is not there.

    Raises:
        Timer1Error: no such notebook.
    """
    if not path.is_file():
        raise Timer1Error(f"{path}: no such notebook")
