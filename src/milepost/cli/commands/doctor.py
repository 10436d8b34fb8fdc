"""`milepost doctor`: check the health of the store; exit code 1 if there are warnings."""

from __future__ import annotations

import click

from milepost.cli import exit_codes, formatting
from milepost.cli.admin import check_health
from milepost.cli.context import current, session_options
from milepost.cli.rendering.job_detail import print_facts
from milepost.cli.rendering.live import echo_json
from milepost.cli.rendering.terminal import STYLES, clean, glyph


@click.command("doctor")
@session_options
def command() -> int:
    """Check the store: version, layout, durability, clock and contents. Exit code 1 if there are warnings."""
    context = current()
    found = check_health(context)
    if context.json:
        echo_json(found.to_dict())
        return exit_codes.FAILED if found.warnings else exit_codes.OK
    from rich.text import Text

    console = context.console
    facts = [
        ("store", context.display_url),
        ("kind", f"{found.kind} {found.version}".strip()),
        ("layout", str(found.layout)),
        ("durability", found.durability),
        *(_detail(name, value) for name, value in found.details.items() if name != "path"),
        ("checked in", formatting.duration(found.seconds)),
        ("clock ahead by", f"{found.clock_ahead:+.3f} s" if abs(found.clock_ahead) >= 0.05 else ""),
        ("jobs", found.jobs_text),
        ("workers", str(found.workers) if found.workers is not None else ""),
    ]
    print_facts(console, [(name, clean(value)) for name, value in facts if value])
    console.print()
    for warning in found.warnings:
        console.print(Text(glyph(console, "stalled") + " ", STYLES["stalled"]).append(clean(warning)))
    if not found.warnings:
        console.print(Text(glyph(console, "completed") + " ", STYLES["completed"]).append("No problems found"))
    return exit_codes.FAILED if found.warnings else exit_codes.OK


def _detail(name: str, value: str) -> tuple[str, str]:
    """Return a detail of the store for people, with a number of bytes as a size."""
    if name.endswith("_bytes") and value.isdecimal():
        name, value = name.removesuffix("_bytes"), formatting.size(int(value))
    return name.replace("_", " "), value
