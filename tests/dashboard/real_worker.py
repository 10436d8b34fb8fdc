"""A server with a real worker for the browser tests: `python -m tests.dashboard.real_worker PORT STORE_URL`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from threading import Lock
from typing import Any

from milepost import Jobs, Run
from milepost.web import serve

jobs = Jobs(sys.argv[2])


@jobs.job("loop")
def loop(run: Run, n: int = 400, pause: float = 0.25) -> None:
    """Process items without a name."""
    for _ in run.each(range(n)):
        time.sleep(pause)


@jobs.job("staged")
def staged(run: Run, n: int = 400, pause: float = 0.25) -> dict[str, str]:
    """One stage of known total."""
    with run.stage("Working", total=n, unit="step") as stage:
        for _ in range(n):
            time.sleep(pause)
            stage.advance()
    return {"summary": f"{n} steps"}


@jobs.job("held")
def held(run: Run, gate: str, n: int = 100, at: int = 97) -> None:
    """Process items; wait before one of them until the file `gate` exists."""
    for item in run.each(range(n)):
        if item == at:
            wait_for(run, gate)


@jobs.job("two-stages")
def two_stages(run: Run, first: str, second: str) -> None:
    """Two stages, the second of which is not known before it opens. Wait in the middle of each."""
    for name, gate in (("Loading", first), ("Embedding", second)):
        with run.stage(name, total=4, unit="page") as stage:
            stage.advance(2)
            wait_for(run, gate)
            stage.advance(2)


def wait_for(run: Run, gate: str) -> None:
    """Wait until a file exists."""
    while not Path(gate).exists():
        run.check()
        time.sleep(0.02)


@jobs.job("broken")
def broken(run: Run) -> None:
    """Fail."""
    raise ValueError("page 7 cannot be read")


@jobs.job("unstored")
def unstored(run: Run) -> Any:
    """Return a value that is not JSON."""
    return {"rows": [1, 2], "lock": Lock()}


if __name__ == "__main__":
    serve(jobs, port=int(sys.argv[1]), workers=1, auth="none", log_level="error")
