"""The rules of child processes: they end with their worker, and their ends are recorded as what they were."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.simulation.world import Process

if TYPE_CHECKING:
    from tests.simulation.children import VirtualChild
    from tests.simulation.rules import Rules

CHILD_RULES = {
    "child-crash-is-recorded": "P2: the crash of a child process is charged to its job",
    "child-outcome-is-recorded": "P2: the outcome that a child has reported is recorded, whenever it ended after that",
    "crash-has-its-child": "P2: a crash is charged to the job whose code a child ran when it died, once, and to no other job",
    "deaf-child-is-killed": "P4: a child that ignores its stop is killed after the grace period",
    "orphan-ends": "P3: a child ends soon after its worker",
    "only-worker-terminates": "P4: a SIGTERM that its worker has not sent ends no code in a child while the worker lives",
    "signal-ends-wait": "P4: a SIGTERM of the worker interrupts code that waits, also if it came just before the wait",
    "signal-follows-notice": "P4: the code in a child is notified of its stop before a signal interrupts it",
}
RECORDED_WITHIN = 9.0
"""Seconds within which a healthy worker records what its child has reported, or its death. A request may take most of it."""
KILLED_WITHIN = 0.3
"""Seconds after the grace period."""
ORPHAN_SECONDS = 0.5
"""Seconds within which a child ends after its parent: it looks ten times a second."""
NOTICED_WITHIN = 0.5
"""Seconds within which a SIGTERM of the worker is noticed: its announcement takes 0.04, and it is repeated each 0.1."""


class ChildRules:
    """Checks the child processes of one run of the simulation."""

    def __init__(self, rules: Rules) -> None:
        self._rules, self._fail, self._world, self._server = rules, rules.fail, rules.world, rules.server
        self._child_of: dict[str, VirtualChild] = {}
        """The child that each token was given to last."""
        self._jobs: dict[VirtualChild, list[str]] = {}
        """The tokens that each child was given."""
        self._stopped: set[str] = set()
        """The tokens whose stop was sent."""
        self._received: set[str] = set()
        """The tokens whose job a child has received."""
        self._ended: set[str] = set()
        """The tokens whose outcome was sent."""
        self._killed: set[VirtualChild] = set()
        """The children that their parents have killed or terminated."""
        self._charged: set[VirtualChild] = set()

    def _expect_record(self, rule: str, child: VirtualChild, token: str, text: str) -> None:
        """Expect that the run with a token has ended in its record when its worker has been healthy for a while."""
        records = self._server.memory.records.items()
        job_id = next((job_id for job_id, record in records if record.get("token") == token), "")

        def check() -> None:
            record = self._server.memory.records.get(job_id, {})
            if record.get("token") != token or not child.parent.is_alive:
                return
            if self._rules.is_undisturbed(child.parent, self._world.now - RECORDED_WITHIN * 1e6):
                self._fail(rule, f"{text}, and the run has not ended {RECORDED_WITHIN:g} s later")
            else:
                self._world.post(1_000_000, check)

        self._world.post(RECORDED_WITHIN * 1e6, check)

    # --- messages ---

    def on_message_to(self, child: VirtualChild, data: bytes) -> bool:
        """Note a message of its parent; return whether it has a job for a child that has run others."""
        body = data[4:]
        if body.startswith(b'{"do":"run"'):
            token = json.loads(body)["token"]
            self._child_of[token] = child
            self._jobs.setdefault(child, []).append(token)
            return len(self._jobs[child]) > 1
        if body.startswith(b'{"do":"stop"'):
            token = json.loads(body)["token"]
            if token not in self._stopped:
                self._stopped.add(token)
                self._expect_kill(child, token)
        return False

    def is_outcome(self, data: bytes) -> bool:
        """Return whether a message of a child has the outcome of its run."""
        return data[4:].startswith(b'{"is":"ended"')

    def on_message_from(self, child: VirtualChild, data: bytes) -> None:
        """Note that a child has received a job, or has sent an outcome."""
        if data[4:].startswith(b'{"is":"ready"'):
            self._received.add(self._jobs[child][-1])
        elif self.is_outcome(data):
            token = self._jobs[child][-1]
            self._ended.add(token)
            self._expect_record("child-outcome-is-recorded", child, token, "a child has reported an outcome")

    def _expect_kill(self, child: VirtualChild, token: str) -> None:
        seconds, since = self._rules.settings.grace + KILLED_WITHIN, self._world.now

        def check() -> None:
            is_running = child.is_alive and token not in self._ended and self._jobs[child][-1] == token
            if is_running and self._is_well_since(child.parent, since):
                self._fail("deaf-child-is-killed", f"{child.name} runs {seconds:g} s after its stop")

        self._world.post(seconds * 1e6, check)

    def _is_well_since(self, process: Process, since: int) -> bool:
        return process.is_alive and process.paused_until < since

    # --- signals and exits ---

    def on_signal(self, child: VirtualChild, number: int) -> None:
        """Check a signal of its parent."""
        self._killed.add(child)
        run = self._rules.run_in(child)
        is_well = self._is_well_since(child.parent, self._world.now) and child.stands_still_until < self._world.now
        if number == signal.SIGTERM and run is not None and not run._stop_reasons and is_well:
            self._fail("signal-follows-notice", f"{child.name} gets SIGTERM, and its code knows of no stop")
        if number == signal.SIGTERM and is_well:
            self._expect_notice(child)

    def _expect_notice(self, child: VirtualChild) -> None:
        """Expect that a SIGTERM does not wait until a wait of the code is over."""
        token, since = self._jobs[child][-1], self._world.now

        def check() -> None:
            is_running = child.is_alive and token not in self._ended and child.stands_still_until < since
            if is_running and child.signals.has_unnoticed and child.signals.handled_at < since:
                self._fail("signal-ends-wait", f"{child.name} waits on, {NOTICED_WITHIN:g} s after its SIGTERM")

        self._world.post(NOTICED_WITHIN * 1e6, check)

    def on_exit(self, child: VirtualChild) -> None:
        """Expect that the crash of a child is recorded. Called in its last moment."""
        self._rules.on_crash(child)
        tokens = self._jobs.get(child, [])
        is_foreign = child.status == -signal.SIGTERM and child not in self._killed
        if is_foreign and child.parent.is_alive and (not tokens or tokens[-1] not in self._ended):
            self._fail("only-worker-terminates", f"{child.name} has ended by a SIGTERM that its worker has not sent")
        if tokens and tokens[-1] not in self._ended | self._stopped and child.parent.is_alive:
            self._expect_record("child-crash-is-recorded", child, tokens[-1], f"{child.name} has died")

    def on_orphan(self, child: VirtualChild) -> None:
        """Expect the end of a child whose parent has just ended."""
        last = max(child.stands_still_until, child.ready_at, self._world.now) + int(ORPHAN_SECONDS * 1e6)

        def check() -> None:
            if child.is_alive and child.stands_still_until < self._world.now - ORPHAN_SECONDS * 1e6:
                self._fail("orphan-ends", f"{child.name} runs {ORPHAN_SECONDS:g} s after the end of its parent")

        self._world.post(last - self._world.now, check)

    # --- writes ---

    def on_write(self, change: Any, old: Mapping[str, str]) -> None:
        """Check an accepted write."""
        if change.transition.name != "crash":
            return
        token = old["token"]
        child = self._child_of.get(token)
        if child is None or child.is_alive:
            self._fail("crash-has-its-child", "a crash was recorded, and no child has died")
        elif token in self._ended:
            self._fail("child-outcome-is-recorded", f"{child.name} had reported an outcome, and a crash is recorded")
        elif child in self._charged:
            self._fail("crash-has-its-child", f"the death of {child.name} was charged twice")
        elif token not in self._received and len(self._jobs[child]) > 1:
            self._fail(
                "crash-has-its-child", f"a job is charged that {child.name} had not received, after earlier ones"
            )
        elif child in self._killed:
            self._fail("crash-has-its-child", f"{child.name} was killed by its worker")
        else:
            self._charged.add(child)
