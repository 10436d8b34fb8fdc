"""`milepost serve`: the jobs over HTTP, with the dashboard."""

from __future__ import annotations

from typing import Any

import click

from milepost.cli import exits
from milepost.cli.session import current, session_options
from milepost.core.errors import MissingExtra


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address; others than this machine's need keys.")
@click.option("--port", type=click.IntRange(0, 65535), default=8321, show_default=True)
@click.option("--insecure", is_flag=True, help="Serve another address without keys.")
@click.option(
    "--demo", is_flag=True, help="Serve made-up jobs that run, fail, stall and get cancelled; nothing is kept."
)
@session_options
def command(host: str, port: int, insecure: bool, demo: bool) -> int:
    """Serve the jobs of this store over HTTP, with the dashboard."""
    session = current()
    if session.is_server and not demo:
        raise click.UsageError(f"{session.shown_place} is a server already; give a store with --url")
    try:
        from milepost.web import serve
    except ModuleNotFoundError as missing:
        if missing.name is not None and missing.name.partition(".")[0] == "milepost":
            raise
        raise MissingExtra("web", "milepost serve") from missing
    options: dict[str, Any] = {"host": host, "port": port, "insecure": insecure}
    try:
        if demo:
            from milepost.web.demonstration import create_demonstration

            serve(create_demonstration(), **options)
        else:
            session.prepare()
            serve(session.place, **options)
    except SystemExit as end:  # its port is taken, which was said; the code for that says something else here
        return exits.FAILED if end.code else exits.OK
    return exits.OK
