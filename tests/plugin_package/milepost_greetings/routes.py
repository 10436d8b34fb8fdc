"""The API route `GET /api/greetings`."""

from fastapi import APIRouter, FastAPI

from milepost.web.security.principals import READ


def attach_greetings(app: FastAPI) -> None:
    """Add the route, for callers that may read jobs."""
    context = app.state.milepost
    router = APIRouter(dependencies=[context.authenticator.require(READ)])

    @router.get("/api/greetings")
    async def greetings() -> dict[str, list[str]]:
        manager = context.manager
        jobs = await manager.list_jobs("greet", "completed")
        return {"greetings": [await manager.result(job) for job in jobs]}

    app.include_router(router)
