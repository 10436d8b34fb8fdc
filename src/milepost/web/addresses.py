"""Where a webhook may go: a name is resolved once, refused when any of its addresses is not public, and the connection is
made to that very address, so that a second answer of the name server changes nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit

from milepost.core.errors import InvalidInput


async def public_address(url: str) -> str:
    """The address behind a URL's host. Raises InvalidInput when it has none, or one that is not public."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise InvalidInput("url", f"{host!r:.80} has no address") from None
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    for address in addresses:
        if not is_public(address):
            raise InvalidInput("url", f"{host!r:.80} leads to {address}, which is not a public address")
    return addresses[0]


def is_public(text: str) -> bool:
    """Whether an address is one of the open internet."""
    address = ipaddress.ip_address(text)
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped if mapped is not None else address
    return address.is_global and not address.is_multicast
