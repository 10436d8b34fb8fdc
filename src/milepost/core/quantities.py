"""Numbers, counts and sizes as people read them."""

from __future__ import annotations

import math

IRREGULAR = {"child": "children", "person": "people", "index": "indexes"}


def number(value: float) -> str:
    """Return a count with thousands separated: ``10,482``."""
    return f"{int(value):,}" if isinstance(value, int) or value.is_integer() else f"{value:,.1f}"


def whole_percent(fraction: float) -> int:
    """Return a fraction in whole percent, rounded down, so that only a finished job shows 100."""
    return math.floor(min(1.0, max(0.0, fraction)) * 100 + 1e-9)


def plural(count: float, noun: str) -> str:
    """Return a count and its noun: ``1 job``, ``412 jobs``."""
    return f"{number(count)} {pluralize(noun, count)}"


def pluralize(noun: str, count: float) -> str:
    """Return the noun in singular or plural."""
    if count == 1:
        return noun
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "z", "ch", "sh")) else "s")


def size(count: float) -> str:
    """Return bytes in a readable unit: ``812 B``, ``80.1 kB``, ``3.4 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
