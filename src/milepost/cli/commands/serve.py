"""`milepost serve`: the jobs over HTTP, with the dashboard."""

from __future__ import annotations

import click

from milepost.cli import exits
from milepost.cli.session import current, session_options
from milepost.core.errors import MissingExtra


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address; others than this machine's need keys.")
@click.option("--port", type=click.IntRange(0, 65535), default=8321, show_default=True)
@click.option("--insecure", is_flag=True, help="Serve another address without keys.")
@session_options
def command(host: str, port: int, insecure: bool) -> int:
    """Serve the jobs of this store over HTTP, with the dashboard."""
    session = current()
    if session.is_server:
        raise click.UsageError(f"{session.shown_place} is a server already; give a store with --url")
    try:
        from milepost.web import serve
    except ModuleNotFoundError as missing:
        if missing.name is not None and missing.name.partition(".")[0] == "milepost":
            raise
        raise MissingExtra("web", "milepost serve") from missing
    session.prepare()
    serve(session.place, host=host, port=port, insecure=insecure)
    return exits.OK
