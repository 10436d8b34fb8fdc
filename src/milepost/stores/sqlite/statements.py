"""The texts of the SQL statements, one a file of `stores/statements`. Owns how a name gets its namespace; knows no verb."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "statements"
PLAIN = "milepost"
"""The namespace whose tables have no prefix."""


class Statements:
    """The statements of one namespace, read from their files when first asked for."""

    def __init__(self, namespace: str) -> None:
        # SQLite takes Team and team for one name of a table; a mark before each capital tells them apart.
        self._prefix = "" if namespace == PLAIN else re.sub("[A-Z^]", r"^\g<0>", namespace) + ":"
        self._texts: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        text = self._texts.get(name)
        if text is None:
            text = self._texts[name] = re.sub(r"\[(\w+)\]", self._named, _read(name))
        return text

    def _named(self, match: re.Match[str]) -> str:
        return '"' + (self._prefix + match[1]).replace('"', '""') + '"'


@cache
def _read(name: str) -> str:
    """A statement without its comments."""
    text = (FOLDER / f"{name}.sql").read_text(encoding="utf-8")
    return re.sub(r"(?m)^--.*\n?", "", text).strip()
