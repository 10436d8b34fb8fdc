"""Read the named sections of SQL and Lua files.

A line `-- name: claim_next` begins a section, which ends at the next such line or with the file. Comments above the first
one describe the file. A line `--@list_filters` stands for the section of that name.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_NAME_LINE = re.compile(r"(--[ \t]*[Nn]ame[ \t]*:.*)\n?")  # misspelt and misplaced ones, too, which are refused
_NAME = re.compile(r"-- name: ([a-z][a-z0-9_]*)[ \t]*")
_INSERTION = re.compile(r"(?m)^[ \t]*--@(\w+)[ \t]*\n")
_CODE = re.compile(r"(?m)^(?!--)[ \t]*\S")


def section(folder: Path, name: str) -> str:
    """Return a section of the files in a folder, with its comments and insertions.

    Raises LookupError if there is no section of this name.
    """
    found = _sections(folder).get(name)
    if found is None:
        raise LookupError(f"no section {name!r} in {folder}; begin it with the line '-- name: {name}'")
    return _INSERTION.sub(lambda line: section(folder, line[1]), found) if "--@" in found else found


@cache
def _sections(folder: Path) -> dict[str, str]:
    """Return name -> text of all sections. All files are read at once, so that a name is unique in the folder."""
    texts: dict[str, str] = {}
    places: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".sql", ".lua"):
            continue
        head, *parts = _NAME_LINE.split(path.read_text(encoding="utf-8"))
        if _CODE.search(head):
            raise ValueError(f"{path}: text before the first name; begin each section with a line '-- name: NAME'")
        before = head
        for line, text in zip(parts[::2], parts[1::2], strict=True):
            match = _NAME.fullmatch(line)
            if match is None or before[-1:] not in ("", "\n"):
                raise ValueError(f"{path}: {line!r} is not a valid name line; write '-- name: claim_next'")
            name, before = match[1], text
            if name in places:
                raise ValueError(f"{path}: the name {name!r} is also in {places[name]}; rename one of them")
            if not _CODE.search(text):
                raise ValueError(f"{path}: the section {name!r} is empty; write it or remove its name")
            texts[name], places[name] = text.strip("\n") + "\n", path.name
    return texts
