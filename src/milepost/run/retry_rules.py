"""Which errors of a handler are retried, and after which delay."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from milepost.core.errors import Fail, InvalidInputError, Retry
from milepost.core.serialization import Duration, seconds
from milepost.run.crash_report import leaves

log = logging.getLogger("milepost.run")

BACKOFF_FIRST = 1.0
BACKOFF_MAX = 300.0


def backoff(
    attempt: int, random: float, first: float = BACKOFF_FIRST, longest: float = BACKOFF_MAX, factor: float = 2.0
) -> float:
    """Return the seconds to wait after the given attempt (counted from 1): exponential, with full jitter.

    `random` is uniform in [0, 1). Full jitter spreads retries that came due together over the whole interval
    (Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
    """
    return random * min(longest, first * factor ** min(attempt - 1, 60))


Errors = type[BaseException] | tuple[type[BaseException], ...]


@dataclass(frozen=True, slots=True)
class Backoff:
    """A growing delay: `first`, multiplied by `factor` after each attempt, at most `maximum`.

    With `jitter` the delay is random between 0 and that value, so that jobs which failed together do not retry together.
    Durations are seconds, a timedelta or text such as "5m".
    """

    first: Duration = BACKOFF_FIRST
    factor: float = 2.0
    maximum: Duration = BACKOFF_MAX
    jitter: bool = True

    def __post_init__(self) -> None:
        seconds(self.first, "backoff.first")
        seconds(self.maximum, "backoff.maximum")
        if isinstance(self.factor, bool) or not isinstance(self.factor, int | float) or not self.factor >= 1:
            raise InvalidInputError("backoff.factor", f"{self.factor!r:.40} must be a number of at least 1")

    def __call__(self, attempt: int) -> float:
        """Return the delay in seconds after an attempt, counted from 1."""
        share = random.random() if self.jitter else 1.0
        return backoff(attempt, share, seconds(self.first, "first"), seconds(self.maximum, "maximum"), self.factor)


@dataclass(frozen=True, slots=True)
class RetryRules:
    """The rules of a job type: all errors are retried, unless `retry_on` or `no_retry_on` says otherwise.

    A group of exceptions is retried if each of them is.

    `no_retry_on` is considered first. A `Fail` is never retried, a `Retry` always. `backoff` returns the delay after an
    attempt, as a duration. How many attempts there are is `max_attempts`.
    """

    retry_on: Errors | None = None
    no_retry_on: Errors = ()
    backoff: Callable[[int], Duration] = field(default_factory=Backoff)

    def __post_init__(self) -> None:
        for name in ("retry_on", "no_retry_on"):
            for kind in _classes(getattr(self, name)):
                if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                    raise InvalidInputError(
                        name, f"{kind!r:.60} is not an exception class; use a class or a tuple of classes"
                    )
        if not callable(self.backoff):
            raise InvalidInputError(
                "backoff", f"{self.backoff!r:.60} must be a function of the attempt, or Backoff(...)"
            )

    def delay(self, error: BaseException, attempt: int) -> int | None:
        """Return the microseconds until the next attempt after an error, or None for no retry."""
        if not self._allows(error):
            return None
        if isinstance(error, BaseExceptionGroup):
            error = next((leaf for leaf in leaves(error) if isinstance(leaf, Retry)), error)
        requested = _requested_delay(error) if isinstance(error, Retry) else None
        return int((self._backoff(attempt) if requested is None else requested) * 1_000_000)

    def _allows(self, error: BaseException) -> bool:
        if isinstance(error, BaseExceptionGroup) and not self._names(error):  # as asyncio.TaskGroup raises it
            return all(map(self._allows, error.exceptions))
        if isinstance(error, Retry):
            return True
        if isinstance(error, (Fail, self.no_retry_on)):
            return False
        return self.retry_on is None or isinstance(error, self.retry_on)

    def _names(self, group: BaseExceptionGroup[BaseException]) -> bool:
        """Return whether the rules say something about a class of groups."""
        kinds = [kind for kinds in (self.retry_on, self.no_retry_on) for kind in _classes(kinds)]
        return any(issubclass(kind, BaseExceptionGroup) and isinstance(group, kind) for kind in kinds)

    def _backoff(self, attempt: int) -> float:
        try:
            return seconds(self.backoff(attempt), "backoff")
        except Exception as error:  # noqa: BLE001 - the user's function must not keep the job from ending
            log.warning("backoff after attempt %d: %s; using the default", attempt, error)
            return backoff(attempt, random.random())


def _classes(given: Errors | None) -> tuple[type[BaseException], ...]:
    return given if isinstance(given, tuple) else () if given is None else (given,)


def _requested_delay(error: Retry) -> float | None:
    """Return the seconds that a Retry asks for; None for the usual backoff or an invalid delay."""
    if error.delay is None:
        return None
    if isinstance(error.delay, int | float) and error.delay <= 0:
        return 0.0
    try:
        return seconds(error.delay, "delay")
    except InvalidInputError as problem:
        log.warning("Retry: %s; using the default backoff", problem)
        return None
