"""Django's ASGI application with the API, the dashboard and a worker in one process: a view submits jobs, the page shows them live.

uvicorn django_app:app --app-dir examples        the dashboard is at /background/jobs/
curl -X POST http://127.0.0.1:8000/reports/2026
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from starlette.applications import Starlette
from starlette.routing import Mount

from milepost import Jobs, Run
from milepost.web import auth, create_app

jobs = Jobs()  # MILEPOST_URL, else REDIS_URL, else in memory


@jobs.job("report")
def make_report(run: Run, year: int) -> dict[str, int]:
    """Process the months of a year."""
    for month in run.each(range(1, 13)):
        run.progress(message=f"Month {month} of {year}")
    return {"year": year, "months": 12}


@csrf_exempt
@require_POST
def begin(request: HttpRequest, year: int) -> JsonResponse:
    """Submit a job, and return its URL."""
    job = jobs.submit(make_report, year=year)
    return JsonResponse({"job_id": job.job_id, "events": f"/background/api/jobs/{job.job_id}/events"}, status=202)


urlpatterns = [path("reports/<int:year>", begin)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], DATABASES={})
django.setup()

interface = create_app(jobs, auth=auth.none())  # in production: auth.api_keys(), or a dependency that asks Django


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Run a worker beside the views. A mounted application's lifespan is not run by the one around it, and Django has none."""
    async with interface.state.milepost.lifespan():
        with jobs.run_workers(workers=1):
            yield


app = Starlette(
    routes=[Mount("/background", interface), Mount("/", get_asgi_application())],
    lifespan=lifespan,
)
