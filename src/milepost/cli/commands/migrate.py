"""`milepost migrate`: migrate a store to the layout of this release."""

from __future__ import annotations

import click

from milepost.cli import exit_codes
from milepost.cli.admin import check_health
from milepost.cli.context import current, session_options
from milepost.cli.rendering.live import echo, echo_json
from milepost.core.errors import LayoutMismatchError
from milepost.stores.protocol import LAYOUT


@click.command("migrate")
@session_options
def command() -> int:
    """Migrate the store in place to the layout of this release."""
    context = current()
    if context.is_server:
        raise click.UsageError("cannot migrate through a server; pass the store URL with --url")
    try:
        layout = check_health(context).layout
    except LayoutMismatchError as mismatch:
        if mismatch.is_newer:
            raise
        text = f"unknown store layout {mismatch.found}; restore the store from a backup"
        raise click.ClickException(text) from None
    if context.json:
        echo_json({"from": layout, "to": LAYOUT, "moved": False})
    else:
        echo(f"The store already has the layout of this release ({layout}).")
    return exit_codes.OK
