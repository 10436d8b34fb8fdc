"""The clock of a process, and how its threads wait. A test passes its own `Clock` to own time."""

from __future__ import annotations

import threading
import time


class Clock:
    """The system clock."""

    monotonic = staticmethod(time.monotonic)  # the functions themselves, so that a call costs no more
    """Return seconds that never go back, for intervals."""
    time = staticmethod(time.time)
    """Return seconds since 1970."""

    wait = staticmethod(threading.Event.wait)
    """Wait until an event is set, for at most a number of seconds (None: no limit); return whether it is set."""


SYSTEM_CLOCK = Clock()
