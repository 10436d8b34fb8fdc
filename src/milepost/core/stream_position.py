"""A position in the event stream of one job, from which a watcher resumes.

It names a version and the creation time of the job, because the versions of a job with a reused id start again.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

from milepost.core.errors import InvalidInputError
from milepost.core.job import Job
from milepost.core.serialization import to_micros

PATTERN = r"^[0-9]{1,16}(-[0-9a-z]{1,12})?$"
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class StreamPosition(NamedTuple):
    """The last version seen, and of which job. `born` is None if only the version is known."""

    version: int
    born: str | None = None

    @classmethod
    def of(cls, job: Job, version: int) -> StreamPosition:
        """Return the position after the given version of this job."""
        return cls(version, born(job.created_at))

    @classmethod
    def read(cls, text: str | int) -> StreamPosition:
        """Return the position that a text names. Raises InvalidInputError."""
        if isinstance(text, bool) or not isinstance(text, (int, str)) or not re.fullmatch(PATTERN, str(text)):
            raise InvalidInputError(
                "after", f"{text!r:.60} is not a stream position; use a version (3) or the `position` of an event"
            )
        version, _, creation = str(text).partition("-")
        return cls(int(version), creation or None)

    def seen_of(self, job: Job) -> int | None:
        """Return the last version of this job that was seen, or None if the position is of another job or ahead of it."""
        if self.version > job.version or self.born not in (None, born(job.created_at)):
            return None
        return self.version

    def __str__(self) -> str:
        return str(self.version) if self.born is None else f"{self.version}-{self.born}"


def born(created_at: datetime) -> str:
    """Return the creation time of a job in microseconds, in base 36."""
    number, text = to_micros(created_at, "created_at"), ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text or "0"
