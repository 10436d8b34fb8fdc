"""Parse Redis URLs and connect to the server that accepts writes: one server, a Unix socket, Sentinel, Cluster.

::

    redis://user:password@host:6379/0      rediss://... with TLS       valkey://... the same
    unix:///run/redis.sock?db=0
    redis+sentinel://user:password@host:26379,host:26379/service/0?sentinel_password=...
    redis+cluster://user:password@host:7000,host:7001

The query may set any option of redis-py's Connection, such as `ssl_ca_certs`, `protocol=3` or `socket_connect_timeout`.
"""

from __future__ import annotations

import logging
import re
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import hiredis
from redis import connection
from redis.crc import key_slot

from milepost.core.errors import InvalidInputError, StoreError
from milepost.forks import reset_after_fork
from milepost.stores.redis.connection import (
    ConnectionLost,
    ConnectionPool,
    Node,
    RedisConnection,
    SyncConnectionPool,
)
from milepost.stores.sync_bridge import run_sync

log = logging.getLogger("milepost.redis")
log.addHandler(logging.NullHandler())

CONNECT_SECONDS = 2.0
HANDSHAKE_SECONDS = 5.0
SENTINEL_INTERVAL = 1.0
PORT, SENTINEL_PORT = 6379, 26379

pack = cast(Callable[[tuple[str, ...]], bytes], hiredis.pack_command)
_parse_url = cast(Callable[[str], dict[str, Any]], connection.parse_url)
_OF_A_POOL = ("connection_class", "host", "port", "path", "max_connections", "timeout", "decode_responses")


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """A parsed URL. `shown` is the URL without user, password and query."""

    kind: str
    nodes: tuple[Node, ...]
    options: Mapping[str, Any]
    tls: bool
    shown: str
    service: str = ""
    sentinel_options: Mapping[str, Any] | None = None


def parse_redis_url(url: str) -> Target:
    """Return a parsed URL. Raises InvalidInputError, whose text never contains a password."""
    try:
        parts = urlsplit(url)
        scheme, _, kind = parts.scheme.partition("+")
        hosts = parts.netloc.rpartition("@")[2]
        shown = urlunsplit((parts.scheme, hosts, parts.path, "", ""))
        userinfo = parts.netloc[: len(parts.netloc) - len(hosts)]
        scheme = scheme.replace("valkey", "redis")
        path, service = parts.path, ""
        if kind == "sentinel":
            service, _, db = parts.path.strip("/").partition("/")
            path = f"/{db}"
            if not service:
                raise ValueError("missing service name; use redis+sentinel://host:26379/service/0")
        elif kind not in ("", "cluster"):
            raise ValueError(f"unsupported URL scheme {parts.scheme}")
        if scheme != "unix" and not re.fullmatch(r"/?\d*/?", path):  # redis-py would silently use database 0
            raise ValueError(f"{path!r} is not a database; use its number, such as /0")
        nodes = (Node(path, 0),) if scheme == "unix" else _nodes(hosts, SENTINEL_PORT if service else PORT)
        first = "" if scheme == "unix" else "host"
        options = _parse_url(f"{scheme}://{userinfo}{first}{path}?{parts.query}")
    except ValueError as error:
        raise InvalidInputError("url", _without(str(error), url)) from None
    if scheme == "unix":
        nodes = (Node(str(options.get("path", path)), 0),)
    sentinel = {
        name.removeprefix("sentinel_"): options.pop(name) for name in list(options) if name.startswith("sentinel_")
    }
    for name in _OF_A_POOL:
        options.pop(name, None)
    options.setdefault("socket_connect_timeout", CONNECT_SECONDS)
    options.setdefault("socket_timeout", HANDSHAKE_SECONDS)
    options.setdefault("protocol", 2)
    if service:
        kept = {n: v for n, v in options.items() if n not in ("username", "password", "db", "credential_provider")}
        sentinel = {**kept, **sentinel}
    return Target(kind or "one", nodes, options, scheme == "rediss", shown, service, sentinel or None)


def _nodes(hosts: str, port: int) -> tuple[Node, ...]:
    nodes = []
    for text in hosts.split(",") if hosts else ["localhost"]:
        parts = urlsplit(f"//{text}")
        host = parts.hostname or "localhost"
        try:
            host.encode("idna")
        except UnicodeError:
            raise ValueError(f"{host!r:.80} is not a valid host name") from None
        nodes.append(Node(host, parts.port or port))
    return tuple(nodes)


def _without(text: str, url: str) -> str:
    """Return an error text without any part of the password, wherever the parser took that to end."""
    userinfo = url.partition("://")[2].rpartition("@")[0]
    if re.search(r"[/?#\[\]]", userinfo):
        return "cannot be parsed; encode / ? # [ ] and @ in a user or password as %2F %3F %23 %5B %5D and %40"
    secret = userinfo.partition(":")[2]
    return text.replace(secret, "***") if secret else text


class Connector:
    """Finds the server that accepts writes for a namespace and connects to it."""

    def __init__(self, target: Target, pool: ConnectionPool, prefix: bytes) -> None:
        self._target = target
        self._pool = pool
        self._slot = key_slot(prefix) if target.kind == "cluster" else 0
        self._known: list[Node] = list(target.nodes)
        self.node: Node | None = None
        """The server of the last connection."""
        self.watch = MasterWatch(self, pool) if target.kind == "sentinel" else None

    async def connect_to_master(self) -> RedisConnection:
        """Return a connection to the master. Raises ConnectionLost."""
        if self.watch is not None:
            link, master = await self.sentinel(self._pool)
            link.close()
            self._pool.only = master
            self.watch.start()
            return await self.to(master)
        if self._target.kind == "cluster":
            return await self._owner()
        return await self.to(self._target.nodes[0])

    async def to(self, node: Node) -> RedisConnection:
        """Return a connection to one server."""
        link = await self._pool.connect(node, self._target.options, self._target.tls)
        self.node = node
        return link

    def moved(self, address: str) -> None:
        """Prefer the node that a MOVED error names; without a host it is the server of the last connection."""
        host, _, port = address.rpartition(":")
        self._prefer(Node(host or (self.node.host if self.node is not None else "localhost"), int(port)))

    def _prefer(self, node: Node) -> None:
        self._known = [node, *(known for known in self._known if known != node)]

    async def sentinel(self, pool: ConnectionPool) -> tuple[RedisConnection, Node]:
        """Return a connection to a Sentinel (the last one that answered is tried first) and the master that it names.

        Raises ConnectionLost.
        """
        problems = []
        for node in list(self._known):
            try:
                link = await pool.connect(node, self._target.sentinel_options or {}, self._target.tls)
                try:
                    master = await self.named_by(link)
                except BaseException:
                    link.close()
                    raise
            except ConnectionLost as error:
                problems.append(f"{error}" if str(node) in str(error) else f"{node} {error}")
                continue
            self._prefer(node)
            return link, master
        raise ConnectionLost("; ".join(problems))

    async def named_by(self, link: RedisConnection) -> Node:
        """Return the master that a Sentinel names. Raises ConnectionLost."""
        ask = pack(("SENTINEL", "get-master-addr-by-name", self._target.service))
        (reply,) = await link.exchange(ask, 1, CONNECT_SECONDS)
        if isinstance(reply, list):
            return Node(reply[0].decode(), int(reply[1]))
        refused = isinstance(reply, hiredis.ReplyError)
        raise ConnectionLost(f"refuses: {reply}" if refused else f"does not know the service {self._target.service!r}")

    async def _owner(self) -> RedisConnection:
        """Return a connection to the node that has the slot of the namespace, found by asking any node."""
        problems = []
        for node in list(self._known):
            try:
                link = await self.to(node)
                try:
                    (slots,) = await link.exchange(pack(("CLUSTER", "SLOTS")), 1, CONNECT_SECONDS)
                except BaseException:
                    link.close()
                    raise
            except ConnectionLost as error:
                problems.append(str(error))
                continue
            owner = self._learn(slots, node) if isinstance(slots, list) else None
            if owner is None or owner == node:
                return link  # not known yet; a MOVED reply will name it
            link.close()
            try:
                return await self.to(owner)
            except ConnectionLost as error:
                problems.append(str(error))
        raise ConnectionLost("; ".join(problems))

    def _learn(self, slots: list[Any], asked: Node) -> Node | None:
        owner = None
        for low, high, *servers in slots:
            for place, (host, port, *_) in enumerate(servers):
                node = Node(host.decode() if host else asked.host, int(port))
                if node not in self._known:
                    self._known.append(node)
                if place == 0 and low <= self._slot <= high:
                    owner = node
        if owner is not None:
            self._prefer(owner)
        return owner


class MasterWatch:
    """Sets `ConnectionPool.only` to the master that the Sentinels name, in a thread that ends with the pool.

    It asks every second, so that connections leave an old master soon after a failover. In a planned failover the old
    master stays up. For about ten seconds it acknowledges writes that are lost when it becomes a replica.
    """

    def __init__(self, connector: Connector, pool: ConnectionPool) -> None:
        self._connector = weakref.ref(connector)
        self._pool = weakref.ref(pool)
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Forget the thread, which only the parent has."""
        self._lock = threading.Lock()
        self._is_started = False
        self._end = threading.Event()

    def start(self) -> None:
        """Start the thread, unless it is running."""
        if self._is_started:
            return
        with self._lock:
            if not self._is_started:
                self._end = threading.Event()
                threading.Thread(target=self._watch, args=(self._end,), name="milepost-sentinel", daemon=True).start()
                self._is_started = True

    def end(self) -> None:
        """Stop the thread until `start` is called."""
        with self._lock:
            self._end.set()
            self._is_started = False

    def _watch(self, end: threading.Event) -> None:
        own = SyncConnectionPool()
        link: RedisConnection | None = None
        while not end.wait(SENTINEL_INTERVAL):
            connector, pool = self._connector(), self._pool()
            if connector is None or pool is None:
                break
            try:
                if link is None:
                    link, master = run_sync(connector.sentinel(own))
                else:
                    master = run_sync(connector.named_by(link))
            except (ConnectionLost, StoreError) as error:
                log.debug("sentinel: no master found: %s", error)
                if link is not None:
                    link.close()
                link = None
                continue
            if pool.only is not None and pool.only != master:
                log.warning("sentinel: master changed to %s; closing connections to %s", master, pool.only)
            pool.only = master
            del connector, pool
        if link is not None:
            link.close()
