"""The machine of `beside` as a test of a store: how many histories, how long. CONFORMANCE_DEPTH=deep makes many more."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from milepost.testing.conformance.beside import Beside
from milepost.testing.conformance.harness import FACES, Scenarios

DEEP = os.environ.get("CONFORMANCE_DEPTH", "quick") == "deep"


class Agreeing(Scenarios):
    """The store and the memory store, given the same histories, agree; on both faces."""

    @pytest.mark.parametrize("face", FACES)
    def test_it_answers_as_the_memory_store_does(self, face: str, request: pytest.FixtureRequest) -> None:
        machine = type(
            "Beside_" + face,
            (Beside,),
            {
                "factory": staticmethod(request.getfixturevalue(face)),
                "clock": request.getfixturevalue("clock"),
                "blocking": face == "blocking",
            },
        )
        quick = settings(
            max_examples=500 if DEEP else 40 if face == "blocking" else 15,
            stateful_step_count=80 if DEEP else 40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
            derandomize=not DEEP,
            database=None,
        )
        run_state_machine_as_test(machine, settings=quick)
