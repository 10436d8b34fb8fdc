"""The logging configuration of commands that run handlers: INFO from the packages of handlers, WARNING from libraries."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from milepost.logging import JsonFormatter

LEVELS = ("debug", "info", "warning", "error")


def configure_logging(functions: Iterable[Callable[..., Any]], output: logging.Handler, level: str | None) -> None:
    """Send log records to `output`: those from `level` up, or by default INFO of handlers' packages and WARNING of others.

    Without a level, an application that has configured the root logger keeps its configuration.
    """
    root = logging.getLogger()
    if level is not None:
        logging.basicConfig(level=level.upper(), handlers=[output], force=True)
        return
    if root.handlers:
        return
    from milepost.worker.handlers import package_of

    logging.basicConfig(level=logging.WARNING, handlers=[output])
    for package in {"milepost", *(package_of(function) for function in functions)}:
        logger = logging.getLogger(package)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)


class JsonOutput(logging.StreamHandler[TextIO]):
    """Writes log records to stdout as JSON lines, which the capture of stdout does not see."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)
        self.setFormatter(JsonFormatter())

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore that the reader closed the pipe; the worker continues."""
        if not isinstance(sys.exc_info()[1], OSError | ValueError):
            super().handleError(record)


def terminal_output(level: str | None = None) -> logging.Handler:
    """Return a handler that writes to stderr as text, by default from WARNING up."""
    output = logging.StreamHandler()
    output.setLevel((level or "warning").upper())
    output.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    return output
