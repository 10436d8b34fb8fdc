"""OpenTelemetry spans for each submit and each run, in one trace that the job carries as a `traceparent`.

Nothing is imported that the application has not imported: without OpenTelemetry this costs one dict lookup.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from milepost.core.errors import RunStop
from milepost.core.serialization import from_json
from milepost.run.crash_report import report_exception

if TYPE_CHECKING:
    from milepost.run.run import Run

NAME = "milepost"


class RunSpan(NamedTuple):
    """The span of a run, its context token, and the exception that was being handled at its start."""

    span: Any
    token: Any
    before: BaseException | None


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


def submit_span(fields: dict[str, str]) -> AbstractContextManager[None]:
    """Return a context manager that records the creation of a job as a span; its fields carry the span to the run."""
    api = _api()
    return nullcontext() if api is None else _open_submit_span(api, fields)


@contextmanager
def _open_submit_span(api: Any, fields: dict[str, str]) -> Iterator[None]:
    tracer, parent = api.get_tracer(NAME), _context(fields.get("trace"))
    name, attributes = f"submit {fields['type']}", {"milepost.job.type": fields["type"]}
    with tracer.start_as_current_span(name, parent, kind=api.SpanKind.PRODUCER, attributes=attributes) as span:
        if span.get_span_context().is_valid:
            fields["trace"] = _traceparent(span)
        yield


def start_run_span(run: Run) -> RunSpan | None:
    """Start the span of a run and make it current until `end_run_span`."""
    api = _api()
    if api is None:
        return None
    from opentelemetry import context

    span = api.get_tracer(NAME).start_span(
        f"run {run.job_type}",
        _context(run.trace),
        kind=api.SpanKind.CONSUMER,
        attributes={
            "milepost.job.id": run.job_id,
            "milepost.job.type": run.job_type,
            "milepost.job.attempt": run.attempt,
        },
    )
    return RunSpan(span, context.attach(api.set_span_in_context(span)), sys.exc_info()[1])


def end_run_span(run: Run, handle: RunSpan | None) -> None:
    """End the span of a run, with the exception that is being handled, if any."""
    if handle is None:
        return
    from opentelemetry import context
    from opentelemetry.trace import Status, StatusCode

    error = sys.exc_info()[1]
    if isinstance(error, RunStop) or run._stop_reasons:
        handle.span.set_attribute("milepost.run.stopped", type(error or run._stop_reasons[0]).__name__)
    elif error is not None and error is not handle.before:
        # The crash report has its secrets masked.
        line, crash_report = report_exception(error, run)
        details = {"exception.type": type(error).__name__, "exception.message": line}
        handle.span.add_event(
            "exception", {**details, "exception.stacktrace": from_json(crash_report).get("traceback", "")}
        )
        handle.span.set_status(Status(StatusCode.ERROR, line))
    handle.span.end()
    context.detach(handle.token)


def _context(trace: str | None) -> Any:
    """Return the context that a job carries, or None for the current one."""
    if trace is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": trace})


def _traceparent(span: Any) -> str:
    where = span.get_span_context()
    return f"00-{where.trace_id:032x}-{where.span_id:016x}-{where.trace_flags:02x}"
