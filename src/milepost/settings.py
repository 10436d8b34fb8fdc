"""The environment as Settings: names, defaults and units in one place. Knows nothing else.

`settings` reads the environment when it is first looked at.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from milepost.core import defaults
from milepost.core.encoding import seconds
from milepost.core.errors import InvalidInput


def _setting(env: str, default: Any, doc: str) -> Any:
    return field(default=default, metadata={"env": env, "doc": doc})


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says. Durations are in seconds; the variables also take text such as ``2h``."""

    url: str | None = _setting(
        "MILEPOST_URL", None, "Where jobs live: sqlite:///jobs.db, redis://host, memory://, http://server"
    )
    redis_url: str | None = _setting("REDIS_URL", None, "Redis, used when MILEPOST_URL is not set")
    namespace: str = _setting("MILEPOST_NAMESPACE", "milepost", "What keeps several applications apart in one store")
    job_ttl: float = _setting("JOB_TTL", defaults.JOB_TTL, "How long a job is kept after its end")
    lease: float = _setting("MILEPOST_LEASE", defaults.LEASE, "How long a silent run keeps its job")
    pulse: float = _setting(
        "MILEPOST_PULSE", defaults.PULSE, "How often progress is flushed and cancels are looked for"
    )
    sweep: float = _setting("MILEPOST_SWEEP", defaults.SWEEP, "How often lost, expired and overdue jobs are looked for")
    grace: float = _setting("MILEPOST_GRACE", defaults.GRACE, "How long code may take to stop before it is killed")
    stalled: float = _setting(
        "MILEPOST_STALLED", defaults.STALLED, "The least time without progress after which a run is called stalled"
    )
    auth: str | None = _setting("MILEPOST_AUTH", None, "Access to the module router: none or keys")
    strict: bool = _setting("MILEPOST_STRICT", False, "Refuse to start on a store that is unfit")
    capture: str = _setting(
        "MILEPOST_CAPTURE", "tqdm,logging", "What of a run's code is captured: tqdm, logging, stdout, or none"
    )
    redact: str | None = _setting(
        "MILEPOST_REDACT", None, "A function, module:name, that log lines, captured bars and errors pass: str to str"
    )

    def __post_init__(self) -> None:
        _captures(self.capture)
        if self.redact is not None and not all(self.redact.partition(":")[::2]):
            raise InvalidInput("MILEPOST_REDACT", f"{self.redact!r:.80} is not of the form module:function")
        for spec in fields(self):
            if spec.name in ("lease", "pulse", "sweep", "grace", "stalled") and getattr(self, spec.name) <= 0:
                raise InvalidInput(spec.metadata["env"], "must be more than 0 seconds")
        if self.pulse * 2 > self.lease:
            raise InvalidInput(
                "MILEPOST_PULSE", f"{self.pulse} s is too long for a lease of {self.lease} s; at most half of it"
            )

    @property
    def sweep_interval(self) -> float:
        """Seconds between sweeps: never more than a quarter of the lease."""
        return min(self.sweep, self.lease / 4)

    @property
    def captures(self) -> frozenset[str]:
        """What of a run's code is captured."""
        return _captures(self.capture)

    @property
    def lease_micros(self) -> int:
        """The lease in microseconds."""
        return int(self.lease * 1_000_000)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the variables. Raises InvalidInput that names the one that cannot be read."""
        environment = os.environ if environment is None else environment
        given: dict[str, Any] = {}
        for spec in fields(cls):
            variable = spec.metadata["env"]
            text = environment.get(variable, "").strip()
            if not text:
                continue
            if isinstance(spec.default, bool):
                if text.lower() not in _SWITCH:
                    raise InvalidInput(variable, f"{text!r:.40} is none of {', '.join(_SWITCH)}")
                given[spec.name] = _SWITCH[text.lower()]
            elif isinstance(spec.default, float):
                given[spec.name] = seconds(text, variable)
            else:
                given[spec.name] = text
        return cls(**given)


_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@lru_cache
def _captures(text: str) -> frozenset[str]:
    names = frozenset(name.strip() for name in text.split(",")) - {"", "none"}
    for name in sorted(names - {"tqdm", "logging", "stdout"}):
        raise InvalidInput("MILEPOST_CAPTURE", f"{name!r:.40} is none of tqdm, logging, stdout, none")
    return names


class _AtFirstUse:
    """Stands for the Settings of the environment and reads them when first looked at."""

    _read: Settings | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.current(), name)

    def current(self) -> Settings:
        """The settings, read once."""
        if self._read is None:
            self._read = Settings.from_environment()
        return self._read

    def forget(self) -> None:
        """Read the environment again at the next use."""
        self._read = None


settings = _AtFirstUse()
