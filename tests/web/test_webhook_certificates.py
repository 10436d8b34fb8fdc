"""The certificate of a webhook's receiver is verified for its own host, also where several hosts have one address."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from milepost import AsyncJobManager
from milepost.manager.feed_follower import FeedFollower
from milepost.web.webhooks import addresses, registry
from milepost.web.webhooks.delivery import WebhookSender
from milepost.web.webhooks.registry import Delivery, WebhookEndpoint
from tests.waiting import PATIENCE

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Receiver:
    """An HTTPS server on a loopback address with a certificate for one host."""

    def __init__(self, host: str) -> None:
        trustme = pytest.importorskip("trustme")
        authority = trustme.CA()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(host).configure_cert(self._tls)
        self.trusted = ssl.create_default_context()
        authority.configure_trust(self.trusted)
        self.hosts: list[str] = []
        self.connections = 0

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                fields = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:-2])
                await reader.readexactly(int(fields["content-length"]))
                self.hosts.append(fields["host"].partition(":")[0])
                writer.write(OK)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def __aenter__(self) -> Receiver:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()


async def test_connection_of_another_host_is_not_used(memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(url: str) -> str:
        return "127.0.0.1"

    async with asyncio.timeout(PATIENCE), Receiver("first.example.org") as receiver:
        monkeypatch.setattr(addresses, "_ssl_context", lambda: receiver.trusted)
        sender = WebhookSender(FeedFollower(lambda: memory.store), resolve=resolve)

        async def hook_of(host: str) -> WebhookEndpoint:
            hook = await registry.create(memory.store, f"https://{host}:{receiver.port}/in")
            for number in range(2):
                await registry.save_delivery(memory.store, Delivery(hook.id, f"msg_{number}", "{}", 0))
            return hook

        first, second = await hook_of("first.example.org"), await hook_of("second.example.org")
        assert await sender.send_due(first) == 2
        assert receiver.connections == 1, "the messages of a webhook share a connection"
        assert await sender.send_due(second) == 0
        assert receiver.hosts == ["first.example.org"] * 2
        (problem,) = {one.problem for one in await registry.deliveries(memory.store, second.id)} - {""}
        assert "certificate" in problem.lower()
