"""What a run spends: the amounts of earlier runs of its job, and what it adds. The heartbeat reports the sum.

The report has the whole sum, and only a run under its lease may write it, so a repeated request counts nothing twice.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from milepost.core.errors import InvalidInputError
from milepost.core.usage import MAX_NAMES, decode_millionths, encode_usage


class Usage:
    """The usage of a job as its current run knows it, in millionths. Thread-safe."""

    def __init__(self, record: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._spent = decode_millionths(record.get("usage"))

    def add(self, amounts: Mapping[str, int]) -> dict[str, int]:
        """Add amounts and return the sums. Raises InvalidInputError if these have too many names."""
        with self._lock:
            spent = {**self._spent, **{name: self._spent.get(name, 0) + n for name, n in amounts.items()}}
            if len(spent) > MAX_NAMES:
                raise InvalidInputError("add_usage", f"{len(spent)} names, the limit of a job is {MAX_NAMES}")
            self._spent = spent
        return spent

    def text(self) -> str:
        """Return the stored form."""
        return encode_usage(self._spent)
