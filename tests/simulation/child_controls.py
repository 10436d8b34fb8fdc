"""Bugs of child processes, put back or made, to show that their rules find them."""

from __future__ import annotations

from typing import Any
from unittest import mock

from milepost.worker import child_main
from milepost.worker.child_main import Child
from milepost.worker.child_requests import ParentCheckpointWriter
from milepost.worker.process_pool import ChildProcess
from tests.simulation.known_bugs import Patches, bug


@bug(
    "ignored early stop",
    "a child ignores the stop of a run whose code it still imports, and SIGTERM ends the code",
    "signal-follows-notice",
)
def _ignored_early_stop() -> Patches:
    stop = Child._stop
    return [mock.patch.object(Child, "_stop", lambda self, message: self._run and stop(self, message))]


@bug(
    "foreign SIGTERM",
    "a child is ended by a SIGTERM that its worker has not sent",
    "only-worker-terminates",
)
def _foreign_sigterm() -> Patches:
    always = property(lambda self: True, lambda self, value: None)
    return [mock.patch.object(Child, "_is_terminated", always, create=True)]


@bug("idle child", "a job is charged with the death of an idle child that was to run it", "crash-has-its-child")
def _idle_child() -> Patches:
    always_new = property(lambda self: 0, lambda self, value: None)
    return [mock.patch.object(ChildProcess, "jobs", always_new, create=True)]


@bug("importing orphan", "a child whose worker ends while it imports the code of its job runs the job", "orphan-ends")
def _importing_orphan() -> Patches:
    end_with_parent = Child._end_with_parent

    def end_if_begun(self: Any) -> None:
        self._has_work = self._run is not None
        end_with_parent(self)

    return [mock.patch.object(Child, "_end_with_parent", end_if_begun)]


@bug(
    "unrepeated SIGTERM",
    "a SIGTERM that comes before its announcement, or just before a wait of the code, does not interrupt the code",
    "signal-ends-wait",
)
def _unrepeated_sigterm() -> Patches:
    return [mock.patch.object(Child, "_repeat_sigterm")]


@bug("late child", "a child that stood still with its worker begins after the lease has ended", "begins-within-lease")
def _late_child() -> Patches:
    return [mock.patch.object(ParentCheckpointWriter, "stop_if_expired")]


@bug(
    "lost last message",
    "what a child has sent is not read if its exit is noticed first",
    "child-outcome-is-recorded",
)
def _lost_last_message() -> Patches:
    receive = ChildProcess.receive

    async def receive_if_alive(self: Any) -> Any:
        message = await receive(self)
        return None if self.died.done() else message

    return [mock.patch.object(ChildProcess, "receive", receive_if_alive)]


@bug("unseen death", "a worker does not notice the death of its child", "child-crash-is-recorded")
def _unseen_death() -> Patches:
    return [mock.patch.object(ChildProcess, "_on_death")]


@bug("no kill", "a child that ignores its stop is not killed", "deaf-child-is-killed")
def _no_kill() -> Patches:
    return [mock.patch.object(ChildProcess, "kill")]


@bug("lost handler", "a child does not find the code of any job", "error-is-of-the-code")
def _lost_handler() -> Patches:
    return [mock.patch.object(child_main, "find_handler", return_value=None)]
