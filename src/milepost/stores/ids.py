"""Generate ids of jobs and operations, and nonces of lease tokens."""

from __future__ import annotations

import itertools
import os
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator

_ENOUGH = 1 << 24
_ASCENDING = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_PAIRS = [first + second for first in _ASCENDING for second in _ASCENDING]
"""The numbers below 4,096 as two characters."""
_VARIANTS = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}
"""The random digit of a UUID whose upper two bits are its variant."""
_NONCES_AT_ONCE = 64


class Ids:
    """A thread-safe generator of ids.

    `random` returns a number of random bytes, `time_ns` nanoseconds since 1970; a test passes its own to get the same ids
    again.
    """

    def __init__(self, random: Callable[[int], bytes] = os.urandom, time_ns: Callable[[], int] = time.time_ns) -> None:
        self._random = random
        self._time_ns = time_ns
        self.restart()

    def restart(self) -> None:
        """Discard what was generated in advance, so that a forked process does not repeat the ids of its parent."""
        self._lock = threading.Lock()
        self._nonces: list[str] = []  # in advance, because one system call per nonce would dominate the cost
        self._source = self._new_source()

    def _new_source(self) -> tuple[str, Iterator[int]]:
        start = int.from_bytes(self._random(3), "big") >> 1
        return urlsafe_b64encode(self._random(3)).decode(), itertools.count(start)

    def new_job_id(self) -> str:
        """Return a UUIDv7 (RFC 9562): 48 bits of milliseconds, then random bits, so that ids sort by creation time."""
        stamp, noise = f"{self._time_ns() // 1_000_000:012x}", self._random(10).hex()
        return f"{stamp[-12:-4]}-{stamp[-4:]}-7{noise[1:4]}-{_VARIANTS[noise[4]]}{noise[5:8]}-{noise[8:]}"

    def new_operation_id(self) -> str:
        """Return an operation id of 8 characters, by which a repeated request is recognised.

        Four random characters name the source, four count: of two ids from one source the later is greater, by code
        points. The count starts at a random number in its lower half; when it is exhausted, a new source begins.
        """
        while True:
            source, count = used = self._source
            number = next(count)
            if number < _ENOUGH:
                return source + _PAIRS[number >> 12] + _PAIRS[number & 4095]
            with self._lock:
                if self._source is used:  # else another thread has replaced it
                    self._source = self._new_source()

    def new_nonce(self) -> str:
        """Return the random part of a lease token, 11 characters (66 random bits)."""
        while True:
            try:
                return self._nonces.pop()
            except IndexError:
                text = urlsafe_b64encode(self._random(9 * _NONCES_AT_ONCE)).decode()
                self._nonces.extend(text[start : start + 11] for start in range(0, 12 * _NONCES_AT_ONCE, 12))


SYSTEM_IDS = Ids()
"""The generator of this process."""
new_job_id = SYSTEM_IDS.new_job_id
new_operation_id = SYSTEM_IDS.new_operation_id
new_nonce = SYSTEM_IDS.new_nonce
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SYSTEM_IDS.restart)
