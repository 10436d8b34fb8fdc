"""The API mounted in another framework that can mount ASGI applications (Litestar, Django).

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
    """Create a job that another process will update."""
    job = await manager.create_job(job_type="by-hand")
    return PlainTextResponse(job.job_id)


app = Starlette(
    routes=[Route("/begin", begin, methods=["POST"]), Mount("/background", interface)],
    # A mounted application's lifespan is not run by the one around it.
    lifespan=interface.state.milepost.lifespan,
)
