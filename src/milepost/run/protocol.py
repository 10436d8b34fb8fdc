"""The interfaces between a run and milepost's own code: what it uses of a run, and how a run writes checkpoints."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from milepost.core.errors import RunStop

if TYPE_CHECKING:
    from milepost.run.run import Run


class ForecastRun(Protocol):
    """The part of a run that a forecast uses, besides its reports."""

    job_type: str

    @property
    def resumed(self) -> bool:
        """Return whether it continues where an earlier attempt ended."""

    @property
    def planned(self) -> bool:
        """Return whether all its stages were named in advance."""


class RunProtocol(ForecastRun, Protocol):
    """A Run of this process, or the stand-in for the run of a child process."""

    job_id: str
    token: str
    attempt: int
    checkpoint_at: str | None
    recent_log: deque[str]
    _secret_values: tuple[str, ...]
    _redact: Callable[[str], str] | None
    _forecast: Mapping[str, str]
    _stop_reasons: list[RunStop]
    _on_stop: Callable[[RunStop], None] | None

    @property
    def stage_name(self) -> str | None:
        """Return the innermost open stage."""

    @property
    def last_item(self) -> str | None:
        """Return the key of the last finished item."""

    def report(self) -> dict[str, str]:
        """Return the report of the run as fields of the record."""

    def take_lines(self) -> str | None:
        """Return the log lines since the last call, as JSON."""

    def _take_parts(self, *, at_end: bool = False) -> list[tuple[str, str]]:
        """Return the parts of kept results since the last call, each with its key.

        At the end of a run there are no new parts: the latest results are sent with the last report.
        """

    def stop(self, reason: RunStop) -> None:
        """Tell the code to stop."""


class CheckpointWriter(Protocol):
    """Writes the checkpoints of a run, and reads the results that earlier attempts kept."""

    def checkpoint(self, run: Run, text: str) -> None:
        """Write a checkpoint and return when the store has it. Raises a RunStop if the run may not write any more."""

    async def acheckpoint(self, run: Run, text: str) -> None:
        """Write a checkpoint without blocking the event loop."""

    def read(self, run: Run, key: str) -> str | None:
        """Return the part of kept results that has a key, or None if it does not exist."""

    async def aread(self, run: Run, key: str) -> str | None:
        """Return the part of kept results that has a key without blocking the event loop."""
