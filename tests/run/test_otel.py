"""Traces of a submit and its run, and the job fields of log records."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from milepost import (
    AsyncJobManager,
    AsyncJobs,
    AsyncRun,
    DuplicateJobError,
    Job,
    JobCancelled,
    JobManager,
    Run,
    Secret,
    Settings,
)
from milepost.logging import JobContext, JsonFormatter
from milepost.run.otel import is_opted_in
from milepost.web import auth, create_app

INCOMING = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def opt_in_read_again() -> Iterator[None]:
    """Let each test set the variable that a process reads once."""
    is_opted_in.cache_clear()
    yield
    is_opted_in.cache_clear()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Yield the exported spans, without changing the provider of the process."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


def named(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent is not None else None


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_submit_and_run_are_one_trace(spans: InMemorySpanExporter, kind: str) -> None:
    jobs = AsyncJobs("memory://")
    tracer = trace.get_tracer("application")

    @jobs.job("async")
    async def in_loop(run: Run) -> None:
        with tracer.start_as_current_span("inside"):
            pass

    @jobs.job("thread")
    def in_thread(run: Run) -> None:
        with tracer.start_as_current_span("inside"):
            pass

    async with jobs.run_workers():
        with tracer.start_as_current_span("request"):
            job = await jobs.submit(kind)
        await jobs.wait(job.job_id, timeout=60)
    await jobs.close()
    found = named(spans)
    submitted, ran = found[f"submit {kind}"], found[f"run {kind}"]
    assert parent_of(submitted) == id_of(found["request"])
    assert parent_of(ran) == id_of(submitted)
    assert parent_of(found["inside"]) == id_of(ran)
    assert (submitted.kind, ran.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert ran.attributes is not None
    assert (ran.attributes["milepost.job.id"], ran.attributes["milepost.job.attempt"]) == (job.job_id, 1)
    assert job.trace is not None
    assert job.trace.split("-")[1:3] == [f"{submitted.context.trace_id:032x}", f"{id_of(submitted):016x}"]
    assert ran.status.status_code is StatusCode.UNSET


async def test_span_of_failure_hides_secrets(spans: InMemorySpanExporter) -> None:
    jobs = AsyncJobs("memory://")

    @jobs.job("leaky")
    async def leaky(run: Run, token: Secret) -> None:
        raise RuntimeError(f"refused: {token}")

    async with jobs.run_workers():
        job = await jobs.submit("leaky", {"token": "hunter-two"})
        await jobs.wait(job.job_id, timeout=60)
    await jobs.close()
    ran = named(spans)["run leaky"]
    assert ran.status.status_code is StatusCode.ERROR
    (event,) = ran.events
    assert event.attributes is not None
    assert event.attributes["exception.type"] == "RuntimeError"
    assert "leaky" in str(event.attributes["exception.stacktrace"])
    assert "hunter-two" not in ran.to_json()


def test_track_makes_span_and_stop_is_no_error(spans: InMemorySpanExporter) -> None:
    manager = JobManager("memory://")
    try:
        raise ValueError("something else")
    except ValueError:
        with manager.track("fine"):
            pass

    def cancelled() -> None:
        with manager.track("stopped") as run:
            manager.cancel_job(run.job_id)
            run.checkpoint(1)

    with pytest.raises(JobCancelled):
        cancelled()
    found = named(spans)
    assert found["run fine"].status.status_code is StatusCode.UNSET
    assert found["run stopped"].status.status_code is StatusCode.UNSET
    assert (found["run stopped"].attributes or {})["milepost.run.stopped"] == "JobCancelled"


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_timeout_is_error_and_cancel_is_named(spans: InMemorySpanExporter, kind: str) -> None:
    begun: list[str] = []
    jobs = AsyncJobs("memory://")

    @jobs.job("async")
    async def sleep(run: AsyncRun) -> None:
        begun.append(kind)
        await asyncio.sleep(60)

    @jobs.job("thread")
    def check(run: Run) -> None:
        begun.append(kind)
        while True:
            run.check()

    async with jobs.run_workers():
        late = await jobs.wait(await jobs.submit(kind, timeout=0.2))
        begun.clear()
        cancelled = await jobs.submit(kind)
        while not begun:
            await asyncio.sleep(0.01)
        await jobs.cancel_job(cancelled.job_id)
        while len(runs := [one for one in spans.get_finished_spans() if one.name == f"run {kind}"]) < 2:
            await asyncio.sleep(0.01)
    await jobs.close()
    assert late.status == "failed"
    timed_out, stopped = runs
    assert timed_out.status.status_code is StatusCode.ERROR
    assert dict(timed_out.events[0].attributes or {})["exception.type"] == "JobTimedOut"
    assert dict(timed_out.attributes or {})["milepost.run.stopped"] == "JobTimedOut"
    assert stopped.status.status_code is StatusCode.UNSET
    assert dict(stopped.attributes or {})["milepost.run.stopped"] == "JobCancelled"


async def test_trace_of_request_is_continued(spans: InMemorySpanExporter) -> None:
    jobs = AsyncJobs("memory://")

    @jobs.job("remote")
    async def remote(run: Run) -> None: ...

    app = create_app(jobs, auth=auth.none())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as web, jobs.run_workers():
        headers = {"traceparent": INCOMING, "Prefer": "wait=60"}
        answer = (await web.post("/api/jobs", json={"job_type": "remote"}, headers=headers)).json()
    await jobs.close()
    assert answer["status"] == "completed"
    assert answer["trace"].split("-")[1] == INCOMING.split("-")[1]
    found = named(spans)
    parents = {id_of(span): parent_of(span) for span in found.values()}
    above = parent_of(found["submit remote"])
    while above in parents:  # spans that the web framework makes of the request
        above = parents[above]
    assert above == int(INCOMING.split("-")[2], 16)
    assert parent_of(found["run remote"]) == id_of(found["submit remote"])


async def test_caller_driven_job_keeps_callers_trace(spans: InMemorySpanExporter) -> None:
    manager = AsyncJobManager("memory://")
    with trace.get_tracer("application").start_as_current_span("request") as span:
        job = await manager.create_job()
    given = await manager.create_job(trace=INCOMING)
    assert job.trace is not None
    assert f"{span.get_span_context().trace_id:032x}" in job.trace
    assert given.trace == INCOMING


def test_opentelemetry_is_not_imported_if_unused() -> None:
    code = (
        "import sys; from milepost import JobManager\n"
        "m = JobManager('memory://')\n"
        "with m.track('x') as run: run.progress(0.5)\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- log records -----------------------------------------------------------------------------------------------------


@pytest.fixture
def lines() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """Return a logger that writes JSON lines."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("tests.application")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield logger, out
    logger.removeHandler(handler)


def test_log_records_carry_job_fields(lines: tuple[logging.Logger, io.StringIO]) -> None:
    logger, out = lines
    manager = JobManager("memory://", options=Settings(capture="logging,threads"))
    job = manager.create_job(job_type="ingestion", trace=INCOMING)
    logger.info("before")
    with manager.track(job_id=job.job_id) as run:
        logger.info("page %d", 3)
        thread = threading.Thread(target=logger.warning, args=("from a thread",))
        thread.start()
        thread.join()
        try:
            raise ValueError("no")
        except ValueError:
            logger.exception("it failed", extra={"trace_id": "mine"})
    logger.info("after")
    records: list[dict[str, Any]] = [json.loads(line) for line in out.getvalue().splitlines()]
    inside = {"job_id": run.job_id, "job_type": "ingestion", "attempt": 1, "trace_id": INCOMING.split("-")[1]}
    assert [line["message"] for line in records] == ["before", "page 3", "from a thread", "it failed", "after"]
    for line in records[1:3]:
        assert inside.items() <= line.items()
    assert records[3]["trace_id"] == "mine"
    assert "ValueError: no" in records[3]["traceback"]
    for line in (records[0], records[4]):
        assert "job_id" not in line


def test_job_context_filter_works_with_any_format() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.addFilter(JobContext())
    handler.setFormatter(logging.Formatter("%(job_id)s %(attempt)s %(message)s"))
    logger = logging.getLogger("tests.filtered")
    logger.addHandler(handler)
    with JobManager("memory://").track("x") as run:
        logger.warning("inside")
    logger.warning("outside")
    logger.removeHandler(handler)
    assert out.getvalue() == f"{run.job_id} 1 inside\nNone None outside\n"


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], dict[tuple[str, str], Any]]]:
    """Yield a function that returns the data points of the metrics, by metric and destination."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)

    def read() -> dict[tuple[str, str], Any]:
        data = reader.get_metrics_data()
        return {
            (metric.name, str((point.attributes or {})["messaging.destination.name"])): (metric.unit, point)
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }

    yield read
    provider.shutdown()


async def submit_and_fail(jobs: AsyncJobs) -> tuple[Job, Job]:
    """Run one job that completes in its queue, and one that fails in the queue of its type."""

    @jobs.job(queue="nightly")
    async def good(run: Run) -> None: ...

    @jobs.job
    def bad(run: Run) -> None:
        raise KeyError("absent")

    async with jobs.run_workers():
        made = await jobs.submit(good), await jobs.submit(bad)
        for job in made:
            await jobs.wait(job.job_id, timeout=60)
    await jobs.close()
    return made


@pytest.mark.parametrize("wanted", ["messaging", "http, messaging/dup"])
async def test_spans_follow_messaging_conventions_on_request(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", wanted)
    job, _ = await submit_and_fail(AsyncJobs("memory://"))
    found = {name: dict(span.attributes or {}) for name, span in named(spans).items()}
    common = {
        "messaging.system": "milepost",
        "messaging.destination.name": "nightly",
        "messaging.message.id": job.job_id,
    }
    sent = {"messaging.operation.name": "submit", "messaging.operation.type": "send"}
    processed = {"messaging.operation.name": "run", "messaging.operation.type": "process"}
    assert found["submit good"].items() >= (common | sent).items()
    assert found["run good"].items() >= (common | processed | {"milepost.job.id": job.job_id}).items()
    assert "error.type" not in found["run good"]
    assert found["run bad"]["messaging.destination.name"] == "bad"
    assert found["run bad"]["error.type"] == "KeyError"


async def test_metrics_follow_messaging_conventions_on_request(
    points: Callable[[], dict[tuple[str, str], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "messaging")
    jobs = AsyncJobs("memory://")
    await submit_and_fail(jobs)
    found = points()
    counters = ["messaging.client.sent.messages", "messaging.client.consumed.messages"]
    histograms = ["messaging.client.operation.duration", "messaging.process.duration"]
    assert {name for name, _ in found} == {*counters, *histograms}
    for destination in ("nightly", "bad"):
        for name in counters:
            unit, point = found[name, destination]
            assert (unit, point.value) == ("{message}", 1)
        for name in histograms:
            unit, point = found[name, destination]
            assert (unit, point.count) == ("s", 1)
    assert found["messaging.process.duration", "bad"][1].attributes["error.type"] == "KeyError"
    assert "error.type" not in found["messaging.client.operation.duration", "bad"][1].attributes


async def test_refused_submit_is_counted_with_error(
    points: Callable[[], dict[tuple[str, str], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "messaging")
    jobs = AsyncJobs("memory://")

    @jobs.job
    async def nightly(run: Run) -> None: ...

    first = nightly.options(unique_key="one", on_duplicate="refuse", delay=60)
    await jobs.submit(first)
    with pytest.raises(DuplicateJobError):
        await jobs.submit(first)
    await jobs.close()
    _, point = points()["messaging.client.sent.messages", "nightly"]
    assert point.attributes["error.type"] == "DuplicateJobError"


async def test_conventions_are_off_by_default(
    spans: InMemorySpanExporter, points: Callable[[], dict[tuple[str, str], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_SEMCONV_STABILITY_OPT_IN", raising=False)
    await submit_and_fail(AsyncJobs("memory://"))
    assert points() == {}
    names = {name for span in spans.get_finished_spans() for name in span.attributes or {}}
    assert not [name for name in names if name.startswith("messaging.")]
