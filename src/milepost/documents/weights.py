"""Files of models that came with a package: none is used whose SHA-256 is not the one that we know."""

from __future__ import annotations

import hashlib
from importlib.resources.abc import Traversable
from pathlib import Path


def read_checked(file: Path | Traversable, sha256: str) -> bytes:
    """The content of a file. Raises `ValueError` when it is another one than expected."""
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(f"{file} is not the file that milepost expects: its SHA-256 is {found}, not {sha256}")
    return content
