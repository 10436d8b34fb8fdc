"""`milepost serve`: serve the jobs over HTTP, with the dashboard."""

from __future__ import annotations

from typing import Any

import click

from milepost.cli import exit_codes
from milepost.cli.arguments import WholeNumber
from milepost.cli.context import current, session_options
from milepost.core.errors import MissingExtraError


@click.command("serve")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; addresses beyond this machine require API keys.",
)
@click.option("--port", type=WholeNumber(0, 65535), default=8321, show_default=True, help="Port to listen on.")
@click.option(
    "--auth",
    type=click.Choice(["keys", "none"]),
    help="Require API keys or not (default: MILEPOST_AUTH, else keys if the store has any).",
)
@click.option("--demo", is_flag=True, help="Serve sample jobs instead of a store; nothing is saved.")
@session_options
def serve(host: str, port: int, auth: str | None, demo: bool) -> int:
    """Serve the jobs of the store over HTTP, with the dashboard."""
    context = current()
    if context.is_server and not demo:
        raise click.UsageError(f"{context.display_url} is already a server; pass a store URL with --url")
    try:
        from milepost.web import serve
    except ModuleNotFoundError as missing:
        if missing.name is not None and missing.name.partition(".")[0] == "milepost":
            raise
        raise MissingExtraError("web", "milepost serve") from missing
    options: dict[str, Any] = {"host": host, "port": port, "auth": auth}
    try:
        if demo:
            from milepost.web.auth import auth_from_name
            from milepost.web.demo import create_demo

            who = auth_from_name(auth or "none")
            options["auth"] = "none" if auth == "none" else None  # the application has its own
            serve(create_demo(auth=who), **options)
        else:
            context.ensure_default_dir()
            serve(context.target_url, **options)
    except SystemExit as end:  # the port is taken, which was reported; its exit code means something else here
        return exit_codes.FAILED if end.code else exit_codes.OK
    return exit_codes.OK
