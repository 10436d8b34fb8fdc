"""Rules for entities: names with labels and aliases, patterns, and names to ignore. They win over the model."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from milepost.core.errors import InvalidInputError
from milepost.documents.extract import clean, fold

_FIELDS: Final = {"entity": {"name", "label", "aliases"}, "pattern": {"regex", "label"}}
_EXAMPLES: Final = {"aliases": 'aliases = ["GCC", "gcc"]', "ignore": "ignore = ['Section [0-9.]+']"}
_MAX_FILE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Span:
    """A match of a rule in a text: its offsets, name and label."""

    start: int
    stop: int
    name: str
    label: str


class EntityRules:
    """Rules from a TOML file; without one there are none. `version` identifies them."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.version = ""
        self._known: dict[str, tuple[str, str]] = {}
        self._names: re.Pattern[str] | None = None
        self._patterns: list[tuple[re.Pattern[str], str]] = []
        self._ignored: list[re.Pattern[str]] = []
        if path is not None:
            self._read(Path(path))

    def find(self, text: str) -> Iterator[Span]:
        """Yield the names in a text, then the matches of patterns that overlap none before. Names are case-sensitive."""
        taken: list[Span] = []
        for match in self._names.finditer(text) if self._names is not None else ():
            name, label = self._known[fold(match[0])]
            taken.append(Span(match.start(), match.end(), name, label))
        for pattern, label in self._patterns:
            for match in pattern.finditer(text):
                found = clean(match[0])
                is_free = all(match.end() <= span.start or span.stop <= match.start() for span in taken)
                if found is not None and is_free and not self._is_ignored(found):
                    taken.append(Span(match.start(), match.end(), found, label))
        yield from sorted(taken, key=lambda span: span.start)

    def resolve(self, name: str, label: str) -> tuple[str, str] | None:
        """Return the name and label of what a model has found, or None for a name to ignore."""
        if self._is_ignored(name):
            return None
        return self._known.get(fold(name), (name, label))

    def _is_ignored(self, name: str) -> bool:
        return any(pattern.fullmatch(name) for pattern in self._ignored)

    def _read(self, path: Path) -> None:
        content, rules = _loaded(path)
        self.version = hashlib.sha256(content).hexdigest()[:12]
        for key in rules:
            if key not in (*_FIELDS, "ignore"):
                raise InvalidInputError("rules", f"{path}: unknown key {key!r}; use entity, pattern or ignore")
        spellings: dict[str, None] = {}
        for entry in _tables(path, rules, "entity"):
            for spelling in (entry["name"], *_texts(path, entry, "aliases")):
                self._known[fold(spelling)] = (entry["name"], entry["label"])
                spellings[spelling] = None
        if spellings:
            longest_first = sorted(spellings, key=lambda spelling: (-len(spelling), spelling))
            self._names = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
        for entry in _tables(path, rules, "pattern"):
            self._patterns.append((_compiled(path, entry["regex"]), entry["label"]))
        self._ignored = [_compiled(path, expression) for expression in _texts(path, rules, "ignore")]


def _loaded(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Return the content of a TOML file as bytes and as a table."""
    try:
        content = path.read_bytes()
        rules = tomllib.loads(content.decode()) if len(content) <= _MAX_FILE_BYTES else {}
    except (OSError, ValueError) as error:
        raise InvalidInputError("rules", f"{path} cannot be read as TOML: {error}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise InvalidInputError("rules", f"{path} has {len(content):,} bytes; {_MAX_FILE_BYTES:,} are allowed")
    return content, rules


def _texts(path: Path, table: dict[str, Any], field: str) -> list[str]:
    """Return the texts of a field, none if it is missing. Raises InvalidInputError for anything but a list of them."""
    texts: list[str] = table.get(field, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        of = f" of {table['name']!r}" if "name" in table else ""
        raise InvalidInputError("rules", f"{path}: {field}{of} must be a list of texts, e.g. {_EXAMPLES[field]}")
    return texts


def _tables(path: Path, rules: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """Return the tables of a kind. Raises InvalidInputError for one with other fields."""
    tables: list[dict[str, Any]] = rules.get(kind, [])
    if not isinstance(tables, list):
        raise InvalidInputError("rules", f"{path}: {kind} must be tables that begin with [[{kind}]]")
    for number, entry in enumerate(tables, 1):
        required = _FIELDS[kind] - {"aliases"}
        is_text = isinstance(entry, dict) and all(isinstance(entry.get(name), str) and entry[name] for name in required)
        if not is_text or not set(entry) <= _FIELDS[kind]:
            fields = ", ".join(sorted(_FIELDS[kind]))
            raise InvalidInputError("rules", f"{path}: {kind} {number} must have the texts {fields}")
    return tables


def _compiled(path: Path, expression: str) -> re.Pattern[str]:
    try:
        return re.compile(expression)
    except re.error as error:
        raise InvalidInputError("rules", f"{path}: {expression!r:.80} is not a regular expression: {error}") from error
