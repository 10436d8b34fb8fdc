"""Generate ids of jobs and operations, and nonces of lease tokens."""

from __future__ import annotations

import itertools
import os
import threading
import time
from base64 import urlsafe_b64encode
from binascii import b2a_base64
from collections.abc import Iterator


def new_job_id() -> str:
    """Return a UUIDv7 (RFC 9562): 48 bits of milliseconds, then random bits, so that ids sort by creation time."""
    value = (time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_operation_id() -> str:
    """Return an operation id of 8 characters, by which a repeated request is recognised.

    Four random characters name the source, four count: of two ids from one source the later is greater, by code points.
    The count starts at a random number in its lower half; when it is exhausted, a new source begins.
    """
    while True:
        source, count = _source[0]
        number = next(count)
        if number < _ENOUGH:
            return source + b2a_base64(number.to_bytes(3, "big"), newline=False).translate(_ASCENDING).decode()
        _begin_ops(source)


def new_nonce() -> str:
    """Return the random part of a lease token, 11 characters (66 random bits)."""
    while True:
        try:
            return _nonces.pop()
        except IndexError:
            text = urlsafe_b64encode(os.urandom(9 * _NONCES_AT_ONCE)).decode()
            _nonces.extend(text[start : start + 11] for start in range(0, 12 * _NONCES_AT_ONCE, 12))


_ENOUGH = 1 << 24
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_ASCENDING = bytes.maketrans(_BASE64, bytes(sorted(_BASE64[:62] + b"-_")))
_NONCES_AT_ONCE = 64
_nonces: list[str] = []
"""Generated in advance, because one system call per nonce would dominate the cost."""
_lock = threading.Lock()
_source: list[tuple[str, Iterator[int]]] = []


def _begin_ops(used: str | None = None) -> None:
    """Start a new source of operation ids, unless another thread already replaced `used`."""
    with _lock:
        if not _source or used is None or _source[0][0] == used:
            start = int.from_bytes(os.urandom(3), "big") >> 1
            _source[:] = [(urlsafe_b64encode(os.urandom(3)).decode(), itertools.count(start))]


def _begin_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    _nonces.clear()
    _begin_ops()


_begin_ops()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)  # parent and child must not generate the same ids
