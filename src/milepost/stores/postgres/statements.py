"""The named statements of one namespace, which is a schema of the database."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from milepost.stores.named_sections import section

FOLDER = Path(__file__).parent / "sql"


class Statements:
    """The statements of a schema by name, with the schema in place of the [brackets]; read at the first use."""

    def __init__(self, schema: str) -> None:
        self._schema = '"' + schema.replace('"', '""') + '"'
        self._texts: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        text = self._texts.get(name)
        if text is None:
            text = self._texts[name] = self._in_schema(_statement(name))
        return text

    def with_comments(self, name: str) -> str:
        """Return a statement as it is in its file, for people."""
        return self._in_schema(section(FOLDER, name))

    def _in_schema(self, text: str) -> str:
        return re.sub(r"\[([a-z_]+)\]", self._named, text)

    def _named(self, match: re.Match[str]) -> str:
        return self._schema if match[1] == "schema" else f'{self._schema}."{match[1]}"'


@cache
def _statement(name: str) -> str:
    """Return a statement without its comments."""
    return re.sub(r"(?m)^[ \t]*--.*\n?", "", section(FOLDER, name)).strip()
