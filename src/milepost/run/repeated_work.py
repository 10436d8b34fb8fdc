"""Work before a suspension that runs again after it: how long it took, and the warning about it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from milepost.run.run import Run

log = logging.getLogger("milepost.run")

WARN_SECONDS = 2.0
"""Seconds of repeated work from which on a suspension warns."""


class KeptWork:
    """The time since the start of the code, apart from work that is not repeated: steps, loops that resume, waits. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = self._began = time.monotonic()
        self._seconds = 0.0
        self._open = 0
        self._is_kept = False

    def begin(self) -> None:
        """Enter such code; these may be nested, and overlap in threads."""
        with self._lock:
            if not self._open:
                self._began = time.monotonic()
            self._open += 1

    def end(self, *, is_kept: bool = True) -> None:
        """Leave it. The time is not counted if nothing of it was kept."""
        with self._lock:
            self._open -= 1
            self._is_kept |= is_kept
            if not self._open:
                self._seconds += (time.monotonic() - self._began) * self._is_kept
                self._is_kept = False

    @contextmanager
    def spent(self, *, keeps_errors: bool = True) -> Iterator[None]:
        """Count the time of a block, or none of it if the block raises and does not keep errors."""
        self.begin()
        is_kept = keeps_errors
        try:
            yield
            is_kept = True
        finally:
            self.end(is_kept=is_kept)

    def repeated(self) -> float:
        """Return the seconds so far that were spent elsewhere."""
        with self._lock:
            now = time.monotonic()
            return now - self._started - self._seconds - (now - self._began if self._open else 0.0)


def warn_of_repeated_work(run: Run, call: str) -> None:
    """Say in the log of the job and of the process how much work will run again after the suspension of a call.

    Code with a checkpoint of its own is left alone, since what it repeats is unknown.
    """
    seconds = run._kept_work.repeated()
    if seconds < WARN_SECONDS or run._checkpoint_at is not None:
        return
    text = f"{seconds:.0f} s of work before {call} will run again; put it into run.step or give the loop state="
    run.log(text, "warning")
    log.warning("job %s (%s): %s", run.job_id, run.job_type, text)
