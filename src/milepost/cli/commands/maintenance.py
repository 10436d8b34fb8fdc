"""`milepost doctor`, `migrate`, `purge`, `completion`: maintenance of a store, and of the command line."""

from __future__ import annotations

import json
import os

import click
from click.shell_completion import get_completion_class

from milepost.cli import admin, exit_codes, formatting
from milepost.cli.context import current, session_options
from milepost.cli.rendering.job_detail import print_facts
from milepost.cli.rendering.live import echo, echo_json
from milepost.cli.rendering.terminal import STYLES, clean, glyph
from milepost.core.errors import LayoutMismatchError
from milepost.core.serialization import seconds
from milepost.stores.protocol import LAYOUT


@click.command("doctor")
@session_options
def doctor() -> int:
    """Check the store: version, layout, durability, clock and contents. Exit code 1 if there are warnings."""
    context = current()
    found = admin.check_health(context)
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
    """Return a detail of the store for people: bytes as a size, seconds as a duration, a switch as yes or no."""
    if value.isdecimal():
        if name == "maxmemory" and value == "0":
            value = "no limit"
        elif name.endswith(("_bytes", "memory")):
            name, value = name.removesuffix("_bytes"), formatting.size(int(value))
        elif name.endswith("_in_seconds"):
            name, value = name.removesuffix("_in_seconds"), formatting.duration(int(value))
        elif name.endswith("_enabled"):
            value = "yes" if value == "1" else "no"
    return name.replace("_", " "), value


@click.command("migrate")
@click.option(
    "--sql", is_flag=True, help="Print the SQL that creates the schema of a PostgreSQL store, and run nothing."
)
@session_options
def migrate(sql: bool) -> int:
    """Migrate the store in place to the layout of this release. A missing schema of PostgreSQL is created."""
    context = current()
    if context.is_server:
        raise click.UsageError("cannot migrate through a server; pass the store URL with --url")
    if sql:
        schema_sql = getattr(context.manager.store, "schema_sql", None)
        if schema_sql is None:
            raise click.UsageError("--sql needs a PostgreSQL store; pass its URL with --url")
        click.echo(schema_sql())
        return exit_codes.OK
    try:
        layout = admin.check_health(context).layout
    except LayoutMismatchError as mismatch:
        if mismatch.is_newer or mismatch.lacks is not None:
            raise
        text = f"unknown store layout {mismatch.found}; restore the store from a backup"
        raise click.ClickException(text) from None
    if context.json:
        echo_json({"from": layout, "to": LAYOUT, "moved": False})
    else:
        echo(f"The store has the layout of this release ({layout}).")
    return exit_codes.OK


@click.command("purge")
@click.option(
    "--older-than", metavar="TIME", help="Delete jobs that ended more than TIME ago (e.g. 12h, 7d; default: JOB_TTL)."
)
@session_options
def purge(older_than: str | None) -> int:
    """Delete ended jobs past their retention time."""
    context = current()
    gone = admin.purge(context, None if older_than is None else seconds(older_than, "--older-than"))
    echo(json.dumps({"purged": gone}) if context.json else f"Deleted {formatting.plural(gone, 'job')}.")
    return exit_codes.OK


INSTALL_LINES = {
    "bash": 'eval "$(milepost completion bash)"  # in ~/.bashrc',
    "zsh": 'eval "$(milepost completion zsh)"  # in ~/.zshrc',
    "fish": "milepost completion fish | source  # in ~/.config/fish/config.fish",
}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(INSTALL_LINES)), required=False)
@session_options
def completion(shell: str | None) -> int:
    """Print the completion script of a shell (default: from $SHELL). Job ids are read from the store.

    \b
    bash  eval "$(milepost completion bash)"
    zsh   eval "$(milepost completion zsh)"
    fish  milepost completion fish | source
    """
    name = shell or os.path.basename(os.environ.get("SHELL", ""))
    kind = get_completion_class(name)
    if kind is None:
        raise click.UsageError(f"unsupported shell {name!r}; choose from {', '.join(INSTALL_LINES)}")
    from milepost.cli.root_command import program

    click.echo(f"# {INSTALL_LINES[name]}\n{kind(program, {}, 'milepost', '_MILEPOST_COMPLETE').source()}")
    return exit_codes.OK
