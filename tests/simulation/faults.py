"""The faults of a run: what the network does to each message, and what happens to processes and to the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.network import DELAYS, Conditions
from tests.simulation.world import Process

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

FAULTS = ("kill", "pause", "cut", "restart", "outage", "clock_ahead", "clock_glitch", "failover", "drain", "backlog")
VICTIMS = ("worker-0", "worker-1", "server", "tracker-0", "tracker-1", "consumer-0", "consumer-1")
SECONDS = (1.0, 4.0, 10.0)
CUT_SECONDS = (2.5, 9.0)
"""How long a process may be cut off whose request was applied, but not answered."""
RETURN_SECONDS = (0.5, 2.0, 8.0)
"""Seconds until a killed process starts again."""
GLITCH_SECONDS = 600.0
SHARES = (0.95, 0.9, 0.75, 0.6, 0.3, 0.2)
"""How long outages take that come one soon after another, in leases."""

LOSS, CRASH, PAUSE = 0.006, 0.0003, 0.0004
RANDOM_DELAY = 0.03
SLOW_DELAY = 0.9
CHANGE_OF_SPEED = 0.1


class Faults(Conditions):
    """Faults by choice, until `stop`.

    By the policy "random" each message may be late. By "pct" (after probabilistic concurrency testing) some threads are
    slow for a while, which finds rare orders of events sooner.
    """

    def __init__(self, simulation: Simulation, policy: str) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self._choose = simulation.world.choose
        self._is_pct = policy == "pct"
        self._slow: set[str] = set()
        self.late_once: set[str] = set()
        """The threads whose next request arrives late."""
        self._turn = 0
        self.is_active = True
        self._chance = 0.2
        all_kinds = kinds = FAULTS if simulation.broker is None else (*FAULTS, "broker_outage")
        if self._choose("swarm", 2, 0.7):  # few kinds of faults, and often
            kinds = tuple(kind for kind in all_kinds if self._choose(f"swarm:{kind}", 3) == 1) or all_kinds
            self._chance = (0.2, 0.4, 0.1)[self._choose("swarm:chance", 3)]
        self._kinds = kinds
        self._world.post(1_000_000, self._tick)
        if simulation.has_rare_orders:
            self._world.post(2_000_000, self._stop_again)

    def stop(self) -> None:
        """Let the network and all processes be well from now on."""
        self.is_active = False

    # --- messages ---

    def delay(self, direction: str, thread: str) -> float:
        if not self.is_active:
            return DELAYS[0]
        if direction == "there" and thread in self.late_once:
            self.late_once.discard(thread)
            self._disturb(thread)
            return DELAYS[-1]
        chance = (SLOW_DELAY if thread in self._slow else 0.0) if self._is_pct else RANDOM_DELAY
        choice = self._choose(f"{direction}:{thread}", len(DELAYS), chance)
        if choice > 2:
            self._disturb(thread)
        return DELAYS[choice]

    def loss(self, process: Process, thread: str) -> str:
        if not self.is_active:
            return ""
        lost = self._choose(f"lost:{thread}", 4, LOSS)
        if lost:
            self._disturb(thread)
        if lost == 3:
            seconds = CUT_SECONDS[self._choose(f"cut:{thread}", len(CUT_SECONDS))]
            self._world.post(1000, lambda: self._simulation.cut(process, seconds))
        return ("", "reply", "request", "reply")[lost]

    def _disturb(self, thread: str) -> None:
        """Expect no renewals in time of a process whose heartbeat has a bad network."""
        process = self._world.process()
        process.fault_at = max(process.fault_at, self._world.now)
        if "heartbeat" in thread:
            process.disturbed_at = max(process.disturbed_at, self._world.now + 4_000_000)

    # --- processes ---

    def request_point(self, process: Process) -> None:
        if not self.is_active or process.name not in VICTIMS:
            return
        if self._choose(f"crash:{process.name}", 2, CRASH):
            self._simulation.kill(process)
        seconds = (0.0, 0.8, 4.0, 9.0)[self._choose(f"pause:{process.name}", 4, PAUSE)]
        if seconds:
            self._world.pause(process, seconds)
            self._world.wait(0)

    def _tick(self) -> None:
        if not self.is_active:
            return
        world, simulation, choose = self._world, self._simulation, self._choose
        self._turn += 1
        turn = f"faults@{self._turn}"
        world.post(1_000_000, self._tick)
        if self._is_pct and choose(f"slow:{turn}", 2, CHANGE_OF_SPEED):
            process = world.processes[choose(f"slow process:{turn}", len(world.processes))]
            self._slow ^= {f"{process.name}/{thread}" for thread in ("main", "milepost-heartbeat")}
        kind = choose(f"fault:{turn}", len(self._kinds) + 1, self._chance)
        if not kind:
            return
        victims = [name for name in VICTIMS if name in simulation.processes]
        victim = victims[choose(f"victim:{turn}", len(victims))]
        seconds = SECONDS[choose(f"seconds:{turn}", len(SECONDS))]
        happen = lambda: self._happen(self._kinds[kind - 1], simulation.processes[victim], seconds)  # noqa: E731
        world.post(choose(f"moment:{turn}", 1000) * 1000, happen)

    def _happen(self, fault: str, victim: Process, seconds: float) -> None:
        server = self._simulation.server
        match fault:
            case "kill":
                self._simulation.kill(victim)
            case "pause":
                self._world.pause(victim, seconds)
            case "cut":
                self._simulation.cut(victim, seconds)
            case "restart":
                server.stop(min(2.0, seconds))
            case "outage":
                server.stop(seconds)
            case "clock_ahead":
                server.step_clock(seconds)
            case "clock_glitch":
                server.step_clock(GLITCH_SECONDS)
                self._world.post(seconds * 1e6, self._end_glitch)
            case "failover":
                server.step_clock(-seconds)
                server.fail_over(0.5)
            case "drain":
                self._simulation.drain(victim)
            case "broker_outage":
                if self._simulation.broker is not None:
                    self._simulation.broker.stop(seconds)
            case "backlog":
                self._simulation.add_undispatched(6)

    def _stop_again(self) -> None:
        """Let the server be unavailable again and again for less than a lease, some times soon after the last time."""
        if not self.is_active:
            return
        lease, choose = self._simulation.settings.lease, self._choose
        seconds = lease * SHARES[choose("time of outages", len(SHARES))] + choose("more time of outages", 100) / 1000
        pause = lease * (3.0, *SHARES)[choose("pause of outages", 1 + len(SHARES))]
        self._simulation.server.stop(seconds)
        self._world.post((seconds + pause) * 1e6, self._stop_again)

    def _end_glitch(self) -> None:
        self._simulation.server.step_clock(-GLITCH_SECONDS)
        self._simulation.server.fail_over(0.2)
