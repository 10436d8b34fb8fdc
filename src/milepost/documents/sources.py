"""Which files a list of paths means: files, folders and globs become sources in a fixed order.

Owns the names of documents. Reads folders and no file.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from milepost.documents.errors import BadDocument, readable
from milepost.documents.identity import document_id


@dataclass(frozen=True, slots=True)
class Source:
    """A file that is to become a document; `size` is in bytes, 0 when it cannot be told."""

    path: Path
    uri: str
    document_id: str
    size: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The sources in order, what was asked for and is not there, and how many files were passed over.

    Passed over are hidden files and folders inside a folder, and files that are named twice.
    """

    sources: list[Source]
    missing: list[tuple[str, BadDocument]]
    skipped: int


def plan(paths: Iterable[str | Path], *, key: str | None = None) -> Plan:
    """Find the files that `paths` mean.

    A document is named by its file's URI (links resolved). With `key` it is named by
    ``key`` if it is all there is, by ``key/relative/path`` in one folder, and by
    ``key/name/relative/path`` among several, so that the same documents are known
    again in another place. Raises `ValueError` when two files would have one name.
    """
    missing: list[tuple[str, BadDocument]] = []
    roots = [root for given in paths for root in _roots(str(given), missing)]
    found: dict[str, Source] = {}
    skipped = 0
    for root in roots:
        prefix = key if key is None or len(roots) == 1 else f"{key.rstrip('/')}/{readable(root.name)}"
        for path in _files(root, missing):
            if path is None:
                skipped += 1
                continue
            uri = _uri(path, root, prefix)
            if uri not in found:
                found[uri] = Source(path, uri, document_id(uri), _size(path))
            elif os.path.realpath(found[uri].path) == os.path.realpath(path):
                skipped += 1
            else:
                raise ValueError(f"{path} and {found[uri].path} would both be named {uri}; use other keys")
    return Plan([found[uri] for uri in sorted(found)], missing, skipped)


def _roots(given: str, missing: list[tuple[str, BadDocument]]) -> Iterator[Path]:
    path = Path(given)
    if not given:  # such as a variable of a shell that is not set: it must not mean this folder
        missing.append((given, BadDocument("not_found", "an empty path names nothing; this folder is .")))
    elif os.path.lexists(path):
        yield path
    elif glob.has_magic(given):
        matches = sorted(glob.glob(given, recursive=True))
        if not matches:
            missing.append((readable(given), BadDocument("not_found", f"nothing matches {given}")))
        seen: list[str] = []
        for match in matches:
            if not any(match.startswith(folder) for folder in seen):  # `**` gives a folder and what is in it
                if os.path.isdir(match):
                    seen.append(os.path.join(match, ""))
                yield Path(match)
    else:
        missing.append((readable(given), BadDocument("not_found", f"{given} does not exist")))


def _files(root: Path, missing: list[tuple[str, BadDocument]]) -> Iterator[Path | None]:
    """Yield the files of a root, and None for each that is passed over."""
    if not root.is_dir():
        yield root
        return

    def unreadable(error: OSError) -> None:
        name = str(error.filename or root)
        missing.append((readable(name), BadDocument("unreadable", f"{name}: {error.strerror or error}")))

    for folder, folders, files in os.walk(root, onerror=unreadable):
        hidden = [name for name in folders + files if name.startswith(".")]
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (None for _ in hidden)
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(folder, name)


def _uri(path: Path, root: Path, key: str | None) -> str:
    if key is None:
        real = os.path.realpath(path)
        return Path(real if os.path.exists(real) else os.path.abspath(path)).as_uri()  # a dangling link is itself
    if path == root:
        return key
    return f"{key.rstrip('/')}/{readable(path.relative_to(root).as_posix())}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
