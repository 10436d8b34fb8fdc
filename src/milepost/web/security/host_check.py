"""Tell whether a request names this machine, and whether it reached a loopback address."""

from __future__ import annotations

import ipaddress

from starlette.types import Scope

FOREIGN_HOST = (
    "The Host header names another machine, and this server has no authentication; "
    "use localhost, or start the server with --auth keys"
)


def is_loopback(host: str) -> bool:
    """Return whether an address (or a unix socket) can be reached from this machine only."""
    host = host.lower()
    if host == "localhost" or host.endswith(".localhost") or host.startswith("/"):
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def names_loopback(scope: Scope) -> bool:
    """Return whether the Host header of a request names this machine. With DNS rebinding it names another site."""
    host: str = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "localhost")
    return is_loopback(host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0])


def reached_by_loopback(scope: Scope) -> bool:
    """Return whether a request came in on a loopback address."""
    server = scope.get("server")
    return server is not None and is_loopback(str(server[0]))
