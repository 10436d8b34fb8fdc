"""The calls, a file for what they are about."""

from __future__ import annotations

from fastapi import APIRouter

from milepost.web.routes.jobs import add_jobs
from milepost.web.routes.streams import add_streams
from milepost.web.site import Site


def add_routes(router: APIRouter, site: Site) -> None:
    """Add every call under ``/api``."""
    add_jobs(router, site)
    add_streams(router, site)
