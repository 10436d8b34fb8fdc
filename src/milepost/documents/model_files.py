"""Read model files from installed packages, and verify their SHA-256."""

from __future__ import annotations

import hashlib
from importlib.resources.abc import Traversable
from pathlib import Path


def read_checked(file: Path | Traversable, sha256: str) -> bytes:
    """Return the content of a file. Raises `ValueError` if its SHA-256 differs."""
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(f"{file} is not the expected file; its SHA-256 is {found}, not {sha256}")
    return content
