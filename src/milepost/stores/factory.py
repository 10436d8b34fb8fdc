"""Create the store of a URL; each store is imported only when it is used."""

from __future__ import annotations

from urllib.parse import urlsplit

from milepost import plugins
from milepost.core.errors import InvalidInputError
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import Store

SCHEMES = "sqlite:///path, redis://host, rediss://, unix://, redis+sentinel://, redis+cluster://, postgresql://host/database or memory://"


def open_store(url: str, *, namespace: str = "milepost", blocking: bool = True) -> Store:
    """Return the store of a URL. Its scheme is the name of a plugin in the group `milepost.stores`.

    Raises InvalidInputError for an unsupported scheme, MissingExtraError if a package is missing, and PluginError.
    """
    scheme = url.strip().partition(":")[0].lower()
    if scheme in ("http", "https"):
        raise InvalidInputError(
            "url", f"{redact_url(url)} is a server; use milepost.Client, or --url on the command line"
        )
    plugin = plugins.find("milepost.stores", scheme)
    if plugin is None:
        raise InvalidInputError("url", f"unsupported URL scheme in {redact_url(url)!r}; use {SCHEMES}")
    store: Store = plugin.load()(url, namespace=namespace, blocking=blocking)
    return store


def open_memory_store(url: str, *, namespace: str, blocking: bool) -> MemoryStore:
    """Return a new store in memory, whatever the rest of the URL is."""
    return MemoryStore(blocking=blocking)


def redact_url(url: str) -> str:
    """Return a URL for display, without user, password and the values of its query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the URL"
    if "@" in parts.netloc:
        parts = parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}")
    elif not parts.query and not parts.fragment:
        return url
    query = "&".join(
        f"{part.partition('=')[0]}=***" if "=" in part else "***" for part in parts.query.split("&") if part
    )
    return parts._replace(query=query, fragment="***" if parts.fragment else "").geturl()
