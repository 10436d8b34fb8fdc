"""Each rule fails when it has to: known bugs are found, and so are faults of the store that break the other rules."""

from __future__ import annotations

import json

import pytest

from tests.simulation import child_controls, controls, queue_controls
from tests.simulation.known_bugs import BUGS
from tests.simulation.mutations import FOUND as MUTANTS_FOUND
from tests.simulation.rules import RULES
from tests.simulation.shrinking import Shrinker
from tests.simulation.simulation import Outcome, run_seed

FOUND = {
    "waiting suspect": 174,
    "shared suspect": 16,
    "late start": 18,
    "late thread": 27137,
    "cancelled suspect": 174,
    "frozen sweep": 1,
    "key by time": 4,
    "starved sweep": 28,
    "late claim": 127,
    "second outage": 87,
    "outage within hold": 37,
    "renewal before hold": 37,
    "counted release": 277,
    "slow begin": 1,
    "early recovery": 1,
    "silent absence": 22,
    "short tombstones": 7,
    "used message": 93,
    "locked key": 288,
    "repeated reason": 15,
    "no keys": 6,
    "unwritten release": 2,
    "late stop": 12,
    "left claim": 9247,
    "pause as cancel": 34203,
    "four operation ids": 35,
    "no operation ids": 8,
    "no cancels": 3,
    "no stops": 12,
    "lost record": 1,
    "crashes without end": 11,
    "lost checkpoint": 1,
    "first checkpoint": 1,
    "early completion": 1,
    "wrong counts": 1,
    "short list": 1,
    "no draining": 2,
    "equal fences": 1,
    "kept lease": 1,
    "no limits": 14,
    "no partitions": 2,
    "early start": 1,
    "no maximum": 1,
    "no reports": 8,
    "no tokens": 1,
    "cancel of ended job": 1,
    "skipped versions": 1,
    "early release": 9,
    "early suspension": 1,
    "charged suspension": 1,
    "lost values": 1,
    "no parent token": 12,
    "new child ids": 28,
    "starting orphans": 12,
    "cancelled children": 28,
    "second tick": 18,
    "no ticks": 11,
    "no tombstones": 17,
    "no log lines": 2,
    "no last log lines": 4,
    "repeated log lines": 2,
    "one slot more": 4,
    "one job more": 3,
    "ignored early stop": 10,
    "foreign SIGTERM": 20,
    "idle child": 80,
    "importing orphan": 60,
    "lost handler": 10,
    "late child": 5030,
    "unrepeated SIGTERM": 20,
    "lost last message": 130,
    "unseen death": 20,
    "no kill": 10,
}
"""The seed (pct) that found each. A seed means another run after most changes of the source, so the next ones are tried too.
When none of them does, look for one with ``python -m tests.simulation 500 --first 1 --bug NAME``."""
SEEDS_TRIED = 60

RULES_WITHOUT_BUG = frozenset(("jobs-start-at-once",))
"""Rules that no bug and no mutant recorded so far breaks."""


def found(name: str) -> Outcome:
    """Return the first run from the recorded seed on that breaks a rule of a bug."""
    for seed in range(FOUND[name], FOUND[name] + SEEDS_TRIED):
        outcome = run_seed(seed, bug=name)
        if outcome.violation is not None and outcome.violation[0] in BUGS[name].rules:
            return outcome
    raise AssertionError(f"{name}: none of {SEEDS_TRIED} seeds breaks one of {BUGS[name].rules}")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if FOUND[name] > 4 else name for name in FOUND]
)
def test_bug_is_found(name: str) -> None:
    assert found(name).violation


def test_each_bug_has_its_seed() -> None:
    assert set(FOUND) == set(BUGS)
    assert controls.__name__
    assert child_controls.__name__
    assert queue_controls.__name__  # importing them adds their faults to BUGS


def test_each_rule_is_broken_by_a_bug_or_mutant() -> None:
    broken = {rule for name in FOUND for rule in BUGS[name].rules}
    broken |= {rule for _, rule in json.loads(MUTANTS_FOUND.read_text()).values()}
    assert set(RULES) - broken <= RULES_WITHOUT_BUG


def test_violation_shrinks_to_few_deviations() -> None:
    failed = found("early start")
    deviations = Shrinker(failed, policy="pct", bug="early start").shrink()
    assert len(deviations) < 10
    again = run_seed(failed.seed, replay=deviations, bug="early start", keeps_trace=True)
    assert again.violation is not None
    assert again.violation[0] == "not-before-holds"
    assert again.trace
    assert "VIOLATION not-before-holds" in again.trace[-1]
