"""Mutants of milepost: those that a seed has found are found again. docs/simulation.md tells what they are."""

from __future__ import annotations

import json

import pytest

from tests.simulation.mutations import FOUND, broken_rule, mutant_named, noting, search
from tests.simulation.simulation import run_seed

SEEDS_TRIED = 5
RECORDED: dict[str, tuple[int, str]] = json.loads(FOUND.read_text())


def test_noting_of_reached_mutants_changes_nothing() -> None:
    met, reached = set[str](), set[str]()
    with noting(met, reached):
        digest = run_seed(3).digest
    assert digest == run_seed(3).digest
    assert "worker_state.WorkerState.next: len(self.running) >= self._slots as Lt" in reached
    assert any(name.startswith("complete: ") for name in met)


def test_mutant_ends_with_its_block() -> None:
    for name in (
        "sweeper.Sweeper._plan: due.kind == 'lease' as NotEq",
        "create: none to created, without unique pending running",
    ):
        assert any(broken_rule(mutant_named(name), seed) for seed in range(1, 11))
    assert run_seed(21).violation is None


@pytest.mark.slow
def test_recorded_seeds_find_their_mutants() -> None:
    """A seed means another run after most changes of the source, so the next ones are tried too, and a few may fail."""

    def is_found(name: str, first: int) -> bool:
        mutant = mutant_named(name)
        return any(broken_rule(mutant, seed) for seed in range(first, first + SEEDS_TRIED))

    lost = [name for name, (seed, _) in RECORDED.items() if not is_found(name, seed)]
    assert len(lost) <= len(RECORDED) // 5, lost


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_search_finds_as_many_mutants_as_recorded() -> None:
    assert len(search(range(1, 401), most=60)) >= 0.9 * len(RECORDED)
