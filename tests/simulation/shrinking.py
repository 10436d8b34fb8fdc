"""Makes a failing run shorter: fewer deviations that still break the same rule, for a trace that people can read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from tests.simulation.simulation import Outcome, run_seed

Deviations = Mapping[str, int]


class Shrinker:
    """Shrinks the deviations of a run within a number of seconds. `runs` counts the attempts."""

    def __init__(self, failed: Outcome, *, policy: str, bug: str | None = None, seconds: float = 60.0) -> None:
        assert failed.violation is not None, "only a violation can be shrunk"
        self.runs = 0
        self._rule = failed.violation[0]
        self._seed, self._policy, self._bug = failed.seed, policy, bug
        self._until = time.monotonic() + seconds
        self._best = dict(failed.deviations)

    def shrink(self) -> dict[str, int]:
        """Return the fewest deviations found: whole kinds and turns are left out first, then single ones."""
        self._drop_groups(_kind, len(self._groups(_kind)))
        parts = 2
        while self._has_time and parts < 2 * len(self._groups(_turn)):
            self._drop_groups(_turn, parts)
            parts *= 2
        while self._has_time and self._drop_groups(str, len(self._best)):
            pass
        return self._best

    @property
    def _has_time(self) -> bool:
        return time.monotonic() < self._until

    def _groups(self, group_of: Callable[[str], str]) -> list[str]:
        return list(dict.fromkeys(map(group_of, self._best)))

    def _drop_groups(self, group_of: Callable[[str], str], parts: int) -> bool:
        """Leave out the deviations of some groups, one part of the groups after the other; return whether any could."""
        groups, dropped = self._groups(group_of), False
        size = max(1, -(-len(groups) // max(1, parts)))
        for start in reversed(range(0, len(groups), size)):
            part = set(groups[start : start + size])
            dropped |= self._try({key: value for key, value in self._best.items() if group_of(key) not in part})
        return dropped

    def _try(self, deviations: Deviations) -> bool:
        """Keep fewer deviations if they still break the rule; those after the violation drop out by themselves."""
        if not self._has_time or len(deviations) == len(self._best):
            return False
        self.runs += 1
        outcome = run_seed(self._seed, policy=self._policy, replay=deviations, bug=self._bug)
        if outcome.violation is None or outcome.violation[0] != self._rule:
            return False
        self._best = dict(outcome.deviations)
        return True


def _kind(key: str) -> str:
    """Return what a choice is about, such as the losses of one thread."""
    return key.partition("#")[0].partition("@")[0]


def _turn(key: str) -> str:
    """Return the turn of a caller or of the faults, whose choices belong together; else the choice itself."""
    return key.partition(":")[2].partition("#")[0] if "@" in key else key
