"""From a URL to a store. Owns the schemes; imports each store only when it is asked for."""

from __future__ import annotations

from urllib.parse import urlsplit

from milepost.core.errors import InvalidInput
from milepost.stores.memory import MemoryStore
from milepost.stores.protocol import Store

REDIS_SCHEMES = (
    "redis",
    "rediss",
    "unix",
    "valkey",
    "redis+sentinel",
    "redis+cluster",
    "rediss+cluster",
    "rediss+sentinel",
)
SCHEMES = "sqlite:///path, redis://host, rediss://, unix://, redis+sentinel://, redis+cluster:// or memory://"


def open_store(url: str, *, namespace: str = "milepost", blocking: bool = True) -> Store:
    """The store of a URL. Raises InvalidInput for a scheme that is none, MissingExtra without its package."""
    scheme = url.strip().partition(":")[0].lower()
    if scheme == "memory":
        return MemoryStore(blocking=blocking)
    if scheme == "sqlite":
        from milepost.stores.sqlite import SQLiteStore

        return SQLiteStore(url, namespace=namespace, blocking=blocking)
    if scheme in REDIS_SCHEMES:
        from milepost.stores.redis import RedisStore

        return RedisStore(url, namespace=namespace, blocking=blocking)
    if scheme in ("http", "https"):
        raise InvalidInput("url", f"{hidden(url)} is a server; use milepost.Client, or --url on the command line")
    raise InvalidInput("url", f"{hidden(url)!r} has no scheme that is known; use {SCHEMES}")


def hidden(url: str) -> str:
    """A URL without its user and password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the URL"
    return parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}").geturl() if "@" in parts.netloc else url
