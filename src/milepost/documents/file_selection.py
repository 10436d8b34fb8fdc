"""Resolve a list of files, folders and globs to documents in a fixed order.

Paths of jobs submitted over HTTP are resolved within a `DocumentRoot`.
"""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import BinaryIO, Final, Protocol

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import single_line
from milepost.documents.document_ids import document_id
from milepost.documents.document_root import DocumentRoot
from milepost.documents.errors import BadDocumentError, printable_name

MAX_KEY_BYTES: Final = 512
_BLOCK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """A file to ingest. `size` is in bytes, 0 if unknown. `folder` is the URI of the ingested folder, or of the file."""

    path: Path
    uri: str
    document_id: str
    size: int
    root: DocumentRoot | None = None
    folder: str = ""

    @contextmanager
    def local_path(self, max_bytes: int) -> Iterator[Path]:
        """Provide a readable path. For a file below a root it is a private copy, which cannot be replaced. Raises
        BadDocumentError.
        """
        if self.root is None:
            yield self.path
            return
        with tempfile.TemporaryDirectory(prefix="milepost-") as folder:
            copy = Path(folder, self.path.name)
            try:
                with self.root.open(self.path, max_bytes) as file, copy.open("xb") as target:
                    before = _state(file.fileno())
                    _copy(file, target, before[1])
                    changed = _state(file.fileno()) != before
            except OSError as error:
                raise BadDocumentError("unreadable", f"{self.path.name}: {error.strerror or error}") from error
            if changed:
                raise BadDocumentError("unreadable", f"{self.path.name} changed while it was being read")
            yield copy


def _copy(source: BinaryIO, target: BinaryIO, left: int) -> None:
    """Copy at most `left` bytes, even if the source grows."""
    while left > 0 and (block := source.read(min(left, _BLOCK))):
        target.write(block)
        left -= len(block)


def _state(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_mtime_ns, status.st_size


@dataclass(frozen=True, slots=True)
class FileSelection:
    """The files in order, the paths that were not found, the number of skipped files, the URIs of the folders, and the
    ids of the files that globs leave out.

    Skipped are hidden files and folders inside a folder, files that globs leave out, and files named twice.
    """

    sources: list[Source]
    missing: list[tuple[str, BadDocumentError]]
    skipped: int
    folders: list[str]
    left_out: set[str]


class FileTree(Protocol):
    """Where paths are resolved: `LocalFiles` or a `DocumentRoot`."""

    def find(self, given: str, missing: list[tuple[str, BadDocumentError]]) -> Iterator[Path]:
        """Yield the files and folders that match a path or glob."""

    def is_folder(self, path: Path) -> bool:
        """Return whether a path is a folder."""

    def files(self, path: Path, missing: list[tuple[str, BadDocumentError]]) -> Iterator[Path | None]:
        """Yield a file, or the files of a folder; None for each skipped one."""

    def uri(self, path: Path) -> str:
        """Return the URI of a file."""

    def size(self, path: Path) -> int:
        """Return the size of a file in bytes, or 0 if it is unknown."""


def select_files(
    paths: Iterable[str | Path],
    *,
    key: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    root: DocumentRoot | None = None,
    owner: str = "",
) -> FileSelection:
    """Return the files that `paths` name.

    A document is identified by its file's URI (links resolved). With `key` it is identified by ``key`` if it is the
    only one, by ``key/relative/path`` in one folder, and by ``key/name/relative/path`` among several, so that documents
    keep their identity when they move. With `root` only files below it are found, and a key must not look like a file
    URI. Of the files in folders, only those that match one of the globs in `include`, if there are any, and none in
    `exclude` are taken: a glob with ``/`` matches the path below the folder, another one the name. The documents belong to
    `owner`, unless it is empty.

    Raises `ValueError` if two files would get the same name, or a path is outside the root.
    """
    if key is not None:
        key = single_line(key)
        if not key or len(key.encode("utf-8", "replace")) > MAX_KEY_BYTES:
            raise InvalidInputError("key", f"{key!r:.80} is not 1 to {MAX_KEY_BYTES} bytes long")
        if root is not None and key.strip().casefold().startswith("file:"):
            raise InvalidInputError("key", "must not begin with file:, which identifies documents by their file")
    tree: FileTree = LocalFiles() if root is None else root
    missing: list[tuple[str, BadDocumentError]] = []
    tops = [top for given in paths for top in _tops(tree, str(given), missing)]
    found: dict[str, Source] = {}
    folders: list[str] = []
    left_out: set[str] = set()
    skipped = 0
    for top in tops:
        folder = tree.uri(top)
        if tree.is_folder(top):
            folders.append(folder)
        prefix = key if key is None or len(tops) == 1 else f"{key.rstrip('/')}/{printable_name(top.name)}"
        for path in tree.files(top, missing):
            if path is None:
                skipped += 1
                continue
            uri = tree.uri(path) if prefix is None else _uri(path, top, prefix)
            if path != top and not _is_wanted(path.relative_to(top), include, exclude):
                left_out.add(document_id(uri, owner))
                skipped += 1
                continue
            if uri not in found:
                found[uri] = Source(path, uri, document_id(uri, owner), tree.size(path), root, folder)
            elif os.path.realpath(found[uri].path) == os.path.realpath(path):
                skipped += 1
            else:
                raise ValueError(f"{path} and {found[uri].path} would both be identified as {uri}; use different keys")
    return FileSelection([found[uri] for uri in sorted(found)], missing, skipped, folders, left_out)


def _tops(tree: FileTree, given: str, missing: list[tuple[str, BadDocumentError]]) -> Iterator[Path]:
    """Yield the files and folders that match a path, except those inside a folder already yielded, because `**` matches
    both.
    """
    if not given:  # for example an unset shell variable: it must not mean the current folder
        missing.append((given, BadDocumentError("not_found", "the path is empty; use . for the current folder")))
        return
    folders: list[str] = []
    for match in tree.find(given, missing):
        if not any(str(match).startswith(folder) for folder in folders):
            if tree.is_folder(match):
                folders.append(os.path.join(match, ""))
            yield match


class LocalFiles:
    """All files of this machine, for callers that may read them."""

    def find(self, given: str, missing: list[tuple[str, BadDocumentError]]) -> Iterator[Path]:
        """Yield the files and folders that match a path or glob."""
        if os.path.lexists(given):
            yield Path(given)
        elif glob.has_magic(given):
            matches = sorted(glob.glob(given, recursive=True))
            if not matches:
                missing.append((printable_name(given), BadDocumentError("not_found", f"nothing matches {given}")))
            yield from map(Path, matches)
        else:
            missing.append((printable_name(given), BadDocumentError("not_found", f"{given} does not exist")))

    def is_folder(self, path: Path) -> bool:
        """Return whether a path is a folder or a link to one."""
        return path.is_dir()

    def files(self, path: Path, missing: list[tuple[str, BadDocumentError]]) -> Iterator[Path | None]:
        """Yield a file, or the files of a folder in order; None for each hidden one."""
        if not path.is_dir():
            yield path
            return

        def unreadable(error: OSError) -> None:
            name = str(error.filename or path)
            missing.append((printable_name(name), BadDocumentError("unreadable", f"{name}: {error.strerror or error}")))

        for folder, folders, files in os.walk(path, onerror=unreadable):
            hidden = [name for name in folders + files if name.startswith(".")]
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield from (None for _ in hidden)
            for name in sorted(files):
                if not name.startswith("."):
                    yield Path(folder, name)

    def uri(self, path: Path) -> str:
        """Return the URI of a file with links resolved; a dangling link keeps its own."""
        real = os.path.realpath(path)
        return Path(real if os.path.exists(real) else os.path.abspath(path)).as_uri()

    def size(self, path: Path) -> int:
        """Return the size of a file in bytes, or 0 if it is unknown."""
        try:
            return path.stat().st_size
        except OSError:
            return 0


def _is_wanted(path: PurePath, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Return whether a path below a folder matches one of the globs in `include`, and none in `exclude`."""

    def matches(pattern: str) -> bool:
        return fnmatchcase(path.as_posix() if "/" in pattern else path.name, pattern)

    return (not include or any(map(matches, include))) and not any(map(matches, exclude))


def _uri(path: Path, top: Path, key: str) -> str:
    if path == top:
        return key
    return f"{key.rstrip('/')}/{printable_name(path.relative_to(top).as_posix())}"
