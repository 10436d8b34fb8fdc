"""Jobs in the admin, through Django's test clients, as under a WSGI and an ASGI server."""

import asyncio
import json
import threading
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.test import AsyncClient, AsyncRequestFactory, Client, TransactionTestCase, override_settings
from starlette.applications import Starlette
from starlette.routing import Route

from blog import tasks
from milepost.django.embedded_app import EmbeddedApp
from milepost.django.tasks_api import task_backends

JOBS = "/admin/milepost/job/"
API = f"{JOBS}live/api/jobs"


@override_settings(TASKS={"default": settings.TASKS["sqlite"]})
class Admin(TransactionTestCase):
    """What users of the admin see and may do."""

    def setUp(self) -> None:
        """Enqueue a task, which no worker runs."""
        self.jobs = task_backends["default"].jobs
        self.job_id = tasks.add.enqueue(1).id

    def tearDown(self) -> None:
        """Remove it."""
        for job in self.jobs.find(limit=100).jobs:
            self.jobs.delete_job(job.job_id)

    def signed_in(self, *permissions: str, client: Any = None, **user: bool) -> Any:
        """Return a client of a user with these permissions."""
        found = User.objects.create_user(f"user{User.objects.count()}", is_active=True, **{"is_staff": True, **user})
        found.user_permissions.set(
            Permission.objects.filter(content_type__app_label="milepost", codename__in=permissions)
        )
        client = Client() if client is None else client
        client.force_login(found)
        return client

    def cancelled(self, client: Any, **headers: str) -> int:
        """Cancel the job, and return the status of the response."""
        headers = headers or {"sec_fetch_site": "same-origin"}
        response = client.post(
            f"{API}/{self.job_id}/cancel", "{}", content_type="application/json",
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )  # fmt: skip
        return int(response.status_code)

    def test_permissions_decide_what_a_user_may_do(self) -> None:
        for stranger in (Client(), self.signed_in(), self.signed_in("view_job", is_staff=False)):
            assert stranger.get(API).status_code == 302
            assert stranger.get(JOBS).status_code in (302, 403)
        viewer = self.signed_in("view_job")
        assert viewer.get(API).json()["jobs"][0]["job_id"] == self.job_id
        assert self.cancelled(viewer) == 403
        editor = self.signed_in("view_job", "change_job")
        assert self.cancelled(editor) == 200
        assert self.jobs.get_job(self.job_id).status == "cancelled"
        assert editor.delete(f"{API}/{self.job_id}", headers={"sec-fetch-site": "same-origin"}).status_code == 403
        assert self.signed_in(is_superuser=True).get(f"{JOBS}live/api/keys").status_code == 200
        assert editor.get(f"{JOBS}live/api/keys").status_code == 403

    def test_request_of_another_site_is_refused(self) -> None:
        editor = self.signed_in("view_job", "change_job")
        for headers in ({"sec_fetch_site": "cross-site"}, {"origin": "https://other.example"}, {"accept": "*/*"}):
            assert self.cancelled(editor, **headers) == 403
        assert self.cancelled(editor, origin="http://testserver") == 200

    def test_page_shows_the_dashboard_in_a_frame(self) -> None:
        viewer = self.signed_in("view_job")
        page = viewer.get(f"{JOBS}{self.job_id}/")
        frame = f"{JOBS}live/jobs/?job={self.job_id}"
        self.assertContains(page, f'src="{frame}"')
        inner = viewer.get(frame)
        assert inner["X-Frame-Options"] == "SAMEORIGIN"
        assert "frame-ancestors 'self'" in inner["Content-Security-Policy"]
        self.assertContains(viewer.get("/admin/"), JOBS)
        assert viewer.get(f"{JOBS}live/unknown").status_code == 404

    def test_stream_under_wsgi(self) -> None:
        response = self.signed_in("view_job").get(f"{API}/{self.job_id}/events")
        assert response["Content-Type"].startswith("text/event-stream")
        read = b""
        for chunk in response.streaming_content:
            read += chunk
            if b"pending" in chunk:
                self.jobs.cancel_job(self.job_id)
        assert b"cancelled" in read

    def test_stream_under_asgi(self) -> None:
        client = self.signed_in("view_job", client=AsyncClient())

        @async_to_sync
        async def follow() -> bytes:
            response = await client.get(f"{API}/{self.job_id}/events")
            read = b""
            async for chunk in response.streaming_content:
                read += chunk
                if b"pending" in read:
                    break
            return read

        assert json.loads(follow().split(b"data: ")[1].split(b"\n")[0])["job_id"] == self.job_id

    def test_stream_ends_when_its_client_leaves_before_the_first_bytes(self) -> None:
        begun, ended = threading.Event(), threading.Event()

        async def silent(request: Any) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        dashboard = EmbeddedApp(lambda: Starlette(routes=[Route("/", silent)]))

        @async_to_sync
        async def leave() -> None:
            response = asyncio.create_task(dashboard.respond(AsyncRequestFactory().get("/"), "/", {}))
            await asyncio.to_thread(begun.wait, 60)
            response.cancel()
            await asyncio.wait([response])

        leave()
        assert ended.wait(60)

    def test_stream_of_a_single_threaded_server_ends_soon(self) -> None:
        client = self.signed_in("view_job")
        response = client.get(f"{JOBS}live/api/events", **{"wsgi.multithread": False})
        assert b"data: " in b"".join(response.streaming_content)
