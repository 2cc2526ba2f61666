"""What ranks do in tests of how they are started and how they end: `job["given"]["do"]` names it."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

from timer1lib.errors import Timer1Error
from timer1lib.progress import Progress
from timer1lib.workers.team import team


def perform(job: dict[str, Any]) -> None:
    what, folder = job["given"]["do"], Path(job["given"]["folder"])
    (folder / f"pid{team.rank}").write_text(f"{os.getpid()} {os.getppid()}")
    last = team.rank == team.size - 1
    if what == "work":
        progress = Progress("counting", 3)
        for i in range(3):
            progress.update(reward=float(i))
        if last:
            logging.getLogger("timer1lib.test").warning("said by rank %d", team.rank)
        (folder / f"all{team.rank}").write_text(repr((team.all(team.rank), team.agree(team.rank), team.share(range(5)))))
    elif what == "bad input" and last:
        raise Timer1Error("data/x.jsonl, line 3: no such video")
    elif what == "fault" and last:
        raise ValueError("shapes\ndiffer")
    elif what == "killed" and last:
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "exit" and last:
        os._exit(7)
    time.sleep(0 if what == "work" else 60)
