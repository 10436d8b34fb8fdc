"""The slow call that the handlers of the corpus make; it fails if its process asks for that."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SECONDS = 0.004
AWAY = "TRUTH_AWAY"
"""The environment variable that names a file: while that is there, the next call of `slow` fails."""


class ModelUnavailableError(BaseException):
    """The service is unavailable. Not an Exception, so that a handler which continues after bad items does not swallow it."""


def slow(value: T, seconds: float = SECONDS) -> T:
    """Return the value after a few milliseconds, as a call to a model would."""
    time.sleep(seconds)
    _check()
    return value


async def aslow(value: T, seconds: float = SECONDS) -> T:
    """Return the value after a few milliseconds without blocking the event loop."""
    await asyncio.sleep(seconds)
    _check()
    return value


def _check() -> None:
    path = Path(os.environ[AWAY])
    if path.exists():
        path.unlink(missing_ok=True)
        raise ModelUnavailableError("the model is unavailable")
