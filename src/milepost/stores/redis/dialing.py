"""From a URL to a connection. Owns the URLs of Redis: a server, a unix socket, Sentinel, Cluster; retries nothing.

::

    redis://user:password@host:6379/0      rediss://... with TLS       valkey://... the same
    unix:///run/redis.sock?db=0
    redis+sentinel://user:password@host:26379,host:26379/service/0?sentinel_password=...
    redis+cluster://user:password@host:7000,host:7001

A query names any option of redis-py's Connection, such as `ssl_ca_certs`, `protocol=3` or `socket_connect_timeout`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import hiredis
from redis import connection
from redis.crc import key_slot

from milepost.core.errors import InvalidInput
from milepost.stores.redis.links import Link, LinkDown, Node, Wires

CONNECT_SECONDS = 2.0
HANDSHAKE_SECONDS = 5.0
PORT, SENTINEL_PORT = 6379, 26379

pack = cast(Callable[[tuple[str, ...]], bytes], hiredis.pack_command)
_parse_url = cast(Callable[[str], dict[str, Any]], connection.parse_url)
_OF_A_POOL = ("connection_class", "host", "port", "path", "max_connections", "timeout", "decode_responses")


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """What a URL names. `shown` is the URL without its user, password and query."""

    kind: str
    nodes: tuple[Node, ...]
    options: Mapping[str, Any]
    tls: bool
    shown: str
    service: str = ""
    sentinel_options: Mapping[str, Any] | None = None


def target_of(url: str) -> Target:
    """Read a URL. Raises InvalidInput, which never quotes a password."""
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
                raise ValueError("names no service; write redis+sentinel://host:26379/service/0")
        elif kind not in ("", "cluster"):
            raise ValueError(f"has no scheme that is known: {parts.scheme}")
        if scheme != "unix" and not re.fullmatch(r"/?\d*/?", path):  # else it would be database 0, without a word
            raise ValueError(f"{path!r} is no database; write its number, such as /0")
        nodes = (Node(path, 0),) if scheme == "unix" else _nodes(hosts, SENTINEL_PORT if service else PORT)
        first = "" if scheme == "unix" else "host"
        options = _parse_url(f"{scheme}://{userinfo}{first}{path}?{parts.query}")
    except ValueError as error:
        raise InvalidInput("url", _without(str(error), url)) from None
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
            raise ValueError(f"{host!r:.80} is no name of a host") from None
        nodes.append(Node(host, parts.port or port))
    return tuple(nodes)


def _without(text: str, url: str) -> str:
    """What is wrong with a URL, in words that hold nothing of its password, wherever that was taken to end."""
    userinfo = url.partition("://")[2].rpartition("@")[0]
    if re.search(r"[/?#\[\]]", userinfo):
        return "cannot be read; in a user or password write / ? # [ ] and @ as %2F %3F %23 %5B %5D and %40"
    secret = userinfo.partition(":")[2]
    return text.replace(secret, "***") if secret else text


class Dialer:
    """Finds the server that takes writes for a namespace, and connects to it."""

    def __init__(self, target: Target, wires: Wires, prefix: bytes) -> None:
        self._target = target
        self._wires = wires
        self._slot = key_slot(prefix) if target.kind == "cluster" else 0
        self._known: list[Node] = list(target.nodes)
        self.node: Node | None = None
        """The one that was dialled last."""

    async def dial(self) -> Link:
        """A connection to the server. Raises LinkDown."""
        if self._target.kind == "sentinel":
            return await self.to(await self._master())
        if self._target.kind == "cluster":
            return await self._owner()
        return await self.to(self._target.nodes[0])

    async def to(self, node: Node) -> Link:
        """A connection to one server."""
        link = await self._wires.connect(node, self._target.options, self._target.tls)
        self.node = node
        return link

    def moved(self, address: str) -> None:
        """The slot is at another node, which is asked first from now on; without a host it is the one dialled last."""
        host, _, port = address.rpartition(":")
        self._prefer(Node(host or (self.node.host if self.node is not None else "localhost"), int(port)))

    def _prefer(self, node: Node) -> None:
        self._known = [node, *(known for known in self._known if known != node)]

    async def _master(self) -> Node:
        """Ask the Sentinels, the one that answered last first."""
        problems = []
        for sentinel in list(self._known):
            try:
                link = await self._wires.connect(sentinel, self._target.sentinel_options or {}, self._target.tls)
                try:
                    ask = pack(("SENTINEL", "get-master-addr-by-name", self._target.service))
                    (reply,) = await link.exchange(ask, 1, CONNECT_SECONDS)
                finally:
                    link.close()
            except LinkDown as error:
                problems.append(str(error))
                continue
            if isinstance(reply, list):
                self._prefer(sentinel)
                return Node(reply[0].decode(), int(reply[1]))
            refused = isinstance(reply, hiredis.ReplyError)
            problems.append(
                f"{sentinel}: {reply}" if refused else f"{sentinel} knows no service {self._target.service!r}"
            )
        raise LinkDown("; ".join(problems))

    async def _owner(self) -> Link:
        """Ask any node of the Cluster which one has the slot of the namespace."""
        problems = []
        for node in list(self._known):
            try:
                link = await self.to(node)
                try:
                    (slots,) = await link.exchange(pack(("CLUSTER", "SLOTS")), 1, CONNECT_SECONDS)
                except BaseException:
                    link.close()
                    raise
            except LinkDown as error:
                problems.append(str(error))
                continue
            owner = self._learn(slots, node) if isinstance(slots, list) else None
            if owner is None or owner == node:
                return link  # the Cluster does not say yet: its answers will
            link.close()
            try:
                return await self.to(owner)
            except LinkDown as error:
                problems.append(str(error))
        raise LinkDown("; ".join(problems))

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
