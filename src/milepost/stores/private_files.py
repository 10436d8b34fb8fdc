"""Create files and folders that only their owner can read; existing ones are not changed."""

from __future__ import annotations

import os
import shlex
import stat

from milepost.forks import ForkSafeLock

_creating = ForkSafeLock()


def create_private_file(path: str) -> None:
    """Create an empty file with mode 0600 unless it exists. Errors are left to the code that opens the file.

    The lock prevents a close after another thread has opened the file with SQLite, because that would drop SQLite's
    locks.
    """
    with _creating:
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600))
        except OSError:
            return


def create_private_folder(path: str) -> None:
    """Create a folder and its parents with mode 0700 unless they exist. Raises OSError."""
    if not path or os.path.isdir(path):
        return
    create_private_folder(os.path.dirname(path))
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def open_to_others(path: str, what: str) -> str | None:
    """Return a warning if users other than the owner can access a file that contains `what`, else None."""
    if os.name != "posix":
        return None
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return None
    if not mode & 0o077:
        return None
    return f"other users can read {what}: {path} has mode {mode:04o}; run: chmod go= {shlex.quote(path)}*"
