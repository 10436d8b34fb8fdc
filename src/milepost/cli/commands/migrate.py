"""`milepost migrate`: move a store to the layout of this release."""

from __future__ import annotations

import json

import click

from milepost.cli import exits
from milepost.cli.administration import examine
from milepost.cli.drawing.views import say
from milepost.cli.session import current, session_options
from milepost.core.errors import LayoutMismatch
from milepost.stores.protocol import LAYOUT


@click.command("migrate")
@session_options
def command() -> int:
    """Move the store to the layout of this release, in place; says so when there is nothing to do."""
    session = current()
    if session.is_server:
        raise click.UsageError("a server's store is moved where it is; give the store with --url")
    try:
        layout = examine(session).layout
    except LayoutMismatch as mismatch:
        if mismatch.is_newer:
            raise
        text = f"the store has layout {mismatch.found}, which no release has written; restore it from a backup"
        raise click.ClickException(text) from None
    if session.json:
        say(json.dumps({"from": layout, "to": LAYOUT, "moved": False}))
    else:
        say(f"The store has layout {layout}, that of this release; nothing to do.")
    return exits.OK
