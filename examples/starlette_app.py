"""The interface mounted in another framework: any that mounts ASGI applications will do (Litestar, Django's ASGI).

uvicorn starlette_app:app --app-dir examples        the dashboard is at /background/jobs/
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from milepost import AsyncJobManager
from milepost.web import auth, create_app

manager = AsyncJobManager()
interface = create_app(manager, auth=auth.none())


async def begin(request: Request) -> Response:
    """Record a job that somebody else will drive."""
    job = await manager.create_job(job_type="by-hand")
    return PlainTextResponse(job.job_id)


app = Starlette(
    routes=[Route("/begin", begin, methods=["POST"]), Mount("/background", interface)],
    # A mounted application's lifespan is not run by the one around it.
    lifespan=interface.state.milepost.lifespan,
)
