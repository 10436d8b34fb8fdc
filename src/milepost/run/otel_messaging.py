"""OpenTelemetry's semantic conventions for messaging: attributes of the spans, and four metrics.

They are experimental there, so applications opt in with OTEL_SEMCONV_STABILITY_OPT_IN, the standard variable. A submit is
the operation `send`, a run the operation `process`, and the queue is the destination.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import Any, Final

OPT_IN: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"
SYSTEM: Final = "milepost"

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


def attributes(operation: str, kind: str, destination: str) -> dict[str, Any]:
    """Return the attributes of an operation: its name, its kind (`send` or `process`), and the queue."""
    return {
        "messaging.system": SYSTEM,
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


def record(operation: str, kind: str, destination: str, seconds: float, error: BaseException | None) -> None:
    """Count one submit (`send`) or run (`process`), with its duration and the type of the exception that ended it."""
    labels = attributes(operation, kind, destination)
    if error is not None:
        labels["error.type"] = type(error).__qualname__
    counter, duration = (SENT, SEND_DURATION) if kind == "send" else (CONSUMED, PROCESS_DURATION)
    instruments = _instruments(sys.modules["opentelemetry.metrics"].get_meter_provider())
    instruments[counter].add(1, labels)
    instruments[duration].record(seconds, labels)


@cache
def _instruments(provider: Any) -> dict[str, Any]:
    meter = provider.get_meter(SYSTEM)
    counters = {name: meter.create_counter(name, "{message}", text) for name, text in _COUNTERS.items()}
    return counters | {name: meter.create_histogram(name, "s", text) for name, text in _HISTOGRAMS.items()}
