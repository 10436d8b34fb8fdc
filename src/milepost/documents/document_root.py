"""The folder that submitted jobs may read. Paths cannot leave it, links are not followed, and hidden files are
excluded.

Each part of a path is opened relative to the folder before it, without following links. A folder that is replaced by a
link between a check and its use therefore gives access to nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from glob import has_magic
from pathlib import Path
from typing import BinaryIO, Final

from milepost.core.errors import InvalidInputError
from milepost.documents.errors import BadDocumentError, printable_name
from milepost.documents.file_types import checked_file

Parts = tuple[str, ...]
MissingPaths = list[tuple[str, BadDocumentError]]

MAX_PATH_BYTES: Final = 4096
MAX_FILES_CHECKED: Final = 100_000
"""Maximum number of files and folders that one job's globs and folders may examine."""
_FLAGS: Final = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
_LINK: Final = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EMLINK})


class DocumentRoot:
    """A folder for untrusted paths, or the folder of an owner in it. Raises InvalidInputError if it does not exist."""

    def __init__(self, folder: str | Path, owner: str = "") -> None:
        if os.open not in os.supports_dir_fd or not hasattr(os, "O_NOFOLLOW"):
            raise InvalidInputError(
                "paths", "not supported for submitted jobs on this system; submit them to a worker on Linux"
            )
        self._given = Path(os.path.abspath(os.path.expanduser(folder)))
        self.path = Path(os.path.realpath(self._given))
        self._files_checked = 0
        if not self.path.is_dir():
            raise InvalidInputError("MILEPOST_DOCUMENTS_ROOT", "is not a folder on this worker")
        if owner:
            if "/" in owner or owner[0] == "." or (mode := self._mode((owner,))) is None or not stat.S_ISDIR(mode):
                raise InvalidInputError(
                    "paths",
                    f"the owner {owner!r:.100} has no folder of this name on this worker; its operator must create it "
                    "in MILEPOST_DOCUMENTS_ROOT",
                )
            self._given, self.path = self._given / owner, self.path / owner

    def find(self, given: str, missing: MissingPaths) -> Iterator[Path]:
        """Yield the files and folders that match a path or glob. Raises InvalidInputError for a path outside the root."""
        parts = self._parts(given)
        if self._mode(parts) is not None:
            yield self._path(parts)
        elif has_magic(given):
            matches = sorted(set(self._matches(parts)))
            if not matches:
                missing.append((printable_name(given), BadDocumentError("not_found", f"nothing matches {given}")))
            yield from map(self._path, matches)
        else:
            missing.append((printable_name(given), BadDocumentError("not_found", f"{given} does not exist")))

    def is_folder(self, path: Path) -> bool:
        """Return whether a path is a folder, not a link to one."""
        mode = self._mode(self._below(path))
        return mode is not None and stat.S_ISDIR(mode)

    def files(self, path: Path, missing: MissingPaths) -> Iterator[Path | None]:
        """Yield a file, or the files of a folder in order; None for each hidden one."""
        if not self.is_folder(path):
            yield path
            return
        pending = [self._below(path)]
        while pending:
            folder = pending.pop()
            try:
                names = self._names(folder)
            except OSError as error:
                name = str(self._path(folder))
                missing.append(
                    (printable_name(name), BadDocumentError("unreadable", f"{name}: {error.strerror or error}"))
                )
                continue
            shown = [(name, is_folder) for name, is_folder in names if not name.startswith(".")]
            yield from (None for _ in range(len(names) - len(shown)))
            yield from (self._path((*folder, name)) for name, is_folder in shown if not is_folder)
            pending += [(*folder, name) for name, is_folder in reversed(shown) if is_folder]

    def uri(self, path: Path) -> str:
        """Return the URI of a file, the same as without a root."""
        return path.as_uri()

    def size(self, path: Path) -> int:
        """Return the size of a file in bytes, or 0 if it is unknown."""
        try:
            with self._opened(self._below(path)) as descriptor:
                return os.fstat(descriptor).st_size
        except OSError:
            return 0

    def open(self, path: Path, max_bytes: int) -> BinaryIO:
        """Open a regular file of 1 to `max_bytes` bytes for reading. Raises BadDocumentError."""
        try:
            with self._opened(self._below(path)) as descriptor:
                return checked_file(os.dup(descriptor), path, max_bytes)
        except OSError as error:
            if error.errno in _LINK:
                raise BadDocumentError(
                    "not_a_regular_file", f"{path.name} is a link or is reached through one"
                ) from None
            if isinstance(error, FileNotFoundError):
                raise BadDocumentError("not_found", f"{path.name} does not exist") from None
            if error.errno == errno.ENXIO:
                raise BadDocumentError("not_a_regular_file", f"{path.name} is not a regular file") from None
            raise BadDocumentError("unreadable", f"{path.name}: {error.strerror or error}") from None

    def _parts(self, given: str) -> Parts:
        """Return a path as names below the root. Raises the same InvalidInputError whether or not the file exists."""
        names = [name for name in given.split("/") if name not in ("", ".")]
        too_long = len(given.encode("utf-8", "replace")) > MAX_PATH_BYTES
        if "\0" in given or ".." in names or too_long or not _can_be_encoded(given):
            raise InvalidInputError(
                "paths", f"{given!r:.200} is not allowed; use a path relative to the documents folder, without .."
            )
        if not given.startswith("/"):
            return _shown(names, given)
        for root in (self._given, self.path):
            above = root.parts[1:]
            if tuple(names[: len(above)]) == above:
                return _shown(names[len(above) :], given)
        raise InvalidInputError("paths", f"{given!r:.200} is not in the folder that submitted jobs may read")

    def _path(self, parts: Parts) -> Path:
        return self.path.joinpath(*parts)

    def _below(self, path: Path) -> Parts:
        return path.relative_to(self.path).parts

    @contextmanager
    def _opened(self, parts: Parts) -> Iterator[int]:
        """Open a file or folder below the root, part by part. Raises OSError."""
        descriptor = os.open(self.path, _FLAGS | os.O_DIRECTORY)
        try:
            for place, name in enumerate(parts, 1):
                kind = os.O_NONBLOCK if place == len(parts) else os.O_DIRECTORY
                inner = os.open(name, _FLAGS | kind, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    def _mode(self, parts: Parts) -> int | None:
        """Return the mode of a path without following a final link, or None if nothing is there or a link leads to it."""
        try:
            with self._opened(parts[:-1]) as folder:
                if not parts:
                    return os.fstat(folder).st_mode
                return os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mode
        except OSError:
            return None

    def _names(self, folder: Parts) -> list[tuple[str, bool]]:
        """Return the names in a folder in order, each with whether it is a folder. Raises OSError, InvalidInputError."""
        with self._opened(folder) as descriptor, os.scandir(descriptor) as entries:
            found = []
            for entry in entries:
                self._files_checked += 1
                if self._files_checked > MAX_FILES_CHECKED:
                    raise _too_many()
                found.append((entry.name, entry.is_dir(follow_symlinks=False)))
        return sorted(found)

    def _matches(self, pattern: Parts) -> Iterator[Parts]:
        """Yield the matches of a glob. `**` matches any number of folders; hidden names match nothing."""
        pending: list[tuple[Parts, int]] = [((), 0)]
        seen = set(pending)
        listed: dict[Parts, list[tuple[str, bool]]] = {}
        while pending:
            folder, place = pending.pop()
            if place == len(pattern):
                yield folder
                continue
            head = pattern[place]
            steps: list[tuple[Parts, int]] = []
            if not has_magic(head):
                if self._mode((*folder, head)) is not None:
                    steps = [((*folder, head), place + 1)]
            else:
                if folder not in listed:
                    try:
                        listed[folder] = self._names(folder)
                    except OSError:  # a file, or an unreadable folder
                        listed[folder] = []
                names = listed[folder]
                if head == "**":
                    steps = [(folder, place + 1)]
                    steps += [((*folder, name), place) for name, is_folder in names if is_folder and name[0] != "."]
                else:
                    steps = [((*folder, name), place + 1) for name, _ in names if _fits(name, head)]
            fresh = [step for step in steps if step not in seen]
            seen.update(fresh)
            if len(seen) > MAX_FILES_CHECKED:
                raise _too_many()
            pending += fresh


def _shown(names: list[str], given: str) -> Parts:
    """Return the parts of a path. Raises InvalidInputError for a hidden one such as .env, whether or not it exists."""
    if any(name[0] == "." for name in names):
        raise InvalidInputError(
            "paths", f"{given!r:.200} is a hidden file or folder, which submitted jobs may not read"
        )
    return tuple(names)


def _too_many() -> InvalidInputError:
    return InvalidInputError("paths", f"match more than {MAX_FILES_CHECKED:,} files; use narrower paths")


def _can_be_encoded(text: str) -> bool:
    try:
        return bool(os.fsencode(text)) or not text
    except UnicodeEncodeError:
        return False


def _fits(name: str, pattern: str) -> bool:
    return name[0] != "." and fnmatchcase(name, pattern)
