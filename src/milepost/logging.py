"""Log records with the job that they belong to, for the `logging` configuration of an application."""

from __future__ import annotations

from milepost.run.capture.logging import JobContext, JsonFormatter

__all__ = ["JobContext", "JsonFormatter"]
