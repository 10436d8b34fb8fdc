"""The differential test of a store.

CONFORMANCE_DEPTH=deep generates many more histories; CONFORMANCE_DEPTH=shrink spends minutes on shortening a failing one.
Histories are generated in rounds of ten, each with its own seed, because then Hypothesis begins to vary old ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from milepost.testing.conformance.differential import DifferentialMachine
from milepost.testing.conformance.harness import API_KINDS, Factory, Scenarios
from milepost.testing.fakes import FrozenClock

DEPTH = os.environ.get("CONFORMANCE_DEPTH", "quick")
DEEP = DEPTH == "deep"
ROUND = 10
STEPS = 80 if DEEP else 40


def hold_beside_memory(
    factory: Factory,
    clock: FrozenClock | None,
    *,
    blocking: bool,
    seeds: Iterable[int],
    steps: int = STEPS,
    shrink: bool = True,
) -> None:
    """Run the same histories on a store and the memory store, one round per seed. AssertionError if they differ."""
    for number in seeds:
        machine = seed(number)(
            type(
                "Histories",
                (DifferentialMachine,),
                {"factory": staticmethod(factory), "clock": clock, "blocking": blocking},
            )
        )
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=ROUND,
                    stateful_step_count=steps,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                    phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
                    database=None,
                    report_multiple_bugs=False,
                ),
            )
        except BaseException as error:
            error.add_note(f"seed {number}" + ("" if shrink else "; CONFORMANCE_DEPTH=shrink shortens the history"))
            raise


class Differential(Scenarios):
    """The store agrees with the memory store on generated histories, with both APIs."""

    @pytest.mark.parametrize("api", API_KINDS)
    def test_store_agrees_with_memory_store(self, api: str, request: pytest.FixtureRequest) -> None:
        first = int.from_bytes(os.urandom(4), "big") if DEEP else 1
        rounds = 60 if DEEP else 4 if api == "blocking" else 2
        hold_beside_memory(
            request.getfixturevalue(api),
            request.getfixturevalue("clock"),
            blocking=api == "blocking",
            seeds=range(first, first + rounds),
            shrink=DEPTH != "quick",
        )
