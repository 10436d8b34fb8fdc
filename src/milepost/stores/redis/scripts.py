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


PRELUDES = {
    "renew": ("leases",),
    **dict.fromkeys(("sweep", "purge", "set_limit", "nudge"), ("indexes",)),
}
"""What stands before a script beside `record`."""
READING = frozenset({"get", "events", "select", "count", "stoppings", "now", "shelf_get", "shelf_scan"})


@cache
def script(name: str, *, grows: bool = False) -> Script:
    """The script of a verb; `grows`: a full server is to refuse it."""
    flags = "" if grows else READS if name in READING else ALLOWED
    parts = ["record", *PRELUDES.get(name, ()), name]
    return _script(name, flags, "".join(map(_text, parts)), writes=name not in READING)


def script_of_cases(head: str, cases: str, *, grows: bool) -> Script:
    """The script that applies changes of one shape: `head` and `cases` are Lua, see `shapes`."""
    body = _text("apply").replace("    --@cases\n", cases, 1)
    return _script(
        "apply",
        "" if grows else ALLOWED,
        _text("record") + _text("leases") + _text("indexes") + head + body,
        writes=True,
    )


def _script(name: str, flags: str, text: str, *, writes: bool) -> Script:
    source = f"#!lua{' flags=' if flags else ''}{flags}\n{text}".encode()
    return Script(name, sha1(source).hexdigest().encode(), source, writes)


@cache
def _text(name: str) -> str:
    return (files("milepost.stores") / "statements" / f"{name}.lua").read_text("utf-8")
