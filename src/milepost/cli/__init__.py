"""The command line, `milepost`."""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code. Without Click, print how to install it."""
    try:
        from milepost.cli.root_command import run_program

        return run_program(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # during imports; later ones are handled in `run_program`
        return 130
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in ("click", "rich"):
            raise
        sys.stderr.write("milepost: the command line requires an extra: pip install 'milepost[cli]'\n")
        return 1
