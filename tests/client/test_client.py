"""The clients against a real server: the managers' methods, their errors, and a watch that outlives its connection."""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import PurePosixPath

import httpx
import pytest

from milepost import (
    AsyncJobManager,
    AsyncJobs,
    AsyncRun,
    DuplicateJobError,
    IllegalTransitionError,
    InMemoryJobManager,
    InvalidInputError,
    JobManager,
    JobNotFoundError,
    JobStatus,
    OutcomeUnknownError,
    RejectedError,
    ResultNotSerialisableError,
    StoreUnavailableError,
    WaitTimeoutError,
)
from milepost.client import AccessDeniedError, AsyncClient, Client
from milepost.core.defaults import RETRY_BUDGET
from milepost.core.errors import FilterError
from milepost.web import auth, create_app
from milepost.web.api.submit import IN_PROGRESS_MICROS
from tests.services import free_port
from tests.waiting import PATIENCE
from tests.web.server import Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


def test_server_on_this_machine_is_reached_without_the_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy got the key."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with Client(server.url) as client:
        assert client.get_job("none") is None


def test_five_original_methods(client: Client) -> None:
    job = client.create_job(job_type="ingestion", metadata={"file_path": "/a/b.pdf"})
    client.update_job(job.job_id, status=JobStatus.RUNNING, progress=0.5, message="Half")

    seen = client.get_job(job.job_id)

    assert seen is not None
    assert (seen.status, seen.progress, seen.message) == (JobStatus.RUNNING, 0.5, "Half")
    assert seen.created_at == job.created_at
    assert [found.job_id for found in client.list_jobs("ingestion", JobStatus.RUNNING)] == [job.job_id]
    client.update_job(job.job_id, JobStatus.COMPLETED, result={"n": 1})
    assert client.wait(job.job_id, timeout=PATIENCE).result == {"n": 1}
    client.delete_job(job.job_id)
    client.delete_job(job.job_id)
    assert client.get_job(job.job_id) is None


def test_rejections_raise_manager_errors_with_record(client: Client) -> None:
    job = client.create_job("named")
    client.cancel_job(job.job_id, "not needed")
    with pytest.raises(IllegalTransitionError, match="Cannot cancel job with status cancelled") as refused:
        client.cancel_job(job.job_id)
    assert refused.value.job is not None
    assert refused.value.job.receipt is not None
    assert refused.value.job.receipt.reason == "not needed"
    with pytest.raises(IllegalTransitionError):
        client.update_job(job.job_id, progress=1.0)
    with pytest.raises(JobNotFoundError, match="Job nope not found"):
        client.cancel_job("nope")
    with pytest.raises(JobNotFoundError):
        client.update_job("nope", progress=0.1)
    with pytest.raises(DuplicateJobError):
        client.create_job("named")
    with pytest.raises(InvalidInputError):
        client.create_job("no spaces")
    with pytest.raises(InvalidInputError):
        client.update_job(job.job_id, progress=float("nan"))
    with pytest.raises(FilterError) as wrong:
        client.find("status:done")
    assert wrong.value.position == 7
    with pytest.raises(InvalidInputError, match="requires the store"):
        client.track("x")


def test_find_counts_and_paginates(client: Client) -> None:
    made = [client.create_job(job_type="walk", labels={"owner": "ana"}).job_id for _ in range(5)]
    page = client.find("type:walk label.owner:ana", 2)
    walked = [job.job_id for job in page.jobs]
    while page.next_cursor is not None:
        page = client.find("type:walk label.owner:ana", 2, page.next_cursor)
        walked += [job.job_id for job in page.jobs]
    assert walked == made[::-1]
    assert client.count_jobs("walk", labels={"owner": "ana"}) == 5
    assert client.count_jobs("walk") == 5


@pytest.mark.parametrize("value", ["", "a b", 'q"\\ x', "a:b,c", "ü&="])
def test_label_may_have_any_value(client: Client, value: str) -> None:
    job = client.create_job(labels={"any": value, "test": "labels"})
    assert [one.job_id for one in client.list_jobs(labels={"any": value})] == [job.job_id]
    assert client.count_jobs(labels={"any": value, "test": "labels"}) == 1


def test_wait_raises_after_timeout(client: Client) -> None:
    job = client.create_job()
    with pytest.raises(WaitTimeoutError):
        client.wait(job.job_id, timeout=0.2)
    with pytest.raises(JobNotFoundError):
        client.wait("nope", timeout=0.2)


def test_watch_yields_every_event_until_end(client: Client, server: Server) -> None:
    job = client.create_job()
    watching = client.watch(job.job_id)
    assert next(watching).kind == "snapshot"
    server.drive("update_job", job.job_id, "running")
    server.drive("update_job", job.job_id, "completed")
    assert [event.kind for event in watching] == ["running", "completed"]
    with pytest.raises(JobNotFoundError):
        next(client.watch("nope"))


def test_watch_survives_server_restart(sqlite_url: str) -> None:
    manager = JobManager(sqlite_url)
    job = manager.create_job()
    manager.update_job(job.job_id, "running")
    port = free_port()
    first = Server(sqlite_url, port=port).start()
    kinds: list[tuple[str, int]] = []
    begun = threading.Event()

    def watch() -> None:
        with Client(first.url) as client:
            for event in client.watch(job.job_id, after=0):
                kinds.append((event.kind, event.version))
                begun.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert begun.wait(PATIENCE)
    first.end(signal.SIGKILL)
    manager.update_job(job.job_id, progress=0.5)
    manager.cancel_job(job.job_id)
    with Server(sqlite_url, port=port):
        watcher.join(PATIENCE)
    manager.close()
    assert not watcher.is_alive()
    assert kinds == [("created", 1), ("running", 2), ("skipped", 3), ("cancelled", 4)]


def test_unreachable_server_raises_store_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milepost.client.transport.CONNECT_BUDGET", 0.2)
    with (
        Client(f"http://127.0.0.1:{free_port()}") as client,
        pytest.raises(StoreUnavailableError, match="cannot reach the server"),
    ):
        client.get_job("x")


async def test_retry_after_is_respected() -> None:
    answers = [503, 200]
    asked: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(time.monotonic())
        if answers.pop(0) == 503:
            return httpx.Response(503, headers={"Retry-After": "1"}, json={"detail": "busy"})
        return httpx.Response(200, json={"jobs": [], "total": 0})

    async with AsyncClient("http://t", transport=httpx.MockTransport(answer)) as client:
        assert await client.list_jobs() == []
    assert asked[1] - asked[0] > 0.9


async def test_submit_in_progress_is_retried() -> None:
    busy = httpx.Response(409, headers={"Retry-After": "0"}, json={"detail": "still under way"})
    answers = [busy, busy, httpx.Response(201, json=InMemoryJobManager().create_job("x").to_dict())]
    keys: set[str] = set()

    def answer(request: httpx.Request) -> httpx.Response:
        keys.add(request.headers["idempotency-key"])
        return answers.pop(0)

    async with AsyncClient("http://t", transport=httpx.MockTransport(answer)) as client:
        assert (await client.submit("t")).job_id == "x"
    assert len(keys) == 1
    assert IN_PROGRESS_MICROS < RETRY_BUDGET * 1_000_000 / 2, (
        "a client tries for longer than a server waits for a lost one"
    )


async def test_wrong_key_raises_access_denied(memory: AsyncJobManager) -> None:
    app = create_app(memory, auth=auth.api_keys())
    async with AsyncClient("http://t", key="mp_a_b", transport=httpx.ASGITransport(app)) as client:
        with pytest.raises(AccessDeniedError, match="The API key is not valid"):
            await client.list_jobs()


async def test_error_for_missing_key_names_the_settings_of_the_client(
    memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error named a header, which programs do not write themselves."""
    monkeypatch.delenv("MILEPOST_KEY", raising=False)
    app = create_app(memory, auth=auth.api_keys())
    async with AsyncClient("http://t", transport=httpx.ASGITransport(app)) as client:
        with pytest.raises(AccessDeniedError, match="set MILEPOST_KEY, or in Python key="):
            await client.list_jobs()
        with pytest.raises(AccessDeniedError, match="set MILEPOST_KEY, or in Python key="):
            _ = [event async for event in client.watch("one")]


async def test_result_over_http_is_returned_or_raises(memory: AsyncJobManager) -> None:
    async with memory.track("work") as good:
        good.result = {"pages": 3}
    async with memory.track("work") as bad:
        bad.result = {"pages": object()}
    app = create_app(memory, auth=auth.none())
    async with AsyncClient("http://127.0.0.1", transport=httpx.ASGITransport(app)) as client:
        job = await client.get_job(good.job_id)
        assert job is not None
        assert await client.result(job) == await client.result(good.job_id) == {"pages": 3}
        with pytest.raises(ResultNotSerialisableError, match=r"result\.pages: object is not JSON") as caught:
            await client.result(bad.job_id)
        assert caught.value.text.startswith("{'pages': <object object at")
        pending = await client.create_job()
        with pytest.raises(RejectedError, match="it is pending"):
            await client.result(pending)
        with pytest.raises(JobNotFoundError):
            await client.result("nope")


async def test_activity_is_what_the_server_says() -> None:
    """The server knows more of a job than its JSON has: here where the next run continues."""
    jobs = AsyncJobs("memory://")

    @jobs.job("reads", max_attempts=2, backoff=lambda attempt: 3600)
    async def reads(run: AsyncRun) -> None:
        async for item in run.each(range(4), resume=True):
            if item == 2:
                raise ValueError("not this one")

    app = create_app(jobs, auth=auth.none())
    async with jobs.run_workers(), AsyncClient("http://127.0.0.1", transport=httpx.ASGITransport(app)) as client:
        job_id = (await jobs.submit(reads)).job_id
        async with asyncio.timeout(PATIENCE):
            while (job := await client.get_job(job_id)) is None or job.attempts == () or job.status != "pending":
                await asyncio.sleep(0.01)
        (listed,) = await client.list_jobs()
        assert job.activity == listed.activity
        assert job.activity.endswith(" · resumes after 2 of 4 items")
        assert job.stage_progress is None


@pytest.fixture
async def memory() -> AsyncJobManager:
    return AsyncJobManager("memory://")


def test_values_are_encoded_like_the_managers(client: Client) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    job = client.create_job(metadata={"path": PurePosixPath("/a/b.pdf"), "tags": {"x"}})
    assert job.metadata == {"path": "/a/b.pdf", "tags": ["x"]}
    client.update_job(job.job_id, JobStatus.COMPLETED, result={"at": at})
    ended = client.get_job(job.job_id)
    assert ended is not None
    assert ended.result == {"at": at.isoformat()}
    for wrong, where in (({"x": object()}, "metadata.x"), ({"x": "\ud800"}, "metadata.x")):
        with pytest.raises(InvalidInputError, match=f"^{where}: "):
            client.create_job(metadata=wrong)


@pytest.mark.parametrize("status", [502, 504])
async def test_proxy_error_is_not_retried_if_unsafe(status: int) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        return httpx.Response(status, html="<h1>Bad Gateway</h1>")

    async with AsyncClient("http://t", transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(OutcomeUnknownError, match=f"proxy error {status}"):
            await client.retry_job("x")
    assert asked == ["POST"]


async def test_non_milepost_server_is_rejected() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(404 if "missing" in request.url.path else 200, html="<h1>Please sign in</h1>")

    async with AsyncClient("http://t", transport=httpx.MockTransport(answer)) as client:
        for call in (client.list_jobs(), client.get_job("missing")):
            with pytest.raises(InvalidInputError, match=r"url: .*text/html.*is it a milepost server"):
                await call


@pytest.mark.parametrize("job_id", ["", "a b", "a/b"])
def test_impossible_id_is_not_found(client: Client, job_id: str) -> None:
    assert client.get_job(job_id) is None
    client.delete_job(job_id)
    for call in (client.cancel_job, client.events, client.wait, lambda name: list(client.watch(name))):
        with pytest.raises(JobNotFoundError):
            call(job_id)


async def test_watch_of_idle_job_survives_reconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milepost.client.transport.pause", lambda tries: 0.0)
    cut = [b"retry: 2000\n\n: keep-alive\n\n"] * 30
    end = b'id: 2\nevent: completed\ndata: {"job_id":"x","version":2,"kind":"completed"}\n\nevent: end\ndata: {}\n\n'

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=cut.pop() if cut else end)

    async with AsyncClient("http://t", transport=httpx.MockTransport(answer)) as client:
        assert [event.kind async for event in client.watch("x")] == ["completed"]


def public(cls: type) -> set[str]:
    return {name for name, value in vars(cls).items() if not name.startswith("_") and inspect.isfunction(value)}


def test_client_has_every_manager_method() -> None:
    for name in public(AsyncJobManager) - {"track", "find"}:
        ours, theirs = getattr(AsyncClient, name), getattr(AsyncJobManager, name)
        assert inspect.signature(ours).parameters.keys() == inspect.signature(theirs).parameters.keys(), name
    assert issubclass(Client, JobManager)


async def test_key_is_stripped_of_newline() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer mp_a_b"
        return httpx.Response(200, json={"jobs": [], "total": 0})

    async with AsyncClient("http://t", key="mp_a_b\n", transport=httpx.MockTransport(answer)) as client:
        assert await client.list_jobs() == []
    for wrong in ("ключ", "mp_a\nb"):
        with pytest.raises(InvalidInputError, match="key"):
            Client("http://t", key=wrong)


@pytest.mark.parametrize("url", ["sqlite:///jobs.db", "localhost:8000", "", "http://[::1"])
def test_invalid_server_url_is_rejected(url: str) -> None:
    with pytest.raises(InvalidInputError, match="url"):
        Client(url)
