"""The command line: `milepost ...`. Owns the words of people and what they see; knows stores only by their managers."""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; without Click it says which pip line brings it."""
    try:
        from milepost.cli.program import run_program

        return run_program(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # while modules were loaded; later ones are heard in `run_program`
        return 130
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in ("click", "rich"):
            raise
        sys.stderr.write("milepost: the command line needs an extra: pip install 'milepost[cli]'\n")
        return 1
