"""The routes under /api, one module for each subject."""

from __future__ import annotations

from fastapi import APIRouter

from milepost.web.api.access import add_access
from milepost.web.api.batches import add_batches
from milepost.web.api.bulk import add_bulk
from milepost.web.api.health import add_admin
from milepost.web.api.jobs import add_job_details, add_jobs
from milepost.web.api.limits import add_limits
from milepost.web.api.overview import add_overview
from milepost.web.api.schedules import add_schedules
from milepost.web.api.streams import add_streams
from milepost.web.api.submit import add_submit
from milepost.web.api.usage import add_usage
from milepost.web.api.webhooks import add_webhooks
from milepost.web.context import WebContext


def add_routes(router: APIRouter, context: WebContext) -> None:
    """Add all routes under ``/api``."""
    for add in (
        add_jobs,
        add_submit,
        add_bulk,
        add_job_details,
        add_streams,
        add_overview,
        add_schedules,
        add_batches,
        add_limits,
        add_usage,
        add_access,
        add_admin,
        add_webhooks,
    ):
        add(router, context)
