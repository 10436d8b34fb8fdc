"""Where a webhook may go: a name is resolved once, refused when any of its addresses is not public, and the connection is
made to that very address, so that a second answer of the name server changes nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit

from milepost.core.errors import InvalidInput

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


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
    """Whether an address is one of the open internet. One that carries an IPv4 address leads where that does."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        carried = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            carried = ipaddress.IPv4Address(address.packed[-4:])
        if carried is not None:
            address = carried
        elif address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved
