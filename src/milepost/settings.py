"""The settings of milepost: names, environment variables, defaults and descriptions.

`settings` reads the environment when it is first used.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from milepost.core import defaults
from milepost.core.errors import InvalidInputError
from milepost.core.serialization import seconds

log = logging.getLogger("milepost.manager")


def _setting(env: str, default: Any, doc: str, *, shown: bool = True) -> Any:
    return field(default=default, repr=shown, metadata={"env": env, "doc": doc})


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. Durations are in seconds; environment variables also accept text such as ``2h``.

    Raises InvalidInputError with the name of the field; `from_environment` with that of the variable.
    """

    url: str | None = _setting(
        "MILEPOST_URL",
        None,
        "URL of the store: sqlite:///jobs.db, redis://host, postgresql://host/db, memory://, or http://server",
        shown=False,  # it may have a password
    )
    redis_url: str | None = _setting("REDIS_URL", None, "URL of Redis, used if MILEPOST_URL is not set", shown=False)
    namespace: str = _setting("MILEPOST_NAMESPACE", "milepost", "Namespace of this application in a shared store")
    job_ttl: float = _setting("JOB_TTL", defaults.JOB_TTL, "Retention time of a job after its end")
    lease: float = _setting(
        "MILEPOST_LEASE", defaults.LEASE, "Duration of a lease: a run that does not renew it loses its job"
    )
    heartbeat: float = _setting(
        "MILEPOST_HEARTBEAT",
        defaults.HEARTBEAT,
        "Interval of the heartbeat: it sends progress, renews leases and receives cancels",
    )
    sweep: float = _setting(
        "MILEPOST_SWEEP", defaults.SWEEP, "Interval of the sweep for lost, expired and overdue jobs"
    )
    grace: float = _setting("MILEPOST_GRACE", defaults.GRACE, "Grace period for code to stop before it is killed")
    stalled: float = _setting(
        "MILEPOST_STALLED", defaults.STALLED, "Minimum time without progress before a run counts as stalled"
    )
    auth: str | None = _setting(
        "MILEPOST_AUTH",
        None,
        "Authentication of the server: keys or none. Default: `milepost serve` requires keys if any exist",
    )
    max_pending: int = _setting(
        "MILEPOST_MAX_PENDING",
        10_000,
        "Maximum number of pending jobs of one key or user over HTTP, not counting jobs of its schedules (at most 100 schedules)",
    )
    max_types: int = _setting(
        "MILEPOST_MAX_TYPES", 100, "Maximum number of types of manual jobs (create_job) of one key or user over HTTP"
    )
    max_sessions: int = _setting("MILEPOST_MAX_SESSIONS", 50, "Maximum number of browser sessions of one key")
    max_streams: int = _setting(
        "MILEPOST_MAX_STREAMS", 100, "Maximum number of open streams and long polls of one key or user"
    )
    request_timeout: float = _setting(
        "MILEPOST_REQUEST_TIMEOUT", 30.0, "Timeout for a client to send the headers or the body of a request"
    )
    output_bytes: int = _setting(
        "MILEPOST_OUTPUT_BYTES",
        defaults.OUTPUT_BYTES,
        "Size of the newest output (`run.output`) that a job keeps, in bytes",
    )
    strict: bool = _setting("MILEPOST_STRICT", False, "Refuse to start if the store fails its health check")
    capture: str | None = _setting(
        "MILEPOST_CAPTURE",
        None,
        "What is captured inside a run: logging, tqdm, threads, stdout, or none. "
        "Default: logging; in `milepost worker` and `milepost run` logging,tqdm,threads",
    )
    redact: str | None = _setting(
        "MILEPOST_REDACT", None, "Redaction function (module:name, str to str) for log lines, captured bars and errors"
    )

    release: str | None = _setting(
        "MILEPOST_RELEASE",
        None,
        "Release of your code, kept with each attempt. Default: version of the distribution that contains the handlers",
    )

    def __post_init__(self) -> None:
        _ = self.captures
        if self.redact is not None and not all(self.redact.partition(":")[::2]):
            raise InvalidInputError("redact", f"{self.redact!r:.80} must have the form module:function")
        if self.release is not None and (len(self.release) > 200 or not self.release.isprintable()):
            raise InvalidInputError("release", "must be at most 200 printable characters")
        for spec in fields(self):
            name, value = spec.name, getattr(self, spec.name)
            if isinstance(spec.default, bool):
                if not isinstance(value, bool):
                    raise InvalidInputError(name, f"{value!r:.40} is not a bool")
            elif isinstance(spec.default, int):
                if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**53:
                    raise InvalidInputError(name, f"{value!r:.40} is not a whole number above 0")
            elif isinstance(spec.default, float):
                duration = seconds(value, name)
                if duration == 0 and name != "job_ttl":
                    raise InvalidInputError(name, "must be more than 0 seconds")
                object.__setattr__(self, name, duration)
        if self.heartbeat * 2 > self.lease:
            if self.heartbeat == defaults.HEARTBEAT:
                remedy = f"too short for a heartbeat of {self.heartbeat} s; use at least twice as much"
                raise InvalidInputError("lease", f"{self.lease} s is {remedy}")
            raise InvalidInputError(
                "heartbeat",
                f"{self.heartbeat} s is too long for a lease of {self.lease} s; use at most half of the lease",
            )

    @property
    def store_url(self) -> str:
        """Return the URL of the store: `url`, else `redis_url`, else that of the memory of this process."""
        chosen = self.url or self.redis_url
        if chosen is None:
            _log_memory()
        return chosen or "memory://"

    @property
    def sweep_interval(self) -> float:
        """Return the seconds between sweeps: at most a quarter of the lease."""
        return min(self.sweep, self.lease / 4)

    @property
    def captures(self) -> frozenset[str]:
        """Return what is captured of a run's code."""
        return _captures(self.capture if self.capture is not None else "logging")

    @property
    def lease_micros(self) -> int:
        """Return the lease in microseconds."""
        return int(self.lease * 1_000_000)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Return the settings of the environment. Raises InvalidInputError with the name of an invalid variable."""
        environment = os.environ if environment is None else environment
        given: dict[str, Any] = {}
        for spec in fields(cls):
            variable = spec.metadata["env"]
            text = environment.get(variable, "").strip()
            if not text:
                continue
            if isinstance(spec.default, bool):
                if text.lower() not in _SWITCH:
                    raise InvalidInputError(variable, f"{text!r:.40} is not valid; choose from {', '.join(_SWITCH)}")
                given[spec.name] = _SWITCH[text.lower()]
            elif isinstance(spec.default, int):
                given[spec.name] = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text
            else:
                given[spec.name] = text
        try:
            return cls(**given)
        except InvalidInputError as error:
            variables = {spec.name: str(spec.metadata["env"]) for spec in fields(cls)}
            raise InvalidInputError(variables[error.field], error.problem) from None


_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@cache
def _log_memory() -> None:
    """Log once that jobs are in memory because no store was named."""
    log.info(
        "MILEPOST_URL is not set: jobs are kept in the memory of this process, "
        "where `milepost ls` and other processes do not see them"
    )


@lru_cache
def _captures(text: str) -> frozenset[str]:
    names = frozenset(name.strip() for name in text.split(",")) - {"", "none"}
    for name in sorted(names - {"logging", "tqdm", "threads", "stdout"}):
        raise InvalidInputError(
            "capture", f"{name!r:.40} is not valid; choose from logging, tqdm, threads, stdout, none"
        )
    return names


class _LazySettings:
    """The settings of the environment, read when they are first used."""

    _read: Settings | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.current(), name)

    def current(self) -> Settings:
        """Return the settings, read once."""
        if self._read is None:
            self._read = Settings.from_environment()
        return self._read

    def reload(self) -> None:
        """Read the environment again at the next use."""
        self._read = None


settings = _LazySettings()


def state_dir() -> Path:
    """Return the directory for milepost's own files of this user: ``$XDG_STATE_HOME/milepost``."""
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state") / "milepost"
