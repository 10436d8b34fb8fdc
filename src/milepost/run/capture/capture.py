"""Capture of what libraries print and log inside a run: log records, tqdm bars and standard output.

Log records are captured through the record factory of `logging`. The others need to replace something of another
library, so they are captured only if the settings ask for them. Code outside of runs sees no difference, and an error
in the capture never breaks the user's code.
"""

from __future__ import annotations

import copy
import logging
import sys
import threading
from contextvars import Token
from typing import TYPE_CHECKING, Any, NamedTuple

from milepost.run import context
from milepost.run.capture.tqdm import close_bars, patch_tqdm
from milepost.run.context import current
from milepost.run.crash_report import load_redact_hook
from milepost.run.otel import RunSpan, end_run_span, start_run_span

if TYPE_CHECKING:
    from milepost.run.run import Run

log = logging.getLogger("milepost.capture")
log.addHandler(logging.NullHandler())

MAX_LINE = 4096
_format = logging.Formatter("%(message)s").format
_LEVELS = ((50, "critical"), (40, "error"), (30, "warning"), (20, "info"))
_installed: set[str] = set()
_local = threading.local()
_lock = threading.Lock()


class CaptureHandle(NamedTuple):
    """What `end` needs from `begin`."""

    token: Token[Any]
    span: RunSpan | None


def begin(run: Run, kinds: frozenset[str], redact: str | None, *, whole_process: bool = False) -> CaptureHandle:
    """Start the capture and the span of a run in this context, until `end`.

    Raises InvalidInputError if the redaction hook cannot be imported, because nothing may be captured without it.
    """
    run._redact = load_redact_hook(redact)
    run._captures = kinds
    if not kinds <= _installed:
        _install(kinds)
    if "stdout" in kinds:
        _tee_stdout()
    if whole_process:
        context.set_process_run(run)
    return CaptureHandle(context.enter(run), start_run_span(run))


def end(run: Run, handle: CaptureHandle) -> None:
    """End the capture and the span of a run. The last bars and lines are in the run when this returns."""
    end_run_span(run, handle.span)
    context.leave(handle.token)
    context.set_process_run(None)
    if run._captures:
        if "stdout" in run._captures:
            _untee_stdout(run)
        if "tqdm" in run._captures:
            close_bars(run)
    run._captures = None


def _install(kinds: frozenset[str]) -> None:
    with _lock:
        if "logging" in kinds - _installed:
            _capture_records()
        if "tqdm" in kinds - _installed:
            patch_tqdm()
        if "threads" in kinds - _installed:
            context.patch_threads()
        _installed.update(kinds)


def _echo(run: Run, text: str, level: str) -> None:
    """Add a line to the run's log. What the redaction hook itself logs meanwhile is not captured again."""
    if getattr(_local, "busy", False):
        return
    _local.busy = True
    try:
        run.log(text, level)
    finally:
        _local.busy = False


# --- logging -------------------------------------------------------------------------------------------------------


def _capture_records() -> None:
    """Capture each record as it is made.

    A handler of our own would keep `basicConfig` from working and would miss loggers that do not propagate. The filters of
    a logger and of its handlers have not seen the record yet.
    """
    make = logging.getLogRecordFactory()

    def make_and_capture(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        run = current()
        if run is not None and "logging" in (run._captures or ()) and _is_foreign(record):
            try:
                _echo(run, _format(copy.copy(record)), level_name(record.levelno))
            except Exception:  # formatting runs user code, whose own handlers report the error
                log.debug("job %s: log record not captured", run.job_id, exc_info=True)
        return record

    logging.setLogRecordFactory(make_and_capture)


def _is_foreign(record: logging.LogRecord) -> bool:
    """Return whether a record is not milepost's own. One that is still empty comes from `logging.makeLogRecord`."""
    return bool(record.name) and not record.name.startswith("milepost.")


def level_name(level: int) -> str:
    """Return the name of a logging level, also for levels between the five standard ones."""
    return next((word for least, word in _LEVELS if level >= least), "debug")


# --- standard output -----------------------------------------------------------------------------------------------


class Tee:
    """Standard output that also goes to the log of the run that writes, line by line."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.users = 0
        self._partial: dict[tuple[str, int], str] = {}

    def write(self, text: str) -> Any:
        """Write to the stream and capture the lines."""
        written = self.stream.write(text)
        run = current()
        if run is not None and "stdout" in (run._captures or ()):
            key = (run.token, threading.get_ident())
            *lines, rest = (self._partial.pop(key, "") + text).split("\n")
            if len(rest) > MAX_LINE:
                lines, rest = [*lines, rest], ""
            if rest:
                self._partial[key] = rest
            for line in lines:
                _echo(run, _visible_part(line), "info")
        return written

    def writelines(self, lines: Any) -> None:
        """Write each line."""
        for line in lines:
            self.write(line)

    def finish(self, run: Run) -> None:
        """Log the unfinished line of the run."""
        for key in [key for key in list(self._partial) if key[0] == run.token]:
            rest = self._partial.pop(key, "")
            if rest:
                _echo(run, _visible_part(rest), "info")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _visible_part(line: str) -> str:
    """Return the part of a line that a terminal shows: the text after the last carriage return."""
    return line.rstrip("\r").rpartition("\r")[2]


def _tee_stdout() -> None:
    with _lock:
        tee: Any = sys.stdout
        if not isinstance(tee, Tee):
            tee = sys.stdout = Tee(sys.stdout)
        tee.users += 1


def _untee_stdout(run: Run) -> None:
    with _lock:
        tee: Any = sys.stdout
        if isinstance(tee, Tee):
            tee.finish(run)
            tee.users -= 1
            if tee.users <= 0:
                sys.stdout = tee.stream
