"""`milepost mcp`: serve the jobs of a store to agents, over the Model Context Protocol."""

from __future__ import annotations

import os

import click

from milepost.cli import exit_codes
from milepost.cli.arguments import WholeNumber
from milepost.cli.context import current, session_options
from milepost.core.errors import MissingExtraError


@click.command("mcp")
@click.option("--http", is_flag=True, help="Serve streamable HTTP at /mcp instead of stdio.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on with --http; addresses beyond this machine require API keys.",
)
@click.option(
    "--port", type=WholeNumber(0, 65535), default=8322, show_default=True, help="Port to listen on with --http."
)
@click.option(
    "--auth",
    type=click.Choice(["keys", "none"]),
    help="With --http, require API keys or not (default: MILEPOST_AUTH, else keys if the store has any).",
)
@session_options
def mcp(http: bool, host: str, port: int, auth: str | None) -> int:
    """Serve the jobs of the store, or of a server, as MCP tools over stdio. MILEPOST_KEY limits what they may do."""
    context = current()
    try:
        from milepost.mcp.server import serve_http, serve_stdio
    except ModuleNotFoundError as missing:
        if missing.name is not None and missing.name.partition(".")[0] == "milepost":
            raise
        raise MissingExtraError("mcp", "milepost mcp") from missing
    if http and context.is_server:
        raise click.UsageError(f"{context.display_url} is already a server; pass a store URL with --url")
    if not http:
        for name in ("host", "port", "auth"):
            if click.get_current_context().get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--{name} needs --http")
    context.ensure_default_dir()
    if http:
        serve_http(context.target_url, host, port, auth)
    else:
        serve_stdio(context.target_url, context.is_server, os.environ.get("MILEPOST_KEY"))
    return exit_codes.OK
