"""`milepost doctor`: the store examined; exit code 1 when something is wrong."""

from __future__ import annotations

import json

import click

from milepost.cli import exits, wording
from milepost.cli.administration import examine
from milepost.cli.drawing.console import STYLES, clean, glyph
from milepost.cli.drawing.details import print_facts
from milepost.cli.drawing.views import say
from milepost.cli.session import current, session_options


@click.command("doctor")
@session_options
def command() -> int:
    """Examine the store: its version, layout and durability, what is wrong with it, and what it holds."""
    session = current()
    found = examine(session)
    if session.json:
        say(json.dumps(found.to_dict(), ensure_ascii=False))
        return exits.FAILED if found.warnings else exits.OK
    from rich.text import Text

    console = session.console
    facts = [
        ("store", session.shown_place),
        ("kind", f"{found.kind} {found.version}".strip()),
        ("layout", str(found.layout)),
        ("durability", found.durability),
        *((name.replace("_", " "), value) for name, value in found.details.items()),
        ("answers in", wording.duration(found.seconds)),
        ("clock ahead by", f"{found.clock_ahead:+.3f} s" if abs(found.clock_ahead) >= 0.05 else ""),
        ("jobs", found.jobs_text),
        ("workers", str(found.workers) if found.workers is not None else ""),
    ]
    print_facts(console, [(name, clean(value)) for name, value in facts if value])
    console.print()
    for warning in found.warnings:
        console.print(Text(glyph(console, "stalled") + " ", STYLES["stalled"]).append(clean(warning)))
    if not found.warnings:
        console.print(Text(glyph(console, "completed") + " ", STYLES["completed"]).append("Nothing is wrong"))
    return exits.FAILED if found.warnings else exits.OK
