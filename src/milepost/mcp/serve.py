"""Run the MCP server of `milepost mcp`, over stdio or streamable HTTP."""

from __future__ import annotations

import sys

from mcp.server.transport_security import TransportSecuritySettings

from milepost.core.addresses import is_loopback
from milepost.core.errors import InvalidInputError
from milepost.mcp.server import Authenticated, over_server, over_store
from milepost.web import auth as auths
from milepost.web.security.local_access import token_for
from milepost.web.server import OPEN_ACCESS_WARNING, choose_auth


def serve_stdio(url: str, is_server: bool, key: str | None) -> None:
    """Serve one client over stdio until it closes its end. `key` is the API key that limits it, None for no limit.

    Without a key the client may do what the user who started it may do with the store.
    """
    if is_server:
        if key is None:
            url, key = token_for(url)
        server = over_server(url, key)
    else:
        _require_shared(url)
        server, _ = over_store(url, auths.none() if key is None else auths.api_keys(), key)
    server.run("stdio")


def serve_http(url: str, host: str, port: int, auth: str | None) -> None:
    """Serve streamable HTTP at /mcp until a signal arrives. Callers send their API keys, if keys are required."""
    import uvicorn

    _require_shared(url)
    chosen = choose_auth(url, host, auth)
    server, context = over_store(url, chosen, None)
    if isinstance(chosen, auths.NoAuth) and not is_loopback(host):
        sys.stderr.write(OPEN_ACCESS_WARNING + "\n")
    # The authentication of the API refuses foreign host names; an address beyond this machine has names of its own.
    security = None if is_loopback(host) else TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = server.streamable_http_app(stateless_http=True, host=host, transport_security=security)
    uvicorn.run(
        Authenticated(app, context), host=host, port=port, log_level="warning", access_log=False, server_header=False
    )


def _require_shared(url: str) -> None:
    if url.startswith("memory:"):
        raise InvalidInputError("--url", "memory:// has no jobs of other processes; use sqlite:///jobs.db, redis://host or postgresql://host/db")  # fmt: skip
