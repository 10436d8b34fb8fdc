"""Streams whose client never reads: they end, and do not keep the server from stopping."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.waiting import PATIENCE, until
from tests.web.server import Server

pytestmark = pytest.mark.timing

APP = """
import asyncio
import uvicorn
from milepost.web import serve
from milepost.web.live import sse
from tests.web.driven_app import app, manager

sse.SLOW_SECONDS = {slow}

@app.post("/flood")
async def flood(job_id: str):
    for number in range(20_000):  # until the buffers of both ends are full
        await manager.update_job(job_id, message=str(number) + "x" * 1000)
        if number % 500 == 0:
            await asyncio.sleep(0.2)
            now = asyncio.get_running_loop().time()
            if all(now - (reader.sending_since or now) > 0.1 for reader in app.state.milepost.hub._all_clients()):
                return
    raise AssertionError("the client is not stalled")

@app.get("/clients")
async def clients() -> int:
    return app.state.milepost.hub.clients

"""
OWN = "serve(app, port={port}, auth='none', log_level='error')"
OTHER = "uvicorn.run(app, port={port}, log_level='critical', timeout_graceful_shutdown=2)"


@contextmanager
def stalled(server: Server) -> Iterator[socket.socket]:
    """Open the stream of a job with many events, and read none of it."""
    job_id = server.drive("create_job")["job_id"]
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(f"GET /api/jobs/{job_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        until(lambda: httpx.get(f"{server.url}/clients").json() == 1)
        httpx.post(f"{server.url}/flood", params={"job_id": job_id}, timeout=PATIENCE)
        yield client


@pytest.mark.parametrize("run", [OWN, OTHER])
def test_stream_of_stalled_client_ends(run: str) -> None:
    with Server(code=APP.replace("{slow}", "0.5") + run) as server, stalled(server) as client:
        until(lambda: httpx.get(f"{server.url}/clients").json() == 0)
        if run is OWN:
            client.settimeout(PATIENCE)
            while client.recv(65536):
                pass  # the server has closed the connection; what it had not sent yet is discarded
        server.end()


@pytest.mark.parametrize("run", [OWN, OTHER])
def test_stalled_client_does_not_block_shutdown(run: str) -> None:
    with Server(code=APP.replace("{slow}", "600") + run) as server, stalled(server):
        server.end()
