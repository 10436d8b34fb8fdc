"""OpenTelemetry, where the application uses it: a span for each submit and for each run, in one trace, which the job carries.

Owns the spans and their names. It imports nothing that the application has not imported: without OpenTelemetry nothing here
costs more than a look at a dict, and where only some library has imported it nothing is recorded. A job carries its trace
as the text of a `traceparent` (https://www.w3.org/TR/trace-context/).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from milepost.core.encoding import from_json
from milepost.core.errors import Stop
from milepost.tracking.failures import of_exception

if TYPE_CHECKING:
    from milepost.tracking.run import Run

NAME = "milepost"


class RunSpan(NamedTuple):
    """The span of a run, what makes it the current one, and the exception that was already there when it began."""

    span: Any
    token: Any
    before: BaseException | None


def _api() -> Any:
    """`opentelemetry.trace`, when the application has set it up; else None."""
    api = sys.modules.get("opentelemetry.trace")
    return None if api is None or isinstance(api.get_tracer_provider(), api.ProxyTracerProvider) else api


def current_trace() -> str | None:
    """The span that the caller is in, as a `traceparent`; None outside of any."""
    api = _api()
    if api is None or not api.get_current_span().get_span_context().is_valid:
        return None
    return _written(api.get_current_span())


def trace_id(trace: str | None) -> str | None:
    """The id of the trace that a `traceparent` names: 32 hexadecimal digits."""
    parts = (trace or "").split("-")
    return parts[1] if len(parts) == 4 and len(parts[1]) == 32 else None


def submitting(fields: dict[str, str]) -> AbstractContextManager[None]:
    """A span around the recording of a job; its fields carry it to the run."""
    api = _api()
    return nullcontext() if api is None else _submit_span(api, fields)


@contextmanager
def _submit_span(api: Any, fields: dict[str, str]) -> Iterator[None]:
    tracer, parent = api.get_tracer(NAME), _context(fields.get("trace"))
    name, attributes = f"submit {fields['type']}", {"milepost.job.type": fields["type"]}
    with tracer.start_as_current_span(name, parent, kind=api.SpanKind.PRODUCER, attributes=attributes) as span:
        if span.get_span_context().is_valid:
            fields["trace"] = _written(span)
        yield


def begin_run(run: Run) -> RunSpan | None:
    """The code of a run begins here: its span is the current one until `end_run`."""
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


def end_run(run: Run, begun: RunSpan | None) -> None:
    """The code of a run ends here, with the exception that is being handled, if any."""
    if begun is None:
        return
    from opentelemetry import context
    from opentelemetry.trace import Status, StatusCode

    error = sys.exc_info()[1]
    if isinstance(error, Stop) or run.stops:
        begun.span.set_attribute("milepost.run.stopped", type(error or run.stops[0]).__name__)
    elif error is not None and error is not begun.before:
        # By milepost's own words, in which secrets are masked.
        line, dossier = of_exception(error, run)
        told = {"exception.type": type(error).__name__, "exception.message": line}
        begun.span.add_event("exception", {**told, "exception.stacktrace": from_json(dossier).get("traceback", "")})
        begun.span.set_status(Status(StatusCode.ERROR, line))
    begun.span.end()
    context.detach(begun.token)


def _context(trace: str | None) -> Any:
    """The context that a job carries; None, which means the one of here, when it carries none."""
    if trace is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": trace})


def _written(span: Any) -> str:
    where = span.get_span_context()
    return f"00-{where.trace_id:032x}-{where.span_id:016x}-{where.trace_flags:02x}"
