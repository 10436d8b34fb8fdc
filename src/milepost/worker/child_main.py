"""The main program of a child process: it runs one job at a time and talks to its worker over one socket.

It needs no store, and imports nothing of the user's code before the first job names it. Started as ``python -P -m
milepost.worker.child_main`` with the descriptors of its socket and of two files for a crash, and the pid of its worker.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import signal
import socket
import sys
import threading
from typing import Any

from milepost.core.errors import JobSuspended, RunStop, Snooze
from milepost.core.job import FailureKind, Job
from milepost.run.async_run import AsyncRun
from milepost.run.crash_report import report_exception
from milepost.run.execution import LeasedExecution
from milepost.run.job_result import NO_RESULT, JobResult
from milepost.run.retry_rules import RetryRules
from milepost.run.run import Run
from milepost.run.stages import LiveStage
from milepost.worker.child_protocol import (
    BLOCKED_SIGNALS,
    Message,
    ParentConnection,
    decode_stop,
    encode_wait,
)
from milepost.worker.child_requests import ParentCheckpointWriter, run_details
from milepost.worker.event_loop import run_in_new_loop
from milepost.worker.handlers import Handler, find_handler

PR_SET_PDEATHSIG = 1
REPORT_SECONDS = 0.1


class ChildRun(Run):
    """The run of a handler in a child process of a worker. Its stages and log lines survive a crash of the process."""

    _can_suspend = True

    last_message_file: int = -1
    """The descriptor of a file that the worker reads after a crash; -1 when the run has ended."""

    def _log(self, text: str, level: str, **facts: int) -> None:
        super()._log(text, level, **facts)
        self._write_last_message()

    def _add_stage(self, stage: LiveStage) -> None:
        super()._add_stage(stage)
        self._write_last_message()

    def _write_last_message(self) -> None:
        if self.last_message_file >= 0:
            line = json.dumps({"stage": self._stage_name, "item": self._last_item, "log": list(self.recent_log)})
            os.pwrite(self.last_message_file, line.encode() + b"\n", 0)


class AsyncChildRun(AsyncRun, ChildRun):
    """The run of an async handler in a child process."""


class Child:
    """A child process: the main thread runs jobs, another thread receives messages and sends reports."""

    def __init__(self, connection: ParentConnection, last_message_file: int) -> None:
        self._pid = os.getpid()
        self._connection = connection
        self._last_message_file = last_message_file
        self._checkpoint_writer = ParentCheckpointWriter(connection)
        self._jobs: list[Message | None] = []
        self._has_job = threading.Semaphore(0)
        self._run: Run | None = None
        self._has_work = False
        """Whether a job was received whose outcome is not known yet. Its code may still be being imported."""
        self._early_stop: Message | None = None
        """The last stop of a run that had not begun."""
        self._interruptible = False
        self._signalled = False
        self._is_terminated = False
        """Whether the worker has announced its SIGTERM. It gives such a process no other job."""
        self._has_worker = True
        """Whether messages of the worker still arrive."""
        self._last_report: tuple[object, ...] = ()
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Run jobs until the worker has no more."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker handles Ctrl-C
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED_SIGNALS)
        threading.Thread(target=self._listen, name="milepost-child", daemon=True).start()
        while True:
            self._has_job.acquire()
            job_message = self._jobs.pop(0)
            if job_message is None:
                return
            self._connection.send({"is": "ready", "token": job_message["token"]})
            self._connection.send(self._run_job(job_message))

    # --- the listening thread ---

    def _listen(self) -> None:
        try:
            while True:
                if self._connection.wait(REPORT_SECONDS):
                    message = self._connection.receive()
                    if message is None:
                        self._end_with_parent()
                        return
                    self._handle(message)
                self._repeat_sigterm()
                with contextlib.suppress(OSError):  # the next turn reads the end of the socket
                    self._send_report()
        finally:
            self._has_worker = False  # also if the code of a job has closed the socket

    def _handle(self, message: Message) -> None:
        match message["do"]:
            case "run":
                self._has_work = True
                self._jobs.append(message)
                self._has_job.release()
            case "stop":
                self._stop(message)
            case "terminate":
                self._is_terminated = True
            case "answer":
                self._checkpoint_writer.answer(message)

    def _repeat_sigterm(self) -> None:
        """Send the SIGTERM of the worker to this process again, until `_on_sigterm` has taken it.

        It may have been faster than its announcement. And one that comes just before a wait of the code does not end the wait.
        """
        must_stop = self._is_terminated and self._has_work and not self._signalled
        if must_stop and signal.getsignal(signal.SIGTERM) == self._on_sigterm:
            os.kill(os.getpid(), signal.SIGTERM)

    def _stop(self, message: Message) -> None:
        """Stop a run now, or when it begins: the import of its code may take longer than a worker waits for a stop."""
        with self._lock:
            run = self._run
            if run is None or run.token != message["token"]:
                self._early_stop = message
                return
        run.stop(decode_stop(message))

    def _send_report(self) -> None:
        """Send the report of the run, if it has changed."""
        with self._lock:
            run = self._run
            if run is None:
                return
            parts = run._take_parts()
            report, lines = run._report(), run._take_lines()
            summary = (report, run._stage_name, run._last_item)
            output = _output(run)
            if summary != self._last_report or lines is not None or parts or output:
                self._last_report = summary
                self._connection.send(
                    {
                        "is": "report",
                        **run_details(run),
                        "report": report,
                        "lines": lines,
                        "parts": parts,
                        "output": output,
                    }
                )

    def _end_with_parent(self) -> None:
        """End this process and all that it has started, because the worker has ended or has no more jobs."""
        if self._has_work and os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        self._jobs.append(None)
        self._has_job.release()

    # --- the main thread ---

    def _on_sigterm(self, number: int, at: object) -> None:
        """Interrupt the code if the worker has sent the signal, which it announces by a message.

        A supervisor may send it to all processes. The worker then stops its jobs and gives them back, so ignore it here.
        """
        is_copy = os.getpid() != self._pid  # forked by the code of a job, such as a process of multiprocessing
        if self._has_worker and not is_copy and not (self._is_terminated and self._has_work):
            return  # after its outcome this process ends anyway, because the worker hangs up
        run = self._run
        if is_copy or run is None or not run._stop_reasons:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # end like any process
            os.kill(os.getpid(), signal.SIGTERM)
            return
        self._signalled = True
        if self._interruptible:
            self._interruptible = False
            raise run._stop_reasons[0]

    def _run_job(self, job_message: Message) -> Message:
        """Run one job and return the message with its outcome."""
        self._signalled = False
        os.ftruncate(self._last_message_file, 0)  # discard the last message of the previous run
        sys.path[:] = [*sys.path, *(path for path in job_message["sys_path"] if path not in sys.path)]
        sys.argv[:] = job_message["argv"]  # as multiprocessing does: modules of the application may read them
        run: ChildRun | None = None
        error: BaseException | None = None
        result = NO_RESULT
        kind = FailureKind.ERROR
        rules = RetryRules()
        how = "cooperative"
        for name, level in job_message["log_levels"].items():
            logging.getLogger(name).setLevel(level)
        try:
            job = Job.stored(job_message["job_id"], job_message["record"])
            handler = find_handler(job_message["handler"], job_message["setup"])
            rules = handler.type_options.retry
            run_type = AsyncChildRun if issubclass(handler.run_type, AsyncRun) else ChildRun
            run = run_type(job, job_message["token"], self._checkpoint_writer)
            run.last_message_file = self._last_message_file
            kind = FailureKind.BAD_PARAMETERS
            params = handler.parameters.of(job.record)
            kind = FailureKind.ERROR
            with self._lock:
                self._run, self._last_report = run, ()
                early_stop = self._early_stop
            if early_stop is not None and early_stop["token"] == run.token:
                run.stop(decode_stop(early_stop))
            self._checkpoint_writer.lease_end = job_message["lease_end"]
            execution = LeasedExecution(frozenset(job_message["capture"]), job_message["redact"], whole_process=True)
            execution.run = run
            if handler.is_async:
                error, value = run_in_new_loop(execution.acall(lambda: handler.function(run, **params)))
            else:
                error, value = execution.call(lambda: self._interruptibly(handler, run, params))
            execution.exit_if_forked(error)
            how, result = execution.how, execution.result(error, value)
        except BaseException as caught:  # noqa: BLE001 - any exception is reported to the worker
            error = caught
        finally:
            self._interruptible = False
            with self._lock:
                self._run, self._has_work = None, False
            if run is not None:
                run.last_message_file = -1
        delay = None
        if error is not None and kind is FailureKind.ERROR:
            delay = rules.delay(error, int(job_message["record"].get("attempt", "1")))
        return self._end(run, result, error, kind, delay, how)

    def _interruptibly(self, handler: Handler[Any, Any], run: Run, params: dict[str, Any]) -> Any:
        """Run a sync handler, whose code a SIGTERM of the worker interrupts."""
        self._interruptible = True
        try:
            return handler.function(run, **params)
        finally:
            self._interruptible = False

    def _end(
        self, run: Run | None, result: JobResult, error: BaseException | None, kind: FailureKind, delay: int | None, how: str
    ) -> Message:  # fmt: skip
        message: Message = {"is": "ended"}
        if run is not None:
            message.update(run_details(run), report=run._report(), lines=run._take_lines(), output=_output(run))
        if isinstance(error, JobSuspended):
            message.update(end="suspended", **encode_wait(error))
        elif isinstance(error, Snooze):
            message.update(end="snoozed", seconds=error.delay, gate=error.gate)
        elif isinstance(error, RunStop):
            how = "terminated" if self._signalled else how
            line, failure = report_exception(error, run, FailureKind.TIMEOUT)
            message.update(end="stopped", how=how, kind=type(error).__name__, line=line, failure=failure)
        elif error is not None:
            line, failure = report_exception(error, run, kind)
            message.update(end="raised", line=line, failure=failure, delay=delay, name=type(error).__name__)
        else:
            message.update(end="returned", result=result, open_children=run._open_children if run is not None else 0)
        return message


def _output(run: Run) -> tuple[str, int] | None:
    """Return the new output of a run and the number of characters that were dropped before it; None without any."""
    taken = run._output.take() if run._output is not None else ("", 0)
    return taken if any(taken) else None


def _die_with(parent: int) -> None:
    """Ask the kernel for a SIGKILL when the spawning thread ends; elsewhere the socket has that effect."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # the worker ended before prctl


def main() -> None:
    """Serve the worker that started this process."""
    descriptor, faults, last_message_file, parent = map(int, sys.argv[1:5])
    _die_with(parent)
    faulthandler.enable(file=faults, all_threads=False)
    with socket.socket(fileno=descriptor) as end, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        Child(ParentConnection(end), last_message_file).serve()


if __name__ == "__main__":
    main()
