"""Exit codes of all commands."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
"""A job failed, or the command itself failed."""
USAGE: Final = 2
CANCELLED: Final = 3
TIMED_OUT: Final = 124
INTERRUPTED: Final = 130
TERMINATED: Final = 143

EXIT_CODES_HELP: Final = (
    "Exit codes: 0 success (run, watch: all jobs completed); 1 failure; 2 usage error; 3 cancelled by another user or "
    "process; 124 timed out; 130 interrupted by Ctrl-C; 143 terminated by SIGTERM."
)
