"""The servers of http_get and sse_fanout: milepost's, and the alternatives for a service, in one environment.

An application answers GET /api/jobs/x, or streams /api/jobs/x/events and has POST /go, which makes EVENTS events. The secret
of a key, where there is one, is in the first line of what it prints.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

Messages = Callable[..., Any]
EVENTS = int(os.environ.get("BENCH_EVENTS", "100"))

RECORD = {
    "job_id": "x",
    "job_type": "ingestion",
    "status": "running",
    "progress": 0.5,
    "message": "Embedding",
    "created_at": "2026-11-25T01:00:00.000000+00:00",
    "started_at": "2026-11-25T01:00:00.000000+00:00",
    "completed_at": None,
    "error": None,
    "result": None,
    "metadata": {"file_path": "/a/b.pdf", "filename": "b.pdf"},
}
BODY = (
    b'{"job_id":"x","job_type":"ingestion","status":"running","progress":0.5,"message":"Embedding","created_at":'
    b'"2026-11-25T01:00:00.000000+00:00","started_at":"2026-11-25T01:00:00.000000+00:00","completed_at":null,'
    b'"error":null,"result":null,"metadata":{"file_path":"/a/b.pdf","filename":"b.pdf"}}'
)
DATA = '{"progress":0.5,"message":"' + "m" * 60 + '","status":"running","at":"2026-11-25T01:00:00.000000+00:00"}'
FRAME = f"id: 5\nevent: progress\ndata: {DATA}\n\n".encode()


class Boxes:
    """The frames that each stream sends next; the minimum for delivery of one event to many clients."""

    def __init__(self) -> None:
        self._boxes: list[tuple[list[bytes], asyncio.Event]] = []

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the new frames of one client, joined."""
        box: tuple[list[bytes], asyncio.Event] = ([], asyncio.Event())
        self._boxes.append(box)
        frames, news = box
        yield b": hello\n\n"
        while True:
            await news.wait()
            news.clear()
            joined, frames[:] = b"".join(frames), []
            yield joined

    async def go(self) -> None:
        """Deliver the events, one per turn of the loop."""
        for _ in range(EVENTS):
            for frames, news in self._boxes:
                frames.append(FRAME)
                news.set()
            await asyncio.sleep(0)


def floor() -> Messages:
    """Raw ASGI with prebuilt bytes."""
    boxes = Boxes()

    async def app(scope: Any, receive: Messages, send: Messages) -> None:
        if scope["type"] != "http":
            return
        streams = scope["path"].endswith("/events")
        headers = [(b"content-type", b"text/event-stream" if streams else b"application/json")]
        if streams:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for frame in boxes.stream():
                await send({"type": "http.response.body", "body": frame, "more_body": True})
            return
        if scope["path"] == "/go":
            await boxes.go()
        headers.append((b"content-length", b"%d" % len(BODY)))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": BODY})

    return app


def starlette() -> Messages:
    """Starlette: a JSON response, a streaming response."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, StreamingResponse
    from starlette.routing import Route

    boxes = Boxes()

    async def get(request: Request) -> JSONResponse:
        return JSONResponse(RECORD)

    async def events(request: Request) -> StreamingResponse:
        return StreamingResponse(boxes.stream(), media_type="text/event-stream")

    async def go(request: Request) -> JSONResponse:
        await boxes.go()
        return JSONResponse({})

    return Starlette(
        routes=[
            Route("/api/jobs/{job_id}", get),
            Route("/api/jobs/{job_id}/events", events),
            Route("/go", go, methods=["POST"]),
        ]
    )


def sse_starlette() -> Messages:
    """sse-starlette, which encodes each event for each client."""
    from sse_starlette import EventSourceResponse
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    boxes = Boxes()

    async def events(request: Request) -> EventSourceResponse:
        async def sent() -> AsyncIterator[dict[str, str]]:
            async for frame in boxes.stream():
                for _ in range(frame.count(b"event:")):
                    yield {"id": "5", "event": "progress", "data": DATA}

        return EventSourceResponse(sent())

    async def go(request: Request) -> JSONResponse:
        await boxes.go()
        return JSONResponse({})

    return Starlette(routes=[Route("/api/jobs/{job_id}/events", events), Route("/go", go, methods=["POST"])])


def fastapi_bytes() -> Messages:
    """FastAPI that returns prebuilt bytes."""
    from fastapi import FastAPI, Response

    app = FastAPI()

    @app.get("/api/jobs/{job_id}")
    async def get(job_id: str) -> Response:
        return Response(BODY, media_type="application/json")

    return app


def fastapi() -> Messages:
    """FastAPI with a response model."""
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Job(BaseModel):
        job_id: str
        job_type: str
        status: str
        progress: float
        message: str
        created_at: datetime
        started_at: datetime | None
        completed_at: datetime | None
        error: str | None
        result: dict[str, Any] | None
        metadata: dict[str, Any]

    now = datetime.now(UTC)
    job = Job.model_validate(RECORD | {"created_at": now, "started_at": now})
    app = FastAPI()

    async def get(job_id: str) -> Any:
        return job

    app.get("/api/jobs/{job_id}", response_model=Job)(get)
    return app


def milepost() -> Messages:
    """milepost without authentication."""
    from milepost.web import auth

    return _milepost(auth.none())


def milepost_keys() -> Messages:
    """milepost with API keys."""
    from milepost.web import auth

    return _milepost(auth.api_keys())


def _milepost(access: Any) -> Messages:
    from milepost import AsyncJobManager
    from milepost.stores.sync_bridge import run_sync
    from milepost.web import create_app
    from milepost.web.security.api_keys import ApiKeyStore

    manager = AsyncJobManager("memory://")
    metadata = {"file_path": "/a/b.pdf", "filename": "b.pdf"}

    async def prepare() -> None:
        await manager.create_job("x", "ingestion", metadata, labels={"owner": "ana"})
        await manager.update_job("x", "running", progress=0.5, message="Embedding")
        _, secret = await ApiKeyStore(manager.store).create("bench", ["jobs:read"])
        print(secret, flush=True)

    run_sync(prepare())  # a store in memory never suspends
    app = create_app(manager, auth=access)

    @app.post("/go")
    async def go() -> None:
        for _ in range(EVENTS):
            await manager.update_job("x", progress=0.5, message="m" * 60)
            await asyncio.sleep(0)

    return app


def app() -> Messages:
    """Return the application that BENCH_PEER names, for `uvicorn --factory benchmarks.peers.web:app`."""
    made: Messages = globals()[os.environ["BENCH_PEER"]]()
    return made
