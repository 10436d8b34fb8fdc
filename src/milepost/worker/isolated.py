"""One claimed job in a child process. Owns the stand-in for its Run, the steps of its stop (a word, SIGTERM, SIGKILL), and
what its end or its death means for the job; the process itself is of `children`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from milepost.core.defaults import CRASHES
from milepost.core.encoding import from_json, one_line
from milepost.core.errors import JobCancelled, JobReleased, JobTimedOut, LeaseLost, Retry, Stop, StoreError
from milepost.core.job import FailureKind, Job
from milepost.core.lifecycle import plan_checkpoint, plan_fail
from milepost.stores.ids import new_op
from milepost.stores.protocol import Write
from milepost.tracking.endings import Ended, Ending, completed, crashed, failed, stopped
from milepost.tracking.failures import dossier, masked, of_run
from milepost.tracking.lines import Lines
from milepost.tracking.process import versions
from milepost.tracking.pulse import Unsent, why_stopped
from milepost.tracking.run import LOG_LINES_KEPT
from milepost.worker.children import ChildProcess, Death
from milepost.worker.execution import Execution, log, masks_of
from milepost.worker.published import this_host
from milepost.worker.wire import Message, stop_words

WORD_SECONDS = 0.5
"""How long a child that was told to stop has before its SIGTERM: enough for a tick of a tracked loop."""
WORD_SHARE = 0.25
NOT_FOR_THE_CHILD = frozenset({"attempts", "attempts_before", "failure", "result", "ops", "born", "late_result"})


class RemoteRun:
    """What stands for the run of a child process in its worker: what the child has said last."""

    planned = False

    def __init__(self, job: Job, token: str, masks: tuple[str, ...]) -> None:
        self.job_id = job.job_id
        self.job_type = job.job_type
        self.resumed = bool(job.record.get("cursors") or job.record.get("checkpoint"))
        self.token = token
        self.attempt = job.attempt
        self.masks = masks
        self.redact: Callable[[str], str] | None = None  # the child has redacted what it says
        self.stage_name: str | None = None
        self.last_item: str | None = None
        self.checkpoint_at = job.checkpoint_at.isoformat() if job.checkpoint_at is not None else None
        self.recent_log: deque[str] = deque(maxlen=LOG_LINES_KEPT)
        self.stops: list[Stop] = []
        self.on_stop: Callable[[Stop], None] | None = None
        self.foreseen: Mapping[str, str] = {}
        self._report: dict[str, str] = {}
        self._lines = Lines()

    def report(self) -> dict[str, str]:
        """The fields that the run says of itself now."""
        return self._report

    def take_lines(self) -> str | None:
        """Its log lines since the last call, as JSON."""
        return self._lines.take()

    def stop(self, reason: Stop) -> None:
        """Tell its code to stop; from any thread."""
        if not self.stops:
            self.stops.append(reason)
            if self.on_stop is not None:
                self.on_stop(reason)

    def hear(self, message: Message) -> None:
        """Take in what the child says of its run."""
        self._report = message.get("report", self._report)
        if message.get("lines"):
            self._lines.add(from_json(message["lines"])["lines"])
        self.stage_name = message.get("stage", self.stage_name)
        self.last_item = message.get("item", self.last_item)
        self.checkpoint_at = message.get("checkpoint_at") or self.checkpoint_at
        if "log" in message:
            self.recent_log = deque(message["log"], LOG_LINES_KEPT)


class InProcess(Execution):
    """A handler in a child process."""

    task: asyncio.Task[None]
    child: ChildProcess | None = None

    def _make_run(self) -> Ended:
        record = self.record
        masks = masks_of(record.get("params", "{}"), record["secrets"]) if "secrets" in record else ()
        return RemoteRun(self.job, self.token, masks)

    @property
    def remote(self) -> RemoteRun:
        """The run."""
        assert isinstance(self.run, RemoteRun), "made by _make_run"
        return self.run

    def _start(self, params: dict[str, Any]) -> None:
        self.remote.on_stop = lambda reason: self._in_loop(self._tell, reason)
        self.task = self.host.loop.create_task(self._main())

    def stop(self, reason: Stop) -> None:
        self.run.stop(reason)

    def insist(self) -> None:
        if self.child is not None:
            self.child.kill()

    def _in_loop(self, function: Callable[[Stop], None], reason: Stop) -> None:
        try:
            self.host.loop.call_soon_threadsafe(function, reason)
        except RuntimeError:
            log.debug("job %s: the worker has ended", self.job.job_id)

    def _tell(self, reason: Stop) -> None:
        """The steps of a stop: a word, SIGTERM to the group, SIGKILL to the group after the grace time."""
        child, grace = self.child, self.host.settings.grace
        if child is None:
            return
        child.send({"do": "stop", "token": self.token, **stop_words(reason)})
        self._timers.append(self.host.loop.call_later(min(WORD_SECONDS, grace * WORD_SHARE), child.terminate))
        self._timers.append(self.host.loop.call_later(grace, child.kill))

    async def _main(self) -> None:
        try:
            suspect = self.record.get("suspect") == "1"
            child = self.host.children.take(fresh=suspect)
            await child.connect()
        except OSError as error:
            log.warning("job %s: no process can be started, it is given back: %s", self.job.job_id, error)
            reason = JobReleased(str(error))
            self.leave(lambda unsent: stopped(self.run, unsent, reason, how="never started"))
            return
        self.child = child
        child.send(self._order())
        if self.run.stops:
            self._tell(self.run.stops[0])
        end: Message | None = None
        while end is None and (message := await child.receive()) is not None:
            if message["is"] == "ready":
                continue
            if message.get("token", self.token) != self.token:
                # Code that an earlier job has left behind in this process.
                child.send({"do": "answer", "n": message["n"], "stop": stop_words(LeaseLost("the run has ended"))})
                continue
            self.remote.hear(message)
            if message["is"] == "checkpoint":
                child.send({"do": "answer", "n": message["n"], "stop": await self._checkpoint(message)})
            elif message["is"] == "ended":
                end = message
        if end is not None:
            self.child = None
            self.host.children.give_back(child, reuse=not child.was_signalled and not suspect)
            if child.was_signalled:
                await child.died  # what it has started may not have heard the signal; the SIGKILL is on its way
            self.leave(lambda unsent: self._end(end, unsent))
        else:
            death = await child.died  # which it has yet to, when its code has closed the socket
            self.child = None
            self.remote.hear(death.words)
            self.leave(lambda unsent: self._death(child, death, unsent))

    def _order(self) -> Message:
        record = {name: text for name, text in self.record.items() if name not in NOT_FOR_THE_CHILD}
        return {
            "do": "run",
            "handler": self.handler.reference,
            "job_id": self.job.job_id,
            "token": self.token,
            "record": record,
            "masks": self.run.masks,
            "capture": sorted(self.host.settings.captures),
            "redact": self.host.settings.redact,
            "log_level": logging.getLogger().level,
            "sys_path": [path for path in sys.path if isinstance(path, str)],  # others are passed over by imports too
        }

    async def _checkpoint(self, message: Message) -> Message | None:
        """Write a checkpoint of the child; why it is to stop, if it may not write any more."""
        plan = plan_checkpoint(new_op(), self.token, message["text"], message["report"])
        try:
            outcome = (await self.host.store.apply([Write(self.job.job_id, plan, answer=False)])).outcomes[0]
        except StoreError as error:
            log.warning("job %s: a checkpoint could not be written, the work goes on: %s", self.job.job_id, error)
            return None
        if outcome.accepted:
            return None
        reason = why_stopped(outcome.job, self.token, "stopping" if outcome.job is None else "lost")
        self.run.stop(reason)
        return stop_words(reason)

    def _end(self, end: Message, unsent: Unsent) -> Ending:
        """What the child said last."""
        if end["end"] == "returned":
            return completed(self.run, unsent, end["result"])
        if end["end"] == "stopped" and (self.run.stops or end["kind"] == "JobCancelled"):
            return self._stopped(unsent, end["how"], end["line"], end["failure"])
        delay = self.retry_delay(Retry(end.get("delay"))) if end.get("retryable", True) else None
        return failed(self.run, unsent, end["line"], end["failure"], delay=delay, name=end.get("name", ""))

    def _stopped(self, unsent: Unsent, how: str, line: str, failure: str) -> Ending:
        reason = self.run.stops[0] if self.run.stops else JobCancelled(line)
        if not isinstance(reason, JobTimedOut):
            return stopped(self.run, unsent, reason, how=how)
        delay = self.retry_delay(None)
        plan = plan_fail(new_op(), self.token, error=line, failure=failure, report=unsent.report, delay=delay)
        end = stopped(self.run, unsent, reason, how=how, delay=delay)
        return Ending([*end.writes[:-1], Write(self.job.job_id, plan, answer=False)], end.late)

    def _death(self, child: ChildProcess, death: Death, unsent: Unsent) -> Ending:
        """The child has died: as it was told, or by a crash of its own."""
        if child.was_killed or child.was_signalled:
            line = one_line(self.run.stops[0]) if self.run.stops else str(death)
            how = "killed" if child.was_killed else "terminated"
            return self._stopped(unsent, how, line, self._dossier(FailureKind.TIMEOUT, line, death, child.pid))
        text = str(death)
        crashes = self.job.crashes + 1
        log.warning("job %s (%s): %s", self.job.job_id, self.job.job_type, text)
        last = int(self.record.get("max_crashes") or CRASHES) - 1
        loop = f"crashed {crashes} times; the last time {text}"
        return crashed(
            self.run,
            unsent,
            text,
            self._dossier(FailureKind.KILLED, text, death, child.pid),
            self._dossier(FailureKind.CRASH_LOOP, loop, death, child.pid),
            last,
            death.signal or f"exit code {death.code}",
        )

    def _dossier(self, kind: FailureKind, text: str, death: Death, pid: int) -> str:
        host, _ = this_host()
        return dossier(
            kind,
            text,
            host=host,
            pid=pid,
            exit_signal=death.signal,
            exit_code=death.code,
            peak_memory=death.peak_memory,
            traceback=masked(death.traceback, self.run.masks) or None,
            versions=versions(),
            **of_run(self.run),
        )
