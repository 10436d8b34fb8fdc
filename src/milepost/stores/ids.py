"""Fresh ids: of jobs, of operations, of tokens. Owns the only randomness of the package; knows no store."""

from __future__ import annotations

import os
import time
from base64 import urlsafe_b64encode


def new_job_id() -> str:
    """A UUIDv7 (RFC 9562): 48 bits of milliseconds, then random bits, so that ids sort by their time of creation."""
    value = (time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_op() -> str:
    """An operation id, 8 characters (48 random bits): what makes a repeated request known as such."""
    try:
        return _ops.pop()
    except IndexError:
        text = urlsafe_b64encode(os.urandom(6 * _AT_ONCE)).decode()
        _ops.extend(text[start : start + 8] for start in range(0, 8 * _AT_ONCE, 8))
        return _ops.pop()


def new_nonce() -> str:
    """The random part of a lease's token, 11 characters (66 random bits)."""
    return new_op() + new_op()[:3]


_AT_ONCE = 64
_ops: list[str] = []
"""Random texts made beforehand: asking the system for each costs more than all else of an id."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ops.clear)  # two processes must not hand out the same
