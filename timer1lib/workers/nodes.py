"""Several machines that work on one run in a folder they share.

Machine 0 runs the notebooks; the others (`timer1 work RUN --node 1 --nodes 2 --address HOST:PORT`) follow the run's jobs
and join each. Ranks of all machines meet at the address, which is machine 0's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from timer1lib.errors import Timer1Error, shown

CORES_VARIABLE = "TIMER1_CORES"
"""How many of this machine's cores a run may use, where a sweep runs several side by side."""
MARK = ".nodes"
"""Stands in a run's folder while several machines work on it."""
VARIABLES = ("TIMER1_NODE", "TIMER1_NODES", "TIMER1_ADDRESS")


@dataclass(frozen=True, slots=True)
class Nodes:
    """Which of how many machines this is, and where all of them meet."""

    node: int = 0
    count: int = 1
    host: str = ""
    port: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.node < self.count:
            raise Timer1Error(f"--node {self.node}: machines count from 0 to {self.count - 1} (--nodes {self.count})")

    @contextlib.contextmanager
    def open(self, root: Path) -> Iterator[None]:
        """Let the other machines join a run for as long as this lasts; kernels that are started read it back by `here`."""
        os.environ.update(zip(VARIABLES, (str(self.node), str(self.count), f"{self.host}:{self.port}"), strict=True))
        (root / MARK).write_text(f"{self.count} machines, {self.host}:{self.port}\n")
        try:
            yield
        finally:
            (root / MARK).unlink(missing_ok=True)
            for name in VARIABLES:
                os.environ.pop(name, None)


def parse_nodes(node: int, count: int, address: str) -> Nodes:
    """From a command line's options; a Timer1Error names what is wrong with them."""
    if count == 1:
        return Nodes(node)
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Timer1Error(f"--address {shown(address)}: write it as HOST:PORT, a name or number of machine 0 that all can reach")
    return Nodes(node, count, host, int(port))


def here() -> Nodes:
    """As the environment says; one machine where it says nothing."""
    node, count, address = (os.environ.get(name, "") for name in VARIABLES)
    return parse_nodes(int(node or 0), int(count or 1), address)


def jobs(root: Path) -> list[Path]:
    """Folders of the jobs that a run has just now."""
    return [path.parent for path in (root / ".work").glob("*.job/job.json")]
