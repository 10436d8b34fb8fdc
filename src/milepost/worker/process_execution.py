"""The execution of one claimed job in a child process.

A stop escalates from a message to SIGTERM and then SIGKILL. `process_pool` has the processes themselves.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from milepost.core.defaults import CRASHES
from milepost.core.errors import (
    BudgetExceededError,
    JobCancelled,
    JobReleased,
    JobTimedOut,
    LeaseLost,
    RunStop,
    StoreError,
)
from milepost.core.job import FailureKind, Job
from milepost.core.serialization import from_json, single_line
from milepost.run.budget_question import ask_to_raise
from milepost.run.checkpoints import (
    CheckpointWriter,
    read_clock,
    read_questions,
    write_checkpoint,
    write_question,
    write_step,
)
from milepost.run.child_store import answer_children
from milepost.run.crash_report import crash_loop_line, crash_report, masked, run_facts
from milepost.run.heartbeat_state import PendingReport
from milepost.run.job_result import JobResult
from milepost.run.outcome import RunOutcome, completed, crashed, failed, postponed, stopped
from milepost.run.process_identity import versions
from milepost.run.run import RECENT_LOG_LINES, Run
from milepost.run.suspension import snooze_micros
from milepost.worker.child_protocol import Message, decode_wait, encode_stop, encode_wait
from milepost.worker.execution import LOOP_ENDED, Execution, log
from milepost.worker.handlers import package_of
from milepost.worker.process_pool import ChildExit, ChildProcess
from milepost.worker.registry import host_and_pid
from milepost.worker.worker_state import is_crash_suspect

Event = TypeVar("Event")

SIGTERM_DELAY = 0.5
"""Seconds between a stop message and SIGTERM: enough for a tick of a tracked loop."""
SIGTERM_GRACE_SHARE = 0.25
PARENT_ONLY_FIELDS = frozenset(
    {
        "failures",
        "failures_before",
        "failure",
        "result",
        "result_error",
        "result_text",
        "late_result",
        "created_by_op",
        "recent_ops",
        "caller_ops",
        "update_ops",
    }
)


class RemoteRun(Run):
    """Stands for the run of a child process in its worker: what the child, which has redacted it, reported last."""

    _stage_name: str | None = None
    _last_item: str | None = None

    def __init__(self, job: Job, token: str) -> None:
        super().__init__(job, token, CheckpointWriter())
        self._reported: dict[str, str] = {}
        self._parts: list[tuple[str, str]] = []

    def _report(self) -> dict[str, str]:
        """Return the last report of the run as fields of the record."""
        return self._reported

    def _take_parts(self, *, at_end: bool = False) -> list[tuple[str, str]]:
        """Return the parts of kept results since the last call, each with its key."""
        parts, self._parts = self._parts, []
        return parts

    def apply_message(self, message: Message) -> None:
        """Take in what the child reports about its run."""
        self._parts += [(key, text) for key, text in message.get("parts") or ()]
        self._reported = message.get("report", self._reported)
        if message.get("usage") is not None:
            self._reported = {**self._reported, "usage": message["usage"]}
        if message.get("output"):
            self._add_output(*message["output"])
        if message.get("lines"):
            self._log_buffer.add(from_json(message["lines"])["lines"])
        self._stage_name = message.get("stage", self._stage_name)
        self._last_item = message.get("item", self._last_item)
        self._checkpoint_at = message.get("checkpoint_at") or self._checkpoint_at
        if "log" in message:
            self.recent_log = deque(message["log"], RECENT_LOG_LINES)


class ProcessExecution(Execution):
    """A handler in a child process."""

    child: ChildProcess | None = None

    run: RemoteRun

    def _make_run(self) -> RemoteRun:
        return RemoteRun(self.job, self.token)

    def _start(self, params: dict[str, Any]) -> None:
        self.run._on_stop = self._on_stop
        self._task = self._create_task(self._main())

    def stop(self, reason: RunStop) -> None:
        self.run.stop(reason)  # the grace period starts when the child gets the message

    def force_stop(self) -> None:
        if self.child is not None:
            self.child.kill()

    def _on_stop(self, reason: RunStop) -> None:
        self.host.in_loop(self._stop_child, reason)

    def _stop_child(self, reason: RunStop) -> None:
        """Stop the child: a message, then SIGTERM to its process group, then SIGKILL after the grace period."""
        child, grace = self.child, self.host.settings.grace
        if child is None:
            return
        child.send({"do": "stop", "token": self.token, **encode_stop(reason)})
        self.call_later(min(SIGTERM_DELAY, grace * SIGTERM_GRACE_SHARE), child.terminate)
        self.call_later(grace, child.kill)

    async def _main(self) -> None:
        try:
            await self._run_in_child()
        except Exception as error:  # noqa: BLE001 - its job would run for ever
            log.exception("job %s (%s): unexpected error, job ended", self.job.job_id, self.job.job_type)
            child, self.child = self.child, None
            if child is not None:
                child.kill()
                await self._wait(child.death)
            self.finish(error)

    async def _run_in_child(self) -> None:
        try:
            crash_suspect = is_crash_suspect(self.job)
            child = self.host.process_pool.take(fresh=crash_suspect)
            await child.connect()
        except OSError as error:
            self._give_back("no child process started", str(error))
            return
        self.child = child
        child.send(self._job_message())
        if self.run._stop_reasons:
            self._stop_child(self.run._stop_reasons[0])
        end: Message | None = None
        is_received = False
        while end is None and (message := await self._wait(child.receive)) is not None:
            if message["is"] == "ready":
                is_received = True
                continue
            if message.get("token", self.token) != self.token:
                # Code that an earlier job left running in this process.
                child.send({"do": "answer", "n": message["n"], "stop": encode_stop(LeaseLost("the run has ended"))})
                continue
            self.run.apply_message(message)
            if message["is"] == "ended":
                end = message
            elif "n" in message:
                child.send({"do": "answer", "n": message["n"], **await self._answer(message)})
        if end is not None:
            self.child = None
            self.host.process_pool.release(child, reuse=not child.was_signalled and not crash_suspect)
            if child.was_signalled:
                await self._wait(child.death)  # its own child processes may ignore the signal; SIGKILL follows
            self.leave(lambda pending: self._checked_end(end, pending))
        else:
            death = await self._wait(child.death)  # it may still be alive if its code closed the socket
            self.child = None
            if child.jobs and not is_received:
                self._give_back("the idle child process had ended", str(death))
                return
            self.run.apply_message(death.last_message)
            self.leave(lambda pending: self._on_crash(child, death, pending))

    def _give_back(self, event: str, cause: str) -> None:
        """Release the job, whose code has not begun because there was no process for it, or end it if it was stopped."""
        log.warning("job %s: %s, job released: %s", self.job.job_id, event, cause)
        reason = self.run._stop_reasons[0] if self.run._stop_reasons else JobReleased(cause)
        delay = self.retry_delay(reason) if isinstance(reason, JobTimedOut) else None
        self.leave(lambda pending: stopped(self.run, pending, reason, how="never_started", delay=delay))

    async def _wait(self, event: Callable[[], Awaitable[Event]]) -> Event:
        """Wait for an event of the child. If the event loop ends, which cancels this task, stop the child and wait on."""
        while True:
            try:
                return await event()
            except asyncio.CancelledError:
                self.run.stop(JobReleased(LOOP_ENDED))

    def _job_message(self) -> Message:
        record = {name: text for name, text in self.record.items() if name not in PARENT_ONLY_FIELDS}
        return {
            "do": "run",
            "handler": self.handler.reference,
            "setup": self.host.process_setup,
            "job_id": self.job.job_id,
            "token": self.token,
            "lease_end": self.sent_at + self.host.settings.lease,
            "record": record,
            "capture": sorted(self.host.settings.captures),
            "redact": self.host.settings.redact,
            "log_levels": {name: logging.getLogger(name).level for name in ("root", package_of(self.handler.function))},
            "sys_path": [path for path in sys.path if isinstance(path, str)],  # imports ignore other entries too
            "argv": sys.argv,
        }

    async def _answer(self, message: Message) -> Message:
        """Do what the child requests of the store; return the reply: a text, why the run is stopped, or the store's error."""
        store = self.host.store
        try:
            match message["is"]:
                case "lease":
                    self.heartbeat.stop_if_expired(self.run)
                    if self.run._stop_reasons:
                        raise self.run._stop_reasons[0]
                case "checkpoint":
                    text, report = message["text"], message["report"]
                    await write_checkpoint(store, self.heartbeat, self.run, text, report, until_stopped=True)
                case "step":
                    steps, key, parts = message["steps"], message["key"], message["step_parts"]
                    await write_step(
                        store, self.heartbeat, self.run, steps, key, parts, usage=message["usage"], until_stopped=True
                    )
                case "question":
                    return {
                        "text": "1"
                        if await write_question(store, self.run, message["values"], until_stopped=True)
                        else ""
                    }
                case "questions":
                    return {"text": json.dumps(await read_questions(store, self.run, until_stopped=True))}
                case "budget":
                    wait = await ask_to_raise(store, self.run, message["holder"], message["usage"])
                    if isinstance(wait, BudgetExceededError):
                        return {"text": json.dumps({"error": str(wait)})}
                    return {"text": json.dumps(encode_wait(wait))}
                case "now":
                    return {"text": str(await read_clock(store, self.run, until_stopped=True))}
                case "children":
                    return {"text": await answer_children(store, self.run, message["request"], until_stopped=True)}
                case "using" if self.handler.type_options.isolation != "process":
                    self.host.transaction_types.add(self.job.job_type)
                    self.run.stop(
                        JobReleased("using: needs a connection to the store, which a child process does not have")
                    )
                    return {"stop": encode_stop(self.run._stop_reasons[0])}
                case "read":
                    item = await store.kv_get(message["key"])
                    return {"text": item.value if item is not None else None}
        except RunStop as reason:
            return {"stop": encode_stop(reason)}
        except asyncio.CancelledError:  # as in `_wait`
            self.run.stop(JobReleased(LOOP_ENDED))
            return {"stop": encode_stop(self.run._stop_reasons[0])}
        except StoreError as error:
            return {"refused": str(error)}
        return {}

    def _checked_end(self, end: Message, pending: PendingReport) -> RunOutcome:
        """Return the outcome that the child reported, or a failure if its message is not valid."""
        try:
            return self._end(end, pending)
        except Exception as error:  # noqa: BLE001 - as above
            log.exception("job %s (%s): unexpected outcome, job ended", self.job.job_id, self.job.job_type)
            return self.outcome(pending, error, delay=self.retry_delay(error))

    def _end(self, end: Message, pending: PendingReport) -> RunOutcome:
        """Return the outcome that the child reported."""
        if end["end"] == "returned":
            self.run._open_children = end["open_children"]
            return completed(self.run, pending, JobResult(*end["result"]))
        if end["end"] == "suspended":
            return stopped(self.run, pending, decode_wait(end), how="cooperative")
        if end["end"] == "snoozed":
            return postponed(self.run, pending, snooze_micros(self.run, end["seconds"]), "cooperative", end["gate"])
        if end["end"] == "stopped" and (self.run._stop_reasons or end["kind"] == "JobCancelled"):
            return self._stopped(pending, end["how"], end["line"], end["failure"])
        return failed(self.run, pending, end["line"], end["failure"], delay=end["delay"], name=end.get("name", ""))

    def _stopped(self, pending: PendingReport, how: str, line: str, failure: str) -> RunOutcome:
        reason = self.run._stop_reasons[0] if self.run._stop_reasons else JobCancelled(line)
        delay = self.retry_delay(reason) if isinstance(reason, JobTimedOut) else None
        return stopped(self.run, pending, reason, how=how, delay=delay, known=(line, failure))

    def _on_crash(self, child: ChildProcess, death: ChildExit, pending: PendingReport) -> RunOutcome:
        """Return the outcome of a child that died, by a stop or by a crash."""
        if child.was_killed or child.was_signalled:
            line = single_line(self.run._stop_reasons[0]) if self.run._stop_reasons else str(death)
            how = "killed" if child.was_killed else "terminated"
            return self._stopped(pending, how, line, self._crash_report(FailureKind.TIMEOUT, line, death, child.pid))
        text = str(death)
        crashes = self.job.crashes + 1
        log.warning("job %s (%s): %s", self.job.job_id, self.job.job_type, text)
        last = int(self.record.get("max_crashes") or CRASHES) - 1
        loop = crash_loop_line(crashes, text)
        return crashed(
            self.run,
            pending,
            loop if crashes > last else text,
            self._crash_report(FailureKind.KILLED, text, death, child.pid),
            self._crash_report(FailureKind.CRASH_LOOP, loop, death, child.pid),
            last,
            death.signal or f"exit code {death.code}",
        )

    def _crash_report(self, kind: FailureKind, text: str, death: ChildExit, pid: int) -> str:
        host, _ = host_and_pid()
        return crash_report(
            kind,
            text,
            host=host,
            pid=pid,
            exit_signal=death.signal,
            exit_code=death.code,
            peak_memory=death.peak_memory,
            traceback=masked(death.traceback, self.run._secret_values) or None,
            versions=versions(),
            **run_facts(self.run),
        )
