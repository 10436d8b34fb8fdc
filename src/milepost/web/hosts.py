"""Which hosts a request may name. Owns the check; knows no route."""

from __future__ import annotations

import ipaddress

from starlette.types import ASGIApp, Receive, Scope, Send

from milepost.web.problems import response


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address (or a unix socket)."""
    host = host.lower()
    if host == "localhost" or host.endswith(".localhost") or host.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class LocalHosts:
    """Answers only requests whose Host is this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "localhost")
            name = host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
            if not is_loopback(name):
                await response(421, "This server answers only to this machine; start it with keys")(
                    scope, receive, send
                )
                return
        await self._app(scope, receive, send)
