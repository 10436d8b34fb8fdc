"""Assemble the Lua scripts from their sections: preludes, then the script itself.

A script that `grows` the data has no flags, so a server without memory refuses it before it writes anything. The others
are allowed to run then, so that jobs can still be finished, cancelled and renewed.
"""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import NamedTuple

from milepost.stores.named_sections import section

FOLDER = Path(__file__).parent / "lua"

READS = "no-writes"
ALLOWED = "allow-oom"


class Script(NamedTuple):
    """A script with the hash by which a server knows it."""

    name: str
    sha: bytes
    source: bytes
    writes: bool


PRELUDES = {
    "renew": ("leases",),
    "sweep": ("groups", "announce", "indexes", "close_minutes"),
    **dict.fromkeys(("purge", "set_limit", "close_gate", "wake"), ("groups", "announce", "indexes")),
}
"""script -> its preludes besides `record`."""
READING = frozenset(
    {
        "get",
        "events",
        "select",
        "oldest",
        "count",
        "member_counts",
        "draining_leases",
        "now",
        "rollups",
        "usage",
        "kv_get",
        "kv_scan",
    }
)


@cache
def script(name: str, *, grows: bool = False) -> Script:
    """Return the script of a name; with `grows` a full server refuses it."""
    flags = "" if grows else READS if name in READING else ALLOWED
    parts = ["clock", "record", *PRELUDES.get(name, ()), name]
    return _script(name, flags, "".join(map(_text, parts)), writes=name not in READING)


def transition_script(first: str, head: str, straight: str, branches: str, *, grows: bool, is_asked: bool) -> Script:
    """Return the script that applies changes; the texts are Lua from `lua_compiler`."""
    body = _text("apply").replace("    --STRAIGHT\n", straight, 1).replace("    --BRANCHES\n", branches, 1)
    # Each function costs when it is created, so the first part creates only what it calls.
    sections = {"run_writes": r"is_superseded|keep_event", "announce": r"announce\("}
    before = {name for name, calls in sections.items() if re.search(calls, first)}
    return _script(
        "apply",
        "" if grows else ALLOWED,
        _text("clock")
        + "".join(map(_text, sorted(before)))
        + first
        + "".join(map(_text, sorted(sections.keys() - before)))
        + _text("record")
        + _text("leases")
        + _text("groups")
        + _text("indexes")
        + (_text("operation_ids") if is_asked else "")
        + head
        + body,
        writes=True,
    )


def _script(name: str, flags: str, text: str, *, writes: bool) -> Script:
    source = f"#!lua{' flags=' if flags else ''}{flags}\n{text}".encode()
    return Script(name, sha1(source).hexdigest().encode(), source, writes)


def _text(name: str) -> str:
    return section(FOLDER, name)
