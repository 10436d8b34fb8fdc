"""The calls, a file for what they are about."""

from __future__ import annotations

from fastapi import APIRouter

from milepost.web.routes.access import add_access
from milepost.web.routes.bulk import add_bulk
from milepost.web.routes.jobs import add_jobs
from milepost.web.routes.operation import add_operation
from milepost.web.routes.overview import add_overview
from milepost.web.routes.parts import add_parts
from milepost.web.routes.streams import add_streams
from milepost.web.routes.submission import add_submission
from milepost.web.routes.webhooks import add_webhooks
from milepost.web.site import Site


def add_routes(router: APIRouter, site: Site) -> None:
    """Add every call under ``/api``."""
    for add in (
        add_jobs,
        add_submission,
        add_bulk,
        add_parts,
        add_streams,
        add_overview,
        add_access,
        add_operation,
        add_webhooks,
    ):
        add(router, site)
