"""Jobs in Django's admin: the dashboard, with the session and the permissions of the admin."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.contrib import admin
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.views.decorators.csrf import csrf_exempt

from milepost.core.errors import MissingExtraError
from milepost.django.backend import milepost_backends
from milepost.django.embedded_app import EmbeddedApp
from milepost.django.models import Job

PERMISSIONS = {"view_job": "jobs:read", "change_job": "jobs:write", "delete_job": "jobs:delete"}
"""The scope that each permission gives. Superusers also have the scope `admin`."""

USER = "milepost.user"
"""The key of the user in the ASGI scope."""


def _make_app() -> Any:
    """Return the web interface to the jobs of the first milepost backend of TASKS."""
    try:
        from fastapi import Request

        from milepost.web import create_app
        from milepost.web.auth import refuse_forgery
    except ImportError as missing:
        raise MissingExtraError("django", "the jobs in the admin") from missing

    async def user(request: Request) -> Any:
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            refuse_forgery(request, ambient=True)  # the session cookie of the admin
        return request.scope[USER]

    user.__annotations__["request"] = Request
    return create_app(milepost_backends()[0].jobs, auth=user)


dashboard = EmbeddedApp(_make_app)


@admin.register(Job)
class JobAdmin(admin.ModelAdmin):
    """Shows the dashboard in place of a list, and a job in place of a form."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may see jobs, and TASKS has a milepost backend."""
        return bool(milepost_backends()) and bool(request.user.has_perm("milepost.view_job"))

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: the dashboard submits jobs."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: the pages only show, and the dashboard checks what a user may change."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: the dashboard deletes jobs."""
        return False

    def get_urls(self) -> list[Any]:
        """Return the pages of the admin and, below ``live/``, the dashboard with its API."""
        page = self.admin_site.admin_view(self.page)
        return [
            path("", page, name="milepost_job_changelist"),
            path("live/<path:path>", csrf_exempt(self.live), name="milepost_job_live"),
            path("<str:job_id>/", page, name="milepost_job_change"),
        ]

    def page(self, request: HttpRequest, job_id: str | None = None) -> HttpResponseBase:
        """Return a page of the admin with the dashboard in it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        live = reverse(f"{self.admin_site.name}:milepost_job_live", args=["jobs/"])
        context = {
            **self.admin_site.each_context(request),
            "title": self.opts.verbose_name_plural.capitalize(),
            "opts": self.opts,
            "live": live if job_id is None else f"{live}?job={job_id}",
        }
        return TemplateResponse(request, "milepost/jobs.html", context)

    async def live(self, request: HttpRequest, path: str) -> HttpResponseBase:
        """Return what the dashboard's application responds to a user of the admin."""
        user = await sync_to_async(self._principal)(request)
        if user is None:
            return redirect_to_login(request.get_full_path(), reverse(f"{self.admin_site.name}:login"))
        mount = request.path.removesuffix(path)
        response = await dashboard.respond(request, mount, {USER: user})
        if "X-Frame-Options" in response.headers:  # a page of the dashboard, which only the admin's page may show
            response["X-Frame-Options"] = "SAMEORIGIN"
            policy = response["Content-Security-Policy"]
            response["Content-Security-Policy"] = policy.replace("frame-ancestors 'none'", "frame-ancestors 'self'")
        return response

    def _principal(self, request: HttpRequest) -> Any | None:
        """Return the user of the session with the scopes of its permissions, or None if it may not see jobs."""
        from milepost.web.security.principals import ADMIN, Principal

        if not self.admin_site.has_permission(request) or not self.has_view_permission(request):
            return None
        scopes = {scope for name, scope in PERMISSIONS.items() if request.user.has_perm(f"milepost.{name}")}
        if request.user.is_superuser:
            scopes.add(ADMIN)
        return Principal(request.user.get_username(), frozenset(scopes))
