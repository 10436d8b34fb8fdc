"""Exit codes: one list for all commands. Knows nothing else."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
"""A job failed, or the command could not be done."""
USAGE: Final = 2
CANCELLED: Final = 3
TIMED_OUT: Final = 124
INTERRUPTED: Final = 130
TERMINATED: Final = 143

EXPLAINED: Final = (
    "Exit codes: 0 done (watch, run: all completed); 1 failed; 2 usage error; 3 cancelled by somebody else; "
    "124 timed out; 130 ended with Ctrl-C; 143 ended with SIGTERM."
)
