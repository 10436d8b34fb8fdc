"""AsyncClient: the methods of AsyncJobManager over HTTP. Owns which call each of them is; `Client` is the same for code
that blocks.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx

from milepost.client.answers import event_of, job_of, page_of, part_of
from milepost.client.following import follow
from milepost.client.port import AsyncPort, Call, Port, send
from milepost.core.defaults import LIST_LIMIT
from milepost.core.encoding import job_id_text, one_line, seconds
from milepost.core.errors import InvalidInput, JobNotFound, OutcomeUnknown, WaitTimeout
from milepost.core.events import Event
from milepost.core.job import Job, JobStatus
from milepost.manager.asynchronous import AsyncJobManager
from milepost.manager.requests import Duration, mapping, status_value
from milepost.settings import Settings, settings
from milepost.stores.filters import Filter
from milepost.stores.protocol import Store
from milepost.stores.query import Page, Query
from milepost.tracking.block import AsyncTrack
from milepost.worker.published import JobType, WorkerEntry

POLL = 25.0


class AsyncClient(AsyncJobManager):
    """The jobs of a server, with the methods of AsyncJobManager: code moves between local and remote by one line.

    `key` is an API key (default: MILEPOST_KEY); `options` go to httpx.AsyncClient. A server that is away is tried again
    for 30 s where that is safe, one that has never answered for 5 s.
    """

    def __init__(self, url: str, *, key: str | None = None, **options: Any) -> None:
        self.settings: Settings = settings.current()
        self.url = server_address(url)
        self._port: Port = self._open(key if key is not None else os.environ.get("MILEPOST_KEY"), options)

    def _open(self, key: str | None, options: dict[str, Any]) -> Port:
        return AsyncPort(httpx.AsyncClient(**connection(self.url, key, options)))

    @property
    def store(self) -> Store:  # type: ignore[override]
        """A server keeps its store to itself. Raises InvalidInput."""
        raise InvalidInput("url", f"{self.url} is a server; what needs the store itself needs its URL")

    @property
    def ttl(self) -> float:  # type: ignore[override]
        """How long jobs are kept is the server's to say; this is what the environment here says."""
        return self.settings.job_ttl

    async def request(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None
    ) -> Any:
        """Any call of the interface (``request("GET", "/api/stats")``): its JSON, or None. Raises as the others do."""
        call = Call(method, path, dict(params or {}), body, safe=method in ("GET", "DELETE"))
        answer = await send(self._port, call)
        return answer.json() if answer.content else None

    # --- the original's five ---

    async def create_job(
        self,
        job_id: str | None = None,
        job_type: str = "generic",
        metadata: Mapping[str, Any] | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        unique_key: str | None = None,
        stale_after: Duration | None = None,
        on_stale: str | None = None,
        parent_id: str | None = None,
        trace: str | None = None,
    ) -> Job:
        """See AsyncJobManager.create_job."""
        body = {
            "driver": "caller",
            "job_id": job_id,
            "job_type": job_type,
            "metadata": mapping(metadata, "metadata"),
            "labels": dict(labels) if labels else None,
            "unique_key": unique_key,
            "stale_after": None if stale_after is None else seconds(stale_after, "stale_after"),
            "on_stale": on_stale,
            "parent_id": parent_id,
        }
        headers = {"Idempotency-Key": str(uuid.uuid4())} | ({"traceparent": trace} if trace else {})
        return await self._job(Call("POST", "/api/jobs", body=_given(body), headers=headers))

    async def get_job(self, job_id: str) -> Job | None:
        """See AsyncJobManager.get_job."""
        try:
            path = _path(job_id)
        except JobNotFound:
            return None
        answer = await send(self._port, Call("GET", path, job_id=job_id, accepts=(404,)))
        return None if answer.status_code == 404 else job_of(answer.json())

    async def update_job(
        self,
        job_id: str,
        status: JobStatus | str | None = None,
        progress: float | None = None,
        message: str | None = None,
        error: str | None = None,
        result: Any = None,
    ) -> None:
        """See AsyncJobManager.update_job."""
        target = status_value(status)
        body = {
            "status": None if target is None else target.value,
            "progress": progress,
            "message": message,
            "error": error,
            "result": result,
        }
        # Progress never goes back and an end is final, so the same update again does no harm.
        call = Call("PATCH", _path(job_id), body=_given(body), job_id=job_id, safe=target is None)
        await self._with_job(call)

    async def delete_job(self, job_id: str) -> None:
        """See AsyncJobManager.delete_job."""
        try:
            path = _path(job_id)
        except JobNotFound:
            return
        await send(self._port, Call("DELETE", path, accepts=(404,)))

    async def find(self, query: Query | Filter | str | None = None, limit: int = LIST_LIMIT, cursor: str | None = None) -> Page:  # fmt: skip
        """One page of the jobs that match: a filter's text, a parsed one, or the plain part of a query."""
        params: dict[str, Any] = {"limit": limit}
        if cursor:
            params["cursor"] = cursor
        if isinstance(query, str | Filter):
            params["q"] = query if isinstance(query, str) else query.text
        elif query is not None:
            params["q"] = _text_of(query)
            params["label"] = [f"{name}:{value}" for name, value in query.select.labels]
        answer = await send(self._port, Call("GET", "/api/jobs", params))
        return page_of(answer.json())

    async def _page(self, query: Query, limit: int, cursor: str | None, *, counted: bool) -> Page:
        return await self.find(query, limit, cursor)

    # --- beyond it ---

    async def count_jobs(
        self,
        job_type: str | None = None,
        status: JobStatus | str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        stalled: bool = False,
    ) -> int:
        """See AsyncJobManager.count_jobs."""
        page = await self.find(_plain(job_type, status, labels, stalled), 1000)
        total = len(page.jobs)
        while page.total is None and page.next_cursor is not None:
            page = await self.find(_plain(job_type, status, labels, stalled), 1000, page.next_cursor)
            total += len(page.jobs)
        return total if page.total is None else page.total

    async def cancel_job(self, job_id: str, reason: str | None = None, *, by: str | None = None) -> Job:
        """See AsyncJobManager.cancel_job; `by` is the server's to say."""
        body = {} if reason is None else {"reason": reason}
        call = Call("POST", _path(job_id, "/cancel"), body=body, job_id=job_id, safe=False)
        try:
            await self._with_job(call)
        except OutcomeUnknown:
            # A cancel is final, so the record tells whether it went through.
            job = await self.get_job(job_id)
            if job is None or job.status is not JobStatus.CANCELLED:
                raise
            return job
        return await self._known(job_id)

    async def retry_job(self, job_id: str, *, only_failed: bool = False) -> Job:
        """See AsyncJobManager.retry_job."""
        body = {"only_failed": only_failed}
        answer = await self._with_job(Call("POST", _path(job_id, "/retry"), body=body, job_id=job_id, safe=False))
        return job_of(answer.json())

    async def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[Event]:
        """See AsyncJobManager.events."""
        params, headers = {"after": after, "limit": min(limit, 1000)}, {"Accept": "application/json"}
        call = Call("GET", _path(job_id, "/events"), params, headers=headers, job_id=job_id)
        return [event_of(event) for event in (await send(self._port, call)).json()]

    def watch(self, job_id: str, after: int | None = None) -> AsyncIterator[Event]:
        """See AsyncJobManager.watch; a broken connection is taken up again where it was."""
        return follow(self._port, job_id, _path(job_id, "/events"), after)

    async def wait(self, job_id: str, timeout: Duration | None = None) -> Job:
        """See AsyncJobManager.wait."""
        limit = None if timeout is None else seconds(timeout, "timeout")
        deadline = None if limit is None else time.monotonic() + limit
        tag = ""
        job: Job | None = None
        while True:
            left = POLL if deadline is None else min(POLL, max(0.0, deadline - time.monotonic()))
            headers = {"If-None-Match": tag, "Prefer": f"wait={int(left)}"} if tag else {}
            call = Call("GET", _path(job_id), headers=headers, job_id=job_id, accepts=(304,), timeout=left + 30.0)
            answer = await send(self._port, call)
            if answer.status_code != 304:
                job, tag = job_of(answer.json()), answer.headers.get("etag", "")
            if job is not None and job.is_terminal:
                return job
            if deadline is not None and time.monotonic() >= deadline:
                status = job.status if job is not None else "unknown"
                raise WaitTimeout(f"Job {job_id} is {status} after {limit} s")
            if deadline is not None and left < 1.0:
                await self._port.pause(min(left, 0.1))

    async def enqueue(self, job_type: str, params: Mapping[str, Any] | None = None, *, job_id: str | None = None, **options: Any) -> Job:  # fmt: skip
        """See AsyncJobManager.enqueue; a server checks the parameters against the published type."""
        return await self.submit(job_type, params, job_id=job_id, **options)

    async def submit(self, job_type: str, params: Mapping[str, Any] | None = None, /, **options: Any) -> Job:
        """Record a job for the workers: see AsyncJobs.submit, by name. Sent again after a lost answer, it is one job."""
        trace = options.pop("trace", None)
        body = {"job_type": job_type, "params": mapping(params, "params"), **options}
        for name, value in body.items():
            if isinstance(value, datetime):
                body[name] = value.isoformat()
        if options.get("timeout") is not None:
            body["timeout"] = seconds(options["timeout"], "timeout")
        headers = {"Idempotency-Key": str(uuid.uuid4())} | ({"traceparent": trace} if trace else {})
        return await self._job(Call("POST", "/api/jobs", body=_given(body), headers=headers))

    async def job_types(self) -> list[JobType]:
        """See AsyncJobs.job_types."""
        found = (await self.request("GET", "/api/job-types"))["job_types"]
        return [part_of(JobType, one) for one in found]

    async def set_limit(self, job_type: str, limit: int | None = None, *, paused: bool = False) -> None:
        """See AsyncJobs.set_limit."""
        body = {"concurrency": limit, "paused": paused}
        await send(self._port, Call("PATCH", f"/api/job-types/{quote(job_type)}", body=body))

    async def workers(self) -> list[WorkerEntry]:
        """See AsyncJobs.workers."""
        entries: list[WorkerEntry] = []
        for one in (await self.request("GET", "/api/workers"))["workers"]:
            times = {name: datetime.fromisoformat(one[f"{name}_at"]).timestamp() for name in ("since", "seen")}
            entries.append(part_of(WorkerEntry, {**one, **times}))
        return entries

    def track(self, *args: Any, **kwargs: Any) -> AsyncTrack:
        """A run renews its lease in the store itself. Raises InvalidInput."""
        raise InvalidInput("track", f"needs the store, and {self.url} is a server; use AsyncJobManager with its URL")

    async def close(self) -> None:
        """Give back the connections."""
        await self._port.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _job(self, call: Call) -> Job:
        return job_of((await self._with_job(call)).json())

    async def _with_job(self, call: Call) -> httpx.Response:
        """Send, and give a refusal the record that it is about."""
        try:
            return await send(self._port, call)
        except ValueError as refused:
            if call.job_id is not None and hasattr(refused, "job") and not isinstance(refused, JobNotFound):
                refused.job = await self.get_job(call.job_id)
            raise

    async def _known(self, job_id: str) -> Job:
        job = await self.get_job(job_id)
        if job is None:
            raise JobNotFound(job_id)
        return job


def server_address(url: str) -> str:
    """The address of a server, without a slash at its end. Raises InvalidInput."""
    if not url.startswith(("http://", "https://")):
        raise InvalidInput("url", f"{url!r:.80} is not the address of a server; write http://host:port")
    try:
        httpx.URL(url)
    except httpx.InvalidURL as wrong:
        raise InvalidInput("url", f"{url!r:.80} is not an address: {wrong}") from None
    return url.rstrip("/")


def connection(url: str, key: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """What httpx is opened with. Raises InvalidInput for a key that no header can carry."""
    key = (key or "").strip()  # read from a file, it often ends with a newline
    if not key.isascii() or not key.isprintable():
        raise InvalidInput("key", "holds characters that no key has; it is mp_<id>_<secret>")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return {"base_url": url, **options, "headers": {**headers, **options.get("headers", {})}}


def _path(job_id: str, rest: str = "") -> str:
    """Where a job is. Raises JobNotFound for what can be no id: a server would read it as another path."""
    try:
        job_id_text(job_id)
    except InvalidInput:
        raise JobNotFound(one_line(job_id, 200)) from None
    return f"/api/jobs/{quote(str(job_id), safe='')}{rest}"


def _given(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}


def _plain(
    job_type: str | None, status: JobStatus | str | None, labels: Mapping[str, str] | None, stalled: bool
) -> Query:
    from milepost.manager.asynchronous import make_query

    return make_query(job_type, status, labels, stalled)


def _text_of(query: Query) -> str:
    """The plain part of a query in the words of the filter, its labels aside. Raises InvalidInput when it has tests in Python."""
    if query.tests:
        raise InvalidInput("query", "a server cannot run Python; give the text of the filter")
    select = query.select
    terms = [f"type:{','.join(select.types)}"] if select.types else []
    if select.statuses:
        terms.append(f"status:{','.join(select.statuses)}")
    if select.stalled:
        terms.append("is:stalled")
    for at, form in ((select.created_after, "created:{}.."), (select.created_before, "created:..{}")):
        if at is not None:
            from milepost.core.encoding import moment

            terms.append(form.format(moment(at).isoformat()))
    return " ".join(terms)
