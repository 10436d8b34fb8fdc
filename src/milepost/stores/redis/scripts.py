"""The Lua files, and in which form each is sent. Owns the preludes and the flags; sends nothing.

A script whose `grows` is true has no flags: a server that is out of memory refuses it before it has written anything.
The others may run then, so that a job can still be finished, cancelled and renewed.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple

READS = "no-writes"
ALLOWED = "allow-oom"


class Script(NamedTuple):
    """A script and the name by which a server knows it."""

    name: str
    sha: bytes
    source: bytes
    writes: bool


MOVING = frozenset({"apply", "sweep", "purge", "set_limit", "nudge"})
READING = frozenset({"get", "events", "select", "count", "stoppings", "now", "shelf_get", "shelf_scan"})


@cache
def script(name: str, *, grows: bool = False) -> Script:
    """The script of a verb."""
    flags = "" if grows else f" flags={READS if name in READING else ALLOWED}"
    parts = ["record", "indexes", name] if name in MOVING else ["record", name]
    folder = files("milepost.stores") / "statements"
    source = f"#!lua{flags}\n" + "".join((folder / f"{part}.lua").read_text("utf-8") for part in parts)
    return Script(name, sha1(source.encode()).hexdigest().encode(), source.encode(), name not in READING)
