"""The HTTP clients that send webhooks."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

    import httpx


def open_client() -> httpx.AsyncClient:
    """Return a client for the messages of one webhook. It has no timeout, follows no redirects and uses no proxy.

    A client finds its open connections by their address. One of another webhook, whose host has the same address, was
    verified for the name of that host.
    """
    import httpx

    return httpx.AsyncClient(verify=_ssl_context(), timeout=None, follow_redirects=False, trust_env=False)


@cache
def _ssl_context() -> ssl.SSLContext:
    import httpx

    return httpx.create_ssl_context(trust_env=False)
