"""`AsyncClient`: the methods of AsyncJobManager over HTTP, and `Client`, its blocking API."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import httpx

from milepost.client.decoding import decode_event, decode_job, decode_page
from milepost.client.job_calls import JobCalls
from milepost.client.limits import BlockingLimitCalls, LimitCalls
from milepost.client.schedules import ScheduleCalls
from milepost.client.transport import (
    AsyncTransport,
    BlockingTransport,
    Call,
    Transport,
    connection,
    follow_job,
    job_path,
    send,
    server_address,
)
from milepost.core.codecs import decode_dataclass
from milepost.core.defaults import LIST_LIMIT
from milepost.core.errors import InvalidInputError, JobNotFoundError, OutcomeUnknownError, WaitTimeoutError
from milepost.core.events import Event, StreamPosition
from milepost.core.job import Job, JobStatus
from milepost.core.options import json_object, validate_type_name
from milepost.core.record import BY_NAME, OPTIONS
from milepost.core.result_types import R
from milepost.core.serialization import Duration, from_micros, seconds
from milepost.manager.manager import AsyncJobManager
from milepost.manager.options import CreateOptions
from milepost.manager.sync import JobManager
from milepost.manager.validation import history_filter, id_of, make_query, query_error, status_value
from milepost.query.filters import Filter
from milepost.run.track import AsyncTrack
from milepost.settings import Settings, settings
from milepost.stores.factory import redact_url
from milepost.stores.protocol import Store
from milepost.stores.query import Page, Query
from milepost.stores.sync_bridge import blocking
from milepost.worker.registry import JobType, WorkerEntry

if TYPE_CHECKING:
    from milepost.app.batches import Batch, OnError
    from milepost.client.batches import AsyncClientBatch
    from milepost.query.statistics import History


POLL_INTERVAL = 25.0


class AsyncClient(JobCalls, ScheduleCalls, LimitCalls, AsyncJobManager):
    """The jobs of a server, with the methods of AsyncJobManager.

    `key` is an API key (default: MILEPOST_KEY); `options` are passed to httpx.AsyncClient. Safe requests to an unavailable
    server are retried for 30 s, or for 5 s if the server has never responded.
    """

    def __init__(self, url: str, *, key: str | None = None, **options: Any) -> None:
        self.settings: Settings = settings.current()
        self.url = server_address(url)
        self._transport: Transport = self._open(key if key is not None else os.environ.get("MILEPOST_KEY"), options)

    def _open(self, key: str | None, options: dict[str, Any]) -> Transport:
        return AsyncTransport(partial(httpx.AsyncClient, **connection(self.url, key, options)))

    @property
    def store(self) -> Store:  # type: ignore[override]
        """Raise InvalidInputError: a server does not expose its store."""
        raise InvalidInputError(
            "url", f"{redact_url(self.url)} is a server, but this call requires the store; use the store URL"
        )

    @property
    def ttl(self) -> float:  # type: ignore[override]
        """Return the retention from this environment; the server uses its own."""
        return self.settings.job_ttl

    async def request(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None
    ) -> Any:
        """Call any endpoint (``request("GET", "/api/stats")``) and return its JSON, or None. Raises like the other methods."""
        call = Call(method, path, dict(params or {}), body, safe=method in ("GET", "DELETE"))
        answer = await send(self._transport, call)
        return answer.json() if answer.content else None

    # --- the five basic methods ---

    async def create_job(
        self,
        job_id: str | None = None,
        job_type: str = "generic",
        metadata: Mapping[str, Any] | None = None,
        **options: Unpack[CreateOptions],
    ) -> Job:
        """See AsyncJobManager.create_job."""
        given = {**options, "metadata": metadata}
        return await self._record({"run_by": "manual", "job_id": job_id, "job_type": job_type}, given)

    async def get_job(self, job_id: str) -> Job | None:
        """See AsyncJobManager.get_job."""
        try:
            path = job_path(job_id)
        except JobNotFoundError:
            return None
        answer = await send(self._transport, Call("GET", path, job_id=job_id, accepts=(404,)))
        return None if answer.status_code == 404 else decode_job(answer.json())

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
        # Safe to repeat: progress never decreases and an outcome is final.
        call = Call("PATCH", job_path(job_id), body=_without_none(body), job_id=job_id, safe=target is None)
        await self._with_job(call)

    async def delete_job(self, job_id: str) -> None:
        """See AsyncJobManager.delete_job."""
        try:
            path = job_path(job_id)
        except JobNotFoundError:
            return
        await send(self._transport, Call("DELETE", path, accepts=(404,)))

    async def find(self, query: Query | Filter | str | None = None, limit: int = LIST_LIMIT, cursor: str | None = None) -> Page:  # fmt: skip
        """Return one page of the matching jobs. `query` is a filter, as text or parsed, or a Query without tests."""
        params: dict[str, Any] = {"limit": limit}
        if cursor:
            params["cursor"] = cursor
        if isinstance(query, str | Filter):
            params["q"] = query if isinstance(query, str) else query.text
        elif query is not None and not isinstance(query, Query):
            raise query_error(query)
        elif query is not None:
            params["q"] = _filter_text(query)
            params["label"] = [f"{name}:{value}" for name, value in query.select.labels if name[0] != ":"]
        answer = await send(self._transport, Call("GET", "/api/jobs", params))
        return decode_page(answer.json())

    async def _page(self, query: Query, limit: int, cursor: str | None, *, counted: bool) -> Page:
        return await self.find(query, limit, cursor)

    # --- the other methods ---

    async def count_jobs(
        self,
        job_type: str | None = None,
        status: JobStatus | str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        stalled: bool = False,
    ) -> int:
        """See AsyncJobManager.count_jobs."""
        query = make_query(job_type, status, labels, stalled)
        page = await self.find(query, 1000)
        total = len(page.jobs)
        while page.total is None and page.next_cursor is not None:
            page = await self.find(query, 1000, page.next_cursor)
            total += len(page.jobs)
        return total if page.total is None else page.total

    async def history(
        self,
        window: Duration = "24h",
        step: Duration = "15m",
        *,
        job_type: str | None = None,
        queue: str | None = None,
    ) -> History:
        from milepost.query.statistics import History  # here, because most programs do without it

        asked = {
            "window": seconds(window, "window"),
            "step": seconds(step, "step"),
            **history_filter(job_type, queue),
        }
        return History.from_dict(await self.request("GET", "/api/stats", params=_without_none(asked)))

    async def cancel_job(self, job_id: str, reason: str | None = None, *, by: str | None = None) -> Job:
        """See AsyncJobManager.cancel_job; the server sets `by`."""
        body = {} if reason is None else {"reason": reason}
        call = Call("POST", job_path(job_id, "/cancel"), body=body, job_id=job_id, safe=False)
        try:
            await self._with_job(call)
        except OutcomeUnknownError:
            # A cancel is final, so the record shows whether it was applied.
            job = await self.get_job(job_id)
            if job is None or job.status is not JobStatus.CANCELLED:
                raise
            return job
        return await self._require_job(job_id)

    async def retry_job(self, job_id: str, *, only_failed: bool = False, from_start: bool = False, dependents: bool = False) -> Job:  # fmt: skip
        """See AsyncJobManager.retry_job."""
        more = {"from_start": from_start, "dependents": dependents}
        body = {"only_failed": only_failed, **{name: True for name, asked in more.items() if asked}}
        return await self._change(job_id, "/retry", body)

    async def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[Event]:
        """See AsyncJobManager.events."""
        params, headers = {"after": after, "limit": min(limit, 1000)}, {"Accept": "application/json"}
        call = Call("GET", job_path(job_id, "/events"), params, headers=headers, job_id=job_id)
        return [decode_event(event) for event in (await send(self._transport, call)).json()]

    def watch(self, job_id: str, after: str | int | None = None) -> AsyncIterator[Event]:
        """See AsyncJobManager.watch; a broken connection is resumed where it ended."""
        seen = None if after is None else str(StreamPosition.read(after))
        return follow_job(self._transport, job_id, job_path(job_id, "/events"), seen)

    async def wait(self, job: Job[R] | str, timeout: Duration | None = None) -> Job[R]:
        """See AsyncJobManager.wait."""
        job_id = id_of(job)
        limit = None if timeout is None else seconds(timeout, "timeout")
        deadline = None if limit is None else time.monotonic() + limit
        tag = ""
        found: Job[R] | None = None
        while True:
            left = POLL_INTERVAL if deadline is None else min(POLL_INTERVAL, max(0.0, deadline - time.monotonic()))
            headers = {"If-None-Match": tag, "Prefer": f"wait={int(left)}"} if tag else {}
            call = Call("GET", job_path(job_id), headers=headers, job_id=job_id, accepts=(304,), timeout=left + 30.0)
            answer = await send(self._transport, call)
            if answer.status_code != 304:
                found, tag = decode_job(answer.json()), answer.headers.get("etag", "")
            if found is not None and found.is_terminal:
                return found
            if deadline is not None and time.monotonic() >= deadline:
                status = found.status if found is not None else "unknown"
                raise WaitTimeoutError(f"Job {job_id} is {status} after {limit} s")
            if deadline is not None and left < 1.0:
                await self._transport.pause(min(left, 0.1))

    async def enqueue(self, job_type: str, params: Mapping[str, Any] | None = None, *, job_id: str | None = None, **options: Any) -> Job:  # fmt: skip
        """See AsyncJobManager.enqueue; a server checks the parameters against the published type."""
        return await self.submit(job_type, params, job_id=job_id, **options)

    async def submit(self, job_type: str, params: Mapping[str, Any] | None = None, /, **options: Any) -> Job:
        """Submit a job by type name: see AsyncJobs.submit. A retry after a lost response creates no second job."""
        return await self._record(
            {"job_type": validate_type_name(job_type), "params": json_object(params, "params")}, options
        )

    async def _record(self, body: dict[str, Any], options: Mapping[str, Any]) -> Job:
        for name, value in options.items():
            body[name] = OPTIONS[name].sent(name, value) if name in OPTIONS else value
        trace = body.pop("trace", None)
        headers = {"Idempotency-Key": str(uuid.uuid4())} | ({"traceparent": trace} if trace else {})
        return await self._job(Call("POST", "/api/jobs", body=_without_none(body), headers=headers))

    def batch(self, name: str, *, labels: Mapping[str, str] | None = None, on_error: OnError = "cancel") -> AsyncClientBatch:  # fmt: skip
        """Return a batch of jobs on the server: ``async with client.batch("import-42") as batch``. See AsyncJobs.batch."""
        from milepost.client.batches import AsyncClientBatch  # here, because most programs do without it

        return AsyncClientBatch(self, name, labels, on_error)

    async def job_types(self) -> list[JobType]:
        """See AsyncJobs.job_types."""
        found = (await self.request("GET", "/api/job-types"))["job_types"]
        return [decode_dataclass(JobType, one) for one in found]

    async def workers(self) -> list[WorkerEntry]:
        """See AsyncJobs.workers."""
        entries: list[WorkerEntry] = []
        for one in (await self.request("GET", "/api/workers"))["workers"]:
            times = {name: datetime.fromisoformat(one[f"{name}_at"]).timestamp() for name in ("since", "seen")}
            entries.append(decode_dataclass(WorkerEntry, {**one, **times}))
        return entries

    def track(self, *args: Any, **kwargs: Any) -> AsyncTrack:
        """Raise InvalidInputError: a tracked run requires the store."""
        raise InvalidInputError(
            "track", f"requires the store, but {self.url} is a server; use AsyncJobManager with the store URL"
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _job(self, call: Call) -> Job:
        return decode_job((await self._with_job(call)).json())

    async def _with_job(self, call: Call) -> httpx.Response:
        """Send a request; a rejection gets the current job attached."""
        try:
            return await send(self._transport, call)
        except ValueError as refused:
            if call.job_id is not None and hasattr(refused, "job") and not isinstance(refused, JobNotFoundError):
                refused.job = await self.get_job(call.job_id)
            raise

    async def _require_job(self, job_id: str) -> Job:
        if (job := await self.get_job(job_id)) is None:
            raise JobNotFoundError(job_id)
        return job


def _without_none(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}


def _filter_text(query: Query) -> str:
    """Return a query as filter text, without labels. Raises InvalidInputError if it has tests in Python."""
    if query.tests:
        raise InvalidInputError("query", "a server cannot run Python tests; pass the filter as text")
    select = query.select
    terms = [f"type:{','.join(select.types)}"] if select.types else []
    if select.statuses:
        terms.append(f"status:{','.join(select.statuses)}")
    if select.stalled:
        terms.append("is:stalled")
    for name, value in select.labels:
        if name[0] == ":":
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            terms.append(f'{BY_NAME[name[1:]].filter}:"{escaped}"')
    for at, form in ((select.created_after, "created:{}.."), (select.created_before, "created:..{}")):
        if at is not None:
            terms.append(form.format(from_micros(at).isoformat()))
    return " ".join(terms)


class _SyncCore(AsyncClient):
    """AsyncClient over a blocking transport; its coroutines never suspend."""

    def _open(self, key: str | None, options: dict[str, Any]) -> Transport:
        return BlockingTransport(partial(httpx.Client, **connection(self.url, key, options)))


class Client(BlockingLimitCalls, JobManager):
    """The jobs of a server, with the methods of JobManager: ``milepost.Client("http://host:port")``.

    `key` is an API key (default: MILEPOST_KEY); `options` go to httpx.Client.
    """

    _async: _SyncCore

    def __init__(self, url: str, *, key: str | None = None, **options: Any) -> None:
        self._async = _SyncCore(url, key=key, **options)

    @property
    def url(self) -> str:
        """Return the URL of the server."""
        return self._async.url

    request = blocking(AsyncClient.request)
    find = blocking(AsyncClient.find)
    submit = blocking(AsyncClient.submit)
    job_types = blocking(AsyncClient.job_types)
    workers = blocking(AsyncClient.workers)
    add_schedule = blocking(AsyncClient.add_schedule)

    def batch(self, name: str, *, labels: Mapping[str, str] | None = None, on_error: OnError = "cancel") -> Batch:
        """Return a batch of jobs on the server: ``with client.batch("import-42") as batch``. See Jobs.batch."""
        from milepost.app.batches import Batch  # here, because most programs do without it

        return Batch(self._async.batch(name, labels=labels, on_error=on_error))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({redact_url(self.url)!r})"
