"""The machine of `beside` as a test of a store: how many histories, how long. CONFORMANCE_DEPTH=deep makes many more.

Histories come in rounds of ten, each with a seed of its own, because after ten Hypothesis begins to vary old ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from milepost.testing.clock import FrozenClock
from milepost.testing.conformance.beside import Beside
from milepost.testing.conformance.harness import FACES, Factory, Scenarios

DEEP = os.environ.get("CONFORMANCE_DEPTH", "quick") == "deep"
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
    """Give a store and the memory store the same histories, a round for each seed. AssertionError where they differ."""
    for number in seeds:
        machine = seed(number)(
            type("Histories", (Beside,), {"factory": staticmethod(factory), "clock": clock, "blocking": blocking})
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
            error.add_note(f"seed {number}")
            raise


class Agreeing(Scenarios):
    """The store and the memory store, given the same histories, agree; on both faces."""

    @pytest.mark.parametrize("face", FACES)
    def test_it_answers_as_the_memory_store_does(self, face: str, request: pytest.FixtureRequest) -> None:
        first = int.from_bytes(os.urandom(4), "big") if DEEP else 1
        rounds = 60 if DEEP else 4 if face == "blocking" else 2
        hold_beside_memory(
            request.getfixturevalue(face),
            request.getfixturevalue("clock"),
            blocking=face == "blocking",
            seeds=range(first, first + rounds),
        )
