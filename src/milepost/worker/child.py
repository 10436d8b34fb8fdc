"""The child process of a worker: runs one job at a time, and speaks to its parent over one socket only.

Owns what is inside the child: its end with its parent, the Run that its handler holds, signals. Knows no store; nothing
is imported of a user's code before the first job says which. Started as ``python -m milepost.worker.child`` with the
numbers of its socket and of two files for its last words, and the pid of its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import itertools
import json
import logging
import os
import signal
import socket
import sys
import threading
from typing import Any

from milepost.core.encoding import RESULT_BYTES, from_json, to_json
from milepost.core.errors import Retry, Stop
from milepost.core.job import FailureKind, Job
from milepost.tracking import capture
from milepost.tracking.failures import asked_delay, of_exception
from milepost.tracking.run import Run, hear_in_task
from milepost.tracking.stages import LiveStage
from milepost.worker.handlers import Handler, find_handler
from milepost.worker.wire import Line, Message, stop_of

PR_SET_PDEATHSIG = 1
REPORT_SECONDS = 0.1


class ParentLink:
    """How the run of a child writes its checkpoints: its parent does, and answers when the store has it."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[Run, threading.Event]] = {}

    def checkpoint(self, run: Run, text: str) -> None:
        number, answered = next(self._numbers), threading.Event()
        self._waiting[number] = run, answered
        message = {"is": "checkpoint", "n": number, "token": run.token, "text": text}
        self._line.send({**message, **_told(run), "report": run.report()})
        answered.wait()

    async def acheckpoint(self, run: Run, text: str) -> None:
        await asyncio.to_thread(self.checkpoint, run, text)

    def answer(self, number: int, stop: Message | None) -> None:
        """The parent has dealt with a checkpoint; `stop` is why its run may not write any more."""
        run, answered = self._waiting.pop(number)
        if stop is not None:
            run.stop(stop_of(stop))
        answered.set()


class ChildRun(Run):
    """The run that a child's handler holds; its stages and log lines outlive the death of the process."""

    words: int = -1
    """A file that the parent reads when this process has died; of no run that has ended."""

    def log(self, text: str, level: str = "info") -> None:
        super().log(text, level)
        self._leave_words()

    def _place(self, stage: LiveStage) -> None:
        super()._place(stage)
        self._leave_words()

    def _leave_words(self) -> None:
        if self.words >= 0:
            line = json.dumps({"stage": self.stage_name, "item": self.last_item, "log": list(self.recent_log)})
            os.pwrite(self.words, line.encode() + b"\n", 0)


class Child:
    """One child: the main thread runs jobs, another one listens to the parent and tells it how far the run is."""

    def __init__(self, line: Line, words: int) -> None:
        self._line = line
        self._words = words
        self._link = ParentLink(line)
        self._orders: list[Message | None] = []
        self._ordered = threading.Semaphore(0)
        self._run: Run | None = None
        self._interruptible = False
        self._signalled = False
        self._said: tuple[object, ...] = ()
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Run jobs until the parent has no more."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to hear
        signal.signal(signal.SIGTERM, self._on_sigterm)
        threading.Thread(target=self._listen, name="milepost-child", daemon=True).start()
        self._line.send({"is": "ready", "pid": os.getpid()})
        while True:
            self._ordered.acquire()
            order = self._orders.pop(0)
            if order is None:
                return
            self._line.send(self._do(order))

    # --- the listening thread ---

    def _listen(self) -> None:
        while True:
            if self._line.wait(REPORT_SECONDS):
                message = self._line.receive()
                if message is None:
                    self._end_with_parent()
                    return
                self._hear(message)
            with contextlib.suppress(OSError):  # the end of the socket is read at the next turn
                self._tell()

    def _hear(self, message: Message) -> None:
        match message["do"]:
            case "run":
                self._orders.append(message)
                self._ordered.release()
            case "stop" if self._run is not None and self._run.token == message["token"]:
                self._run.stop(stop_of(message))
            case "answer":
                self._link.answer(message["n"], message.get("stop"))

    def _tell(self) -> None:
        """Send what the run says of itself, if that has changed."""
        with self._lock:
            run = self._run
            if run is None:
                return
            report, lines = run.report(), run.take_lines()
            said = (report, run.stage_name, run.last_item)
            if said != self._said or lines is not None:
                self._said = said
                self._line.send({"is": "report", **_told(run), "report": report, "lines": lines})

    def _end_with_parent(self) -> None:
        """The parent has ended, or has no more jobs: end with all that this process has started."""
        if self._run is not None and os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        self._orders.append(None)
        self._ordered.release()

    # --- the main thread ---

    def _on_sigterm(self, number: int, at: object) -> None:
        run = self._run
        if run is None or not run.stops:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not of the worker: end as any process would
            os.kill(os.getpid(), signal.SIGTERM)
            return
        self._signalled = True
        if self._interruptible:
            self._interruptible = False
            raise run.stops[0]

    def _do(self, order: Message) -> Message:
        """Run one job; what the parent is told of its end."""
        self._signalled = False
        os.ftruncate(self._words, 0)  # what the run before has said is nothing of this one's
        sys.path[:] = [*sys.path, *(path for path in order["sys_path"] if path not in sys.path)]
        run: ChildRun | None = None
        result: str | None = None
        error: BaseException | None = None
        kind = FailureKind.ERROR
        logging.getLogger().setLevel(order["log_level"])
        try:
            handler = find_handler(order["handler"])
            job = Job.stored(order["job_id"], order["record"])
            only = job.record.get("only_keys")
            run = ChildRun(job, order["token"], self._link, only=from_json(only) if only else None)
            run.words = self._words
            run.masks = tuple(order["masks"])
            kind = FailureKind.BAD_PARAMETERS
            params = handler.parameters.read(from_json(job.record.get("params", "{}")))
            kind = FailureKind.ERROR
            with self._lock:
                self._run, self._said = run, ()
            if order.get("stop"):
                run.stop(stop_of(order["stop"]))
            captured = capture.begin(run, frozenset(order["capture"]), order["redact"], own_process=True)
            try:
                value = self._call(handler, run, params)
            finally:
                capture.end(run, captured)
            kind = FailureKind.NOT_SERIALISABLE
            result = None if value is None else to_json(value, "result", RESULT_BYTES)
        except BaseException as caught:  # noqa: BLE001 - whatever ends a handler is told to the parent
            error = caught
        finally:
            self._interruptible = False
            with self._lock:
                self._run = None
            if run is not None:
                run.words = -1
        return self._end(run, result, error, kind)

    def _call(self, handler: Handler[Any, Any], run: Run, params: dict[str, Any]) -> Any:
        run.check()
        if handler.is_async:
            return asyncio.run(_in_loop(handler, run, params))
        self._interruptible = True
        try:
            return handler.function(run, **params)
        finally:
            self._interruptible = False

    def _end(self, run: Run | None, result: str | None, error: BaseException | None, kind: FailureKind) -> Message:
        told: Message = {"is": "ended"}
        if run is not None:
            told.update(_told(run), report=run.report(), lines=run.take_lines())
        if isinstance(error, Stop):
            how = "terminated" if self._signalled else "cooperative"
            if error.__cause__ is not None and isinstance(error.__cause__, asyncio.CancelledError):
                how = "terminated" if self._signalled else "task cancelled"
            line, failure = of_exception(error, run, FailureKind.TIMEOUT)
            told.update(end="stopped", how=how, kind=type(error).__name__, line=line, failure=failure)
        elif error is not None:
            retryable = kind is FailureKind.ERROR
            line, failure = of_exception(error, run, kind)
            told.update(end="raised", line=line, failure=failure, retryable=retryable, name=type(error).__name__)
            if isinstance(error, Retry):
                told["delay"] = asked_delay(error)
        else:
            told.update(end="returned", result=result)
        return told


def _told(run: Run) -> Message:
    return {
        "stage": run.stage_name,
        "item": run.last_item,
        "log": list(run.recent_log),
        "checkpoint_at": run.checkpoint_at,
    }


async def _in_loop(handler: Handler[Any, Any], run: Run, params: dict[str, Any]) -> Any:
    task = asyncio.current_task()
    assert task is not None, "asyncio.run makes a task"
    hear_in_task(run, task, asyncio.get_running_loop())
    try:
        return await handler.function(run, **params)
    except asyncio.CancelledError as cancelled:
        if run.stops:
            raise run.stops[0] from cancelled
        raise
    finally:
        run.on_stop = None


def _die_with(parent: int) -> None:
    """Ask the kernel for a SIGKILL when the thread that spawned this process ends; the socket does it elsewhere."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # the parent had ended before it was asked


def main() -> None:
    """Serve the worker that has started this process."""
    descriptor, faults, words, parent = map(int, sys.argv[1:5])
    _die_with(parent)
    faulthandler.enable(file=faults, all_threads=False)
    with socket.socket(fileno=descriptor) as end, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        Child(Line(end), words).serve()


if __name__ == "__main__":
    main()
