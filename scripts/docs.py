#!/usr/bin/env python3
"""Build the documentation into build/site, with warnings as errors: `make docs`.

``--serve`` shows it while it is written. ``--settings`` writes docs/reference/settings.md, which is made from `Settings`.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from milepost.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ROOT / "docs" / "reference" / "settings.md"

HEAD = """# Settings

Read from the environment when they are first needed; in code, `Settings(lease=60)` is given to a manager or a `Jobs` as
`options=`. Durations are in seconds; the variables also take text such as `2h`.

`--url` comes first, then the `Settings` given in code, then the environment, then the defaults. `Settings` given in code replace
the environment completely, also for `milepost worker`, `run` and `submit` with MODULE:APP.

| variable | in `Settings` | default | what it is |
| --- | --- | --- | --- |
"""


def settings_page() -> str:
    """Return the page on settings."""
    rows = []
    for spec in fields(Settings):
        variable = spec.metadata["env"]
        rows.append(f"| `{variable}` | `{spec.name}` | {_plain(spec.default)} | {spec.metadata['doc']} |\n")
    return HEAD + "".join(rows)


def _plain(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def main(arguments: list[str]) -> int:
    """Build or serve the documentation, or write the page on settings."""
    if arguments == ["--settings"]:
        SETTINGS.write_text(settings_page(), encoding="utf-8")
        return 0
    command = ["serve"] if arguments == ["--serve"] else ["build", "--strict", "--clean", *arguments]
    return subprocess.run([sys.executable, "-m", "mkdocs", *command], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
