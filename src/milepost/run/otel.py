"""OpenTelemetry spans and metrics of each submit and each run, in one trace that the job carries as a `traceparent`.

Nothing is imported that the application has not imported: without OpenTelemetry this costs one dict lookup.

The semantic conventions for messaging, which are attributes of the spans and four metrics, are experimental, so applications
opt in with OTEL_SEMCONV_STABILITY_OPT_IN, the standard variable. A submit is the operation `send`, a run the operation
`process`, and the queue is the destination.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from milepost.core.errors import JobTimedOut, RunStop
from milepost.core.job import Job
from milepost.core.serialization import from_json
from milepost.run.crash_report import report_exception

if TYPE_CHECKING:
    from milepost.run.run import Run


NAME = "milepost"


class RunSpan(NamedTuple):
    """The span of a run and its context token (None without tracing), the exception that was being handled at its start,
    and when that was.
    """

    span: Any
    token: Any
    before: BaseException | None
    started: float


def _api() -> Any:
    """Return `opentelemetry.trace` if the application has set it up, else None."""
    api = sys.modules.get("opentelemetry.trace")
    return None if api is None or isinstance(api.get_tracer_provider(), api.ProxyTracerProvider) else api


def current_trace() -> str | None:
    """Return the current span as a `traceparent`, or None."""
    api = _api()
    if api is None or not api.get_current_span().get_span_context().is_valid:
        return None
    return _traceparent(api.get_current_span())


def trace_id(trace: str | None) -> str | None:
    """Return the trace id of a `traceparent`: 32 hexadecimal digits."""
    parts = (trace or "").split("-")
    return parts[1] if len(parts) == 4 and len(parts[1]) == 32 else None


def submit_span(fields: dict[str, str]) -> AbstractContextManager[Callable[[str], None]]:
    """Return a context manager that records the creation of a job as a span; its fields carry the span to the run.

    Its value is called with the id of the job.
    """
    api = _api()
    return nullcontext(_ignore) if api is None and not is_metered() else _open_submit_span(api, fields)


def _ignore(job_id: str) -> None:
    pass


@contextmanager
def _open_submit_span(api: Any, fields: dict[str, str]) -> Iterator[Callable[[str], None]]:
    destination, started, error = Job.stored("", fields).queue or fields["type"], time.perf_counter(), None
    try:
        if api is None:
            yield _ignore
            return
        tracer, parent = api.get_tracer(NAME), _context(fields.get("trace"))
        attributes = {"milepost.job.type": fields["type"]}
        if is_opted_in():
            attributes |= messaging_attributes("submit", "send", destination)
        name = f"submit {fields['type']}"
        with tracer.start_as_current_span(name, parent, kind=api.SpanKind.PRODUCER, attributes=attributes) as span:
            if span.get_span_context().is_valid:
                fields["trace"] = _traceparent(span)
            yield lambda job_id: _add_message_id(span, job_id)
    except BaseException as caught:
        error = caught
        raise
    finally:
        if is_metered():
            _record("submit", "send", destination, time.perf_counter() - started, error)


def _add_message_id(span: Any, job_id: str) -> None:
    if is_opted_in():
        span.set_attribute("messaging.message.id", job_id)


def start_run_span(run: Run) -> RunSpan | None:
    """Start the span of a run and make it current until `end_run_span`."""
    api, before, started = _api(), sys.exc_info()[1], time.perf_counter()
    if api is None:
        return RunSpan(None, None, before, started) if is_metered() else None
    from opentelemetry import context

    attributes = {
        "milepost.job.id": run.job_id,
        "milepost.job.type": run.job_type,
        "milepost.job.attempt": run.attempt,
    }
    if is_opted_in():
        attributes |= messaging_attributes("run", "process", _destination(run))
        attributes["messaging.message.id"] = run.job_id
    span = api.get_tracer(NAME).start_span(
        f"run {run.job_type}", _context(run.trace), kind=api.SpanKind.CONSUMER, attributes=attributes
    )
    return RunSpan(span, context.attach(api.set_span_in_context(span)), before, started)


def end_run_span(run: Run, handle: RunSpan | None) -> None:
    """End the span of a run, with the exception that is being handled, if any."""
    if handle is None:
        return
    error = sys.exc_info()[1]
    if error is handle.before:
        error = None
    end = run._stop_reasons[0] if run._stop_reasons else error  # a stop arrives in async code as a CancelledError
    is_stopped = isinstance(end, RunStop)
    failed = None if error is None or (is_stopped and not isinstance(end, JobTimedOut)) else end
    if is_metered():
        seconds = time.perf_counter() - handle.started
        _record("run", "process", _destination(run), seconds, failed)
    if handle.span is None:
        return
    from opentelemetry import context
    from opentelemetry.trace import Status, StatusCode

    if is_stopped:
        handle.span.set_attribute("milepost.run.stopped", type(end).__name__)
    if failed is not None:
        # The crash report has its secrets masked.
        line, crash_report = report_exception(failed, run)
        details = {"exception.type": type(failed).__name__, "exception.message": line}
        handle.span.add_event(
            "exception", {**details, "exception.stacktrace": from_json(crash_report).get("traceback", "")}
        )
        handle.span.set_status(Status(StatusCode.ERROR, line))
        if is_opted_in():
            handle.span.set_attribute("error.type", type(failed).__qualname__)
    handle.span.end()
    context.detach(handle.token)


def _destination(run: Run) -> str:
    return run._job.queue or run.job_type


def _context(trace: str | None) -> Any:
    """Return the context that a job carries, or None for the current one."""
    if trace is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": trace})


def _traceparent(span: Any) -> str:
    where = span.get_span_context()
    return f"00-{where.trace_id:032x}-{where.span_id:016x}-{where.trace_flags:02x}"


OPT_IN: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"

SENT, SEND_DURATION = "messaging.client.sent.messages", "messaging.client.operation.duration"
CONSUMED, PROCESS_DURATION = "messaging.client.consumed.messages", "messaging.process.duration"

_COUNTERS: Final = {
    SENT: "Number of messages producer attempted to send to the broker.",
    CONSUMED: "Number of messages that were delivered to the application.",
}
_HISTOGRAMS: Final = {
    SEND_DURATION: "Duration of messaging operation initiated by a producer or consumer client.",
    PROCESS_DURATION: "Duration of processing operation.",
}


@cache
def is_opted_in() -> bool:
    """Return whether the environment asks for the conventions of messaging. It is read once, since each submit asks."""
    wanted = {word.strip() for word in os.environ.get(OPT_IN, "").split(",")}
    return not wanted.isdisjoint({"messaging", "messaging/dup"})


def messaging_attributes(operation: str, kind: str, destination: str) -> dict[str, Any]:
    """Return the attributes of an operation: its name, its kind (`send` or `process`), and the queue."""
    return {
        "messaging.system": NAME,
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.name": destination,
    }


def is_metered() -> bool:
    """Return whether the application asks for the conventions and has set a meter provider."""
    if not is_opted_in():
        return False
    api = sys.modules.get("opentelemetry.metrics")
    # Only this private attribute tells the stand-in, which the API returns until a provider is set, from a provider.
    return api is not None and not hasattr(api.get_meter_provider(), "_real_meter_provider")


def _record(operation: str, kind: str, destination: str, seconds: float, error: BaseException | None) -> None:
    """Count one submit (`send`) or run (`process`), with its duration and the type of the exception that ended it."""
    labels = messaging_attributes(operation, kind, destination)
    if error is not None:
        labels["error.type"] = type(error).__qualname__
    counter, duration = (SENT, SEND_DURATION) if kind == "send" else (CONSUMED, PROCESS_DURATION)
    instruments = _instruments(sys.modules["opentelemetry.metrics"].get_meter_provider())
    instruments[counter].add(1, labels)
    instruments[duration].record(seconds, labels)


@cache
def _instruments(provider: Any) -> dict[str, Any]:
    meter = provider.get_meter(NAME)
    counters = {name: meter.create_counter(name, "{message}", text) for name, text in _COUNTERS.items()}
    return counters | {name: meter.create_histogram(name, "s", text) for name, text in _HISTOGRAMS.items()}
