"""Keep webhooks from reaching addresses that are not public: of this machine, its network or a cloud's metadata.

The HTTP clients that connect to the public addresses are made here as well.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from milepost.core.errors import InvalidInputError

if TYPE_CHECKING:
    import ssl

    import httpx


NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
NON_PUBLIC_NETWORKS = tuple(
    map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "3fff::/20", "5f00::/16"))
)
"""Special-purpose networks that some Python releases report as global."""


async def public_address(url: str) -> str:
    """Return the address of a URL's host. Raises InvalidInputError if it has none, or one that is not public."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise InvalidInputError("url", f"host {host!r:.80} does not resolve to an address") from None
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    for address in addresses:
        if not is_public(address):
            raise InvalidInputError("url", f"host {host!r:.80} resolves to {address}, which is not a public address")
    return addresses[0]


def is_public(text: str) -> bool:
    """Return whether an address is on the public internet. An IPv6 address that embeds an IPv4 address is judged by the
    latter.
    """
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        carried = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            carried = ipaddress.IPv4Address(address.packed[-4:])
        if carried is not None:
            address = carried
        elif address.is_site_local:
            return False
    if any(address in network for network in NON_PUBLIC_NETWORKS):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


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
