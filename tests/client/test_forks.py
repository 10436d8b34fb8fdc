"""HTTP clients in a forked child: two processes on one connection would get each other's responses."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from milepost import Client
from milepost.documents.http_endpoint import HttpEndpoint
from tests.forking import fork

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


class Server(ThreadingHTTPServer):
    """A server that keeps connections open, and notes from which port each request came."""

    daemon_threads = True

    def __init__(self) -> None:
        self.ports: list[int] = []
        super().__init__(("127.0.0.1", 0), Answer)


class Answer(BaseHTTPRequestHandler):
    """Answers each request with an empty object."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.ports.append(self.client_address[1])
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def of_client(url: str) -> Callable[[], object]:
    """Return a request of a client."""
    client = Client(url)
    return lambda: client.request("POST", "/api/jobs", body={})


def of_endpoint(url: str) -> Callable[[], object]:
    """Return a request to a model."""
    endpoint = HttpEndpoint(url)
    return lambda: endpoint.post("/embeddings", {}, dict)


@pytest.mark.parametrize("make", [of_client, of_endpoint])
def test_forked_child_sends_requests_on_connections_of_its_own(
    server: Server, make: Callable[[str], Callable[[], object]]
) -> None:
    request = make(f"http://127.0.0.1:{server.server_port}")
    request()
    request()
    assert fork(request) == 0
    first, again, child = server.ports
    assert first == again != child
