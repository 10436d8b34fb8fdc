"""Generate ids of jobs and operations, and nonces of lease tokens."""

from __future__ import annotations

import itertools
import os
import threading
import time
from base64 import urlsafe_b64encode
from binascii import b2a_base64
from collections.abc import Callable, Iterator

_ENOUGH = 1 << 24
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_ASCENDING = bytes.maketrans(_BASE64, bytes(sorted(_BASE64[:62] + b"-_")))
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
        value = (self._time_ns() // 1_000_000 & (1 << 48) - 1) << 80 | int.from_bytes(self._random(10), "big")
        value = value & ~(0xF << 76) | 0x7 << 76
        value = value & ~(0x3 << 62) | 0x2 << 62
        text = f"{value:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def new_operation_id(self) -> str:
        """Return an operation id of 8 characters, by which a repeated request is recognised.

        Four random characters name the source, four count: of two ids from one source the later is greater, by code
        points. The count starts at a random number in its lower half; when it is exhausted, a new source begins.
        """
        while True:
            source, count = used = self._source
            number = next(count)
            if number < _ENOUGH:
                return source + b2a_base64(number.to_bytes(3, "big"), newline=False).translate(_ASCENDING).decode()
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
