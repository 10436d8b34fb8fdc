"""The servers that the browser tests look at, in one process: `python -m tests.dashboard.stage PORT PORT [PAST RUNNING [HOSTILE]]`.

The first port has the dashboard at /jobs/ without keys; the second has it at /, under /a/b/c/, behind a prefix that is
stripped (/stripped/jobs/), and with keys (/keyed/jobs/). All show the same jobs, which a real worker runs. The keys are printed as a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Literal

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from milepost.web import auth, create_app
from milepost.web.demo import Demo, create_demo

HOSTILE = "<img src=x onerror=window.hacked=1>"


class Prefixes:
    """Gives a request to the application of its prefix."""

    def __init__(self, apps: dict[str, ASGIApp], stripped: frozenset[str], rest: ASGIApp) -> None:
        self.apps, self.stripped, self.rest = apps, stripped, rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for prefix, app in self.apps.items():
            if scope["type"] == "http" and (scope["path"] == prefix or scope["path"].startswith(prefix + "/")):
                # A proxy strips the prefix and says nothing of it; a mount says it as the root path (and keeps the path).
                changed: dict[str, object] = {"root_path": scope.get("root_path", "") + prefix}
                if prefix in self.stripped:
                    path = scope["path"][len(prefix) :]
                    changed = {"path": path, "raw_path": path.encode()}
                await app({**scope, **changed}, receive, send)
                return
        await self.rest(scope, receive, send)


async def _hostile(demo: Demo) -> None:
    made = await demo.jobs.create_job(job_type="script", metadata={"title": HOSTILE}, labels={"owner": HOSTILE})
    await demo.jobs.update_job(made.job_id, status="running", message=HOSTILE, progress=0.5)
    other = await demo.jobs.create_job("hostile", "script", {"title": HOSTILE, HOSTILE: HOSTILE})
    await demo.jobs.update_job(other.job_id, status="failed", error=HOSTILE)


async def main(ports: list[int], past: int, running: int, hostile: bool = True, settle: float = 0.0) -> None:
    """Serve until the process is ended."""
    demo = Demo(past=past, running=running, settle=settle)
    first = create_demo(demo)
    keyed = create_app(demo.jobs, auth=auth.api_keys())
    keys = keyed.state.milepost.authenticator.keys
    _, admin = await keys.create("admin", ["admin"])
    _, reader = await keys.create("reader", ["jobs:read"])
    if hostile:
        await _hostile(demo)
    print(json.dumps({"admin": admin, "reader": reader}), flush=True)

    def plain(dashboard: str) -> FastAPI:
        return create_app(demo.jobs, auth=auth.none(), dashboard=dashboard)

    apps: dict[str, ASGIApp] = {"/a/b": plain("/c"), "/stripped": plain("/jobs"), "/keyed": keyed}
    second = Prefixes(apps, frozenset({"/stripped"}), plain("/"))
    lives: tuple[tuple[ASGIApp, int, Literal["on", "off"]], ...] = ((first, ports[0], "on"), (second, ports[1], "off"))
    servers = [
        uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan=life, timeout_graceful_shutdown=1))
        for app, port, life in lives
    ]
    await asyncio.gather(*(server.serve() for server in servers))


if __name__ == "__main__":
    past, running, hostile, settle = [float(text) for text in sys.argv[3:]] or [300, 12, 1, 0]
    asyncio.run(main([int(sys.argv[1]), int(sys.argv[2])], int(past), int(running), bool(hostile), settle))
