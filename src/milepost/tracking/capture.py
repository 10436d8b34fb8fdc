"""Capture: what libraries say inside a run, tqdm's bars and records of `logging`, becomes the run's own, unasked.

Owns how it is heard, for each of `Settings.capture`; the bars are of `bars`, whose code runs here is of `belonging`.
What is listened to is wrapped when the first run asks for it, and is as it was for code outside of any run. Nothing of
this ever breaks the user's code: what goes wrong is logged once.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections.abc import Callable
from contextvars import Token
from typing import TYPE_CHECKING, Any, NamedTuple

from milepost.tracking import belonging
from milepost.tracking.bars import close_bars, watch_tqdm
from milepost.tracking.belonging import current
from milepost.tracking.failures import redaction
from milepost.tracking.tracing import RunSpan, begin_run, end_run

if TYPE_CHECKING:
    from milepost.tracking.run import Run

log = logging.getLogger("milepost.capture")
log.addHandler(logging.NullHandler())

LINE_MOST = 4096
_format = logging.Formatter("%(message)s").format
_LEVELS = ((50, "critical"), (40, "error"), (30, "warning"), (20, "info"))
_heard: set[str] = set()
_here = threading.local()
_lock = threading.Lock()


class Begun(NamedTuple):
    """What `end` needs of a beginning."""

    token: Token[Any]
    span: RunSpan | None


def begin(run: Run, what: frozenset[str], redact: str | None, *, own_process: bool = False) -> Begun:
    """The code that follows in this context belongs to the run, and is heard; it is in the run's span. See `end`.

    Raises InvalidInput when the redaction hook cannot be found: nothing is captured that should have passed it.
    """
    run.redact = redaction(redact)
    run.captures = what
    if not what <= _heard:
        _listen(what)
    if "stdout" in what:
        _tee_stdout()
    if own_process:
        belonging.own_process(run)
    return Begun(belonging.enter(run), begin_run(run))


def end(run: Run, begun: Begun) -> None:
    """The code of the run is over; what it said last is with the run when this returns."""
    end_run(run, begun.span)
    belonging.leave(begun.token)
    belonging.own_process(None)
    if run.captures:
        if "stdout" in run.captures:
            _untee_stdout(run)
        if "tqdm" in run.captures:
            close_bars(run)
    run.captures = None


def _listen(what: frozenset[str]) -> None:
    with _lock:
        if "logging" in what - _heard:
            _wrap_logging()
        if "tqdm" in what - _heard:
            watch_tqdm()
        _heard.update(what)


def _say(run: Run, text: str, level: str) -> None:
    """Add to the run's log; what a redaction hook says itself meanwhile is not heard again."""
    if getattr(_here, "busy", False):
        return
    _here.busy = True
    try:
        run.log(text, level)
    finally:
        _here.busy = False


# --- logging -------------------------------------------------------------------------------------------------------


def _wrap_logging() -> None:
    """Hear each record after its handlers have. A handler of ours would keep `basicConfig` from doing its work."""
    handle: Callable[[logging.Logger, logging.LogRecord], None] = logging.Logger.callHandlers

    @functools.wraps(handle)
    def heard(self: logging.Logger, record: logging.LogRecord) -> None:
        handle(self, record)
        run = current()
        if run is not None and "logging" in (run.captures or ()) and not record.name.startswith("milepost."):
            try:
                _say(run, _format(record), level_word(record.levelno))
            except Exception:  # the record is the user's, and its own handlers complain of it
                log.debug("job %s: a log record cannot be read", run.job_id, exc_info=True)

    logging.Logger.callHandlers = heard  # type: ignore[method-assign]


def level_word(level: int) -> str:
    """The name of a level of `logging`, those between the five known ones included."""
    return next((word for least, word in _LEVELS if level >= least), "debug")


# --- standard output -----------------------------------------------------------------------------------------------


class Tee:
    """Standard output that also goes, line by line, to the log of the run that writes."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.users = 0
        self._begun: dict[tuple[str, int], str] = {}

    def write(self, text: str) -> Any:
        """Write to the stream, and hear the lines."""
        written = self.stream.write(text)
        run = current()
        if run is not None and "stdout" in (run.captures or ()):
            key = (run.token, threading.get_ident())
            *lines, rest = (self._begun.pop(key, "") + text).split("\n")
            if len(rest) > LINE_MOST:
                lines, rest = [*lines, rest], ""
            if rest:
                self._begun[key] = rest
            for line in lines:
                _say(run, _as_seen(line), "info")
        return written

    def writelines(self, lines: Any) -> None:
        """Write each of them."""
        for line in lines:
            self.write(line)

    def finish(self, run: Run) -> None:
        """The line that the run has begun and not ended is one too."""
        for key in [key for key in tuple(self._begun) if key[0] == run.token]:
            rest = self._begun.pop(key, "")
            if rest:
                _say(run, _as_seen(rest), "info")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _as_seen(line: str) -> str:
    """A line as a terminal shows it in the end: what stands after its last carriage return."""
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
