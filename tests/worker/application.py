"""The application of the worker processes in these tests. Handlers append to the file WORKER_LOG, so that tests see
them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from milepost import Fail, JobCancelled, JobReleased, Jobs, LeaseLost, Retry, Run, Secret

jobs = Jobs()
NO_SECRET = Secret("")
_never = threading.Event()
_next = threading.Event()
_left: list[threading.Thread] = []


def note(text: str) -> None:
    """Append a line to the log of the test in one write."""
    with open(os.environ["WORKER_LOG"], "a") as log:
        log.write(text + "\n")


@jobs.job("noted")
def noted(run: Run, text: str = "") -> dict[str, Any]:
    """Write a line."""
    note(f"noted {text} {os.getpid()}")
    return {"pid": os.getpid()}


@jobs.job("steps", max_attempts=1)
def steps(run: Run, count: int, pause: float = 0.02) -> int:
    """Count, with a checkpoint at each step. A worker with STEP_PAUSE takes its own time for each."""
    start = run.last_checkpoint or 0
    note(f"began at {start} in {os.getpid()}")
    for step in range(start, count):
        note(f"step {step}")
        run.checkpoint(step + 1)
        time.sleep(float(os.environ.get("STEP_PAUSE", pause)))
    return count


@jobs.job("waits")
async def waits(run: Run) -> None:
    """Wait until stopped."""
    note(f"waits {os.getpid()}")
    try:
        await asyncio.sleep(60)
    finally:
        note("waits ended")


@jobs.job("deaf")
def deaf(run: Run) -> None:
    """Run without any cancellation point."""
    note(f"deaf {os.getpid()}")
    _never.wait(60)


@jobs.job("poison")
def poison(run: Run, how: str = "kill") -> None:
    """Kill the worker's process."""
    note(f"poison {os.getpid()}")
    os.kill(os.getpid(), signal.SIGKILL)


@jobs.job("isolated", isolation="process", max_attempts=2)
def isolated(run: Run, what: str, secret: Secret = NO_SECRET) -> Any:
    """Do something in a child process."""
    with run.stage("Working", total=100, unit="step"):
        run.log(f"about to {what} with {secret}")
        run.checkpoint({"what": what})
        note(f"isolated {what} {os.getpid()}")  # nothing after it looks for a cancel
        return _DOES[what](run, secret)


@jobs.job(
    "isolated-rules", isolation="process", max_attempts=3, no_retry_on=KeyError, backoff=lambda attempt: attempt / 100
)
def isolated_rules(run: Run, error: str) -> int:
    """Raise an error in the first attempt, in a child process."""
    if run.attempt == 1:
        raise {"key": KeyError, "value": ValueError, "fail": Fail, "retry": Retry}[error]("broken")
    return run.attempt


@jobs.job("isolated-silent", isolation="process")
def isolated_silent(run: Run) -> None:
    """Die in a child process without a message."""
    os._exit(3)


@jobs.job("isolated-async", isolation="process")
async def isolated_async(run: Run) -> None:
    """Wait in a child process."""
    note(f"isolated-async {os.getpid()}")
    await asyncio.sleep(60)


@jobs.job("isolated-thread", isolation="process")
async def isolated_thread(run: Run, seconds: float) -> None:
    """Await a thread of a child process."""

    def work() -> None:
        note("thread began")
        time.sleep(seconds)
        note("thread returned")

    await asyncio.to_thread(work)


def _loop(run: Run, secret: str) -> None:
    while True:
        time.sleep(0.01)
        run.progress(0.5, "looping")


def _deaf(run: Run, secret: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    while True:
        time.sleep(60)


def _family(run: Run, secret: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    note(f"grandchild {child.pid}")
    time.sleep(60)


def _tidy(run: Run, secret: str) -> None:
    note("tidy is looping")
    try:
        _loop(run, secret)
    except (JobCancelled, JobReleased) as stop:
        note(f"tidied up after {type(stop).__name__}")
        raise


def _memory(run: Run, secret: str) -> None:
    hoard = bytearray(80 * 2**20)
    note(f"holds {len(hoard)}")
    os.kill(os.getpid(), signal.SIGKILL)


def _closes(run: Run, secret: str) -> None:
    os.closerange(3, 256)
    note("has closed all")
    time.sleep(60)


def _signalled(run: Run, secret: str) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)  # any process but its worker may be the sender
    note("continues")
    time.sleep(60)


def _signalled_after_stop(run: Run, secret: str) -> None:
    while not run.cancelled:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    note("continues")
    run.check()


def _handles(run: Run, secret: str) -> None:
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: ended.set())
    note("handles SIGTERM")
    ended.wait(60)
    note("handled SIGTERM")
    run.check()


def _forks(run: Run, secret: str) -> int:
    end, its_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(its_end, b"1")  # Python drops signals of its first moment
        time.sleep(60)
        os._exit(0)
    os.read(end, 1)
    os.kill(pid, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _writes_to_socket(run: Run, secret: str) -> None:
    for number in range(3, 256):
        try:
            is_socket = stat.S_ISSOCK(os.fstat(number).st_mode)
        except OSError:
            continue
        if is_socket:
            os.write(number, struct.pack("!I", 4) + b"text")
    time.sleep(60)


def _leaves(run: Run, secret: str) -> None:
    """Leave a thread behind, which writes a checkpoint when another job runs here."""

    def late() -> None:
        _next.wait()
        try:
            run.checkpoint("of another job")
        except LeaseLost:
            note("late lost")

    _left.append(threading.Thread(target=late, daemon=True))
    _left[0].start()


def _meets(run: Run, secret: str) -> None:
    note(f"meets {run.last_checkpoint}")
    if run.attempt == 1:
        _next.set()
        _left[0].join()
        raise Retry(0.0, reason="once more")


def _again(run: Run, secret: str) -> None:
    delay: Any = timedelta(0)
    if run.attempt == 1:
        raise Retry(delay)


def _raise(run: Run, secret: str) -> None:
    raise ValueError(f"this {secret} is wrong")


_DOES = {
    "return": lambda run, secret: {"pid": os.getpid(), "secret": len(secret), "checkpoint": run.last_checkpoint},
    "loop": _loop,
    "sleep": lambda run, secret: time.sleep(60),
    "deaf": _deaf,
    "family": _family,
    "tidy": _tidy,
    "memory": _memory,
    "again": _again,
    "closes": _closes,
    "signalled": _signalled,
    "signalled after stop": _signalled_after_stop,
    "handles": _handles,
    "forks": _forks,
    "leaves": _leaves,
    "writes to socket": _writes_to_socket,
    "meets": _meets,
    "raise": _raise,
    "segfault": lambda run, secret: os.kill(os.getpid(), signal.SIGSEGV),
    "exit": lambda run, secret: os._exit(3),
    "sys.exit": lambda run, secret: sys.exit(3),
    "unserialisable": lambda run, secret: object(),
    "nan": lambda run, secret: {"mean": float("nan")},
    "argv": lambda run, secret: sys.argv,
}


def lines(path: Path) -> list[str]:
    """Return the lines that handlers have written."""
    return path.read_text().splitlines()


@jobs.job("isolated-length", isolation="process")
def isolated_length(run: Run, text: str) -> int:
    """Measure a text in a child process."""
    return len(text)
