"""Addresses of machines."""

from __future__ import annotations

import ipaddress
from functools import lru_cache


@lru_cache(maxsize=64)  # a server asks it of each request
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
