"""Seeds run without a violation, and a seed repeats its run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.simulation import Outcome, run_seed

FIRST_SEEDS = range(1, 61)
MORE_SEEDS = range(61, 361)


def test_seed_repeats_its_run() -> None:
    first, again = run_seed(3), run_seed(3)
    assert (first.digest, first.steps, first.deviations) == (again.digest, again.steps, again.deviations)
    assert run_seed(4).digest != first.digest


def test_deviations_repeat_run_without_chance() -> None:
    first = run_seed(5)
    assert run_seed(5, replay=first.deviations).digest == first.digest


def test_run_without_deviations_is_quiet() -> None:
    outcome = run_seed(1, replay={})
    assert (outcome.violation, outcome.writes) == (None, 0)


def test_digest_is_independent_of_hash_seed() -> None:
    program = "from tests.simulation.simulation import run_seed; print(*(run_seed(seed).digest for seed in (6, 7)))"
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("policy", ["pct", "random"])
def test_rules_hold_in_first_seeds(policy: str) -> None:
    outcomes = [run_seed(seed, policy=policy) for seed in FIRST_SEEDS]
    assert [describe(outcome) for outcome in outcomes if outcome.violation] == []
    assert sum(outcome.writes for outcome in outcomes) > 100 * len(outcomes), "much happens in a run"


@pytest.mark.slow
def test_rules_hold_in_more_seeds() -> None:
    assert [describe(outcome) for seed in MORE_SEEDS if (outcome := run_seed(seed)).violation] == []


def describe(outcome: Outcome) -> str:
    """Return the seed and the violation of a run."""
    return f"seed {outcome.seed}: {outcome.violation}"
