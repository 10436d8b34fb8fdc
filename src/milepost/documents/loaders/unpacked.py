"""The text in a gzip file, with the methods of a path that the loaders of texts use. The loader writes no files."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

from milepost.documents.errors import BadDocumentError
from milepost.documents.file_types import MAX_COMPRESSION, MAX_UNPACKED_BYTES, SMALL_BYTES


class UnpackedFile:
    """A gzip file as the file that it contains. Raises `BadDocumentError` for one that is damaged or expands too far."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        limit = min(MAX_UNPACKED_BYTES, max(SMALL_BYTES, MAX_COMPRESSION * path.stat().st_size))
        try:
            with gzip.open(path) as file:
                self._content = file.read(limit + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise BadDocumentError("corrupt_document", f"{path.name} is a damaged gzip file: {error}") from error
        if len(self._content) > limit:
            raise BadDocumentError("archive_too_large", f"{path.name} unpacks to more than {limit:,} bytes")

    def open(self, mode: str = "r", **options: Any) -> IO[Any]:
        """Open the content for reading, as `Path.open` does."""
        content = io.BytesIO(self._content)
        return content if "b" in mode else io.TextIOWrapper(content, **options)

    def stat(self) -> SimpleNamespace:
        """Return the size of the content as `st_size`."""
        return SimpleNamespace(st_size=len(self._content))

    def read_bytes(self) -> bytes:
        """Return the content."""
        return self._content
