"""Parts of Lua as text, for `lua_compiler`."""

from __future__ import annotations

from milepost.core.record_codec import short_name
from milepost.core.transitions.change import Part


def place(table: str, name: str) -> str:
    """Return the place of a field in a table."""
    return f"{table}[{quoted(short_name(name))}]"


def failed_member(words: Part) -> str:
    """Return the call that finds a member of an awaited group in one of these statuses."""
    return f"groups().failed_member(fields, {statuses(words)})"


def statuses(words: Part) -> str:
    """Return statuses, separated by spaces, as Lua text between bars."""
    return quoted("|" + "".join(f"{status}|" for status in str(words).split()))


def boolean(value: bool) -> str:
    """Return a bool."""
    return "true" if value else "false"


def quoted(text: str) -> str:
    """Return a text as a Lua string literal."""
    escaped = (
        text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r").replace("\0", "\\000")
    )
    return f"'{escaped}'"
