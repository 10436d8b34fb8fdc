"""Transitions without one of their guards: an exploration must find a change that breaks a rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from milepost.core.transitions.change import Change, TransitionType
from tests.explorer.actors import Budgets
from tests.explorer.exploration import Explorer, Violation

EVERYTHING = Budgets(crashes=1, cancels=1, retries=1, deletes=1)
SEARCHES = (
    (Budgets(), False),
    (Budgets(cancels=1, retries=1), False),
    (Budgets(crashes=1, cancels=1, deletes=1), False),
    (Budgets(cancels=1), True),
)
"""The budgets of one search after another, and whether the job has an earliest and a latest start."""
MOST = 4_000
"""The states that each search visits."""


@dataclass(frozen=True)
class Mutant:
    """A transition that lacks one guard of one branch."""

    transition: TransitionType
    branch: int
    guard: int
    name: str

    def alter(self, change: Change) -> Change:
        """Return a change without the guard, if it is of this transition."""
        return change._replace(transition=self._careless) if change.transition is self.transition else change

    @property
    def _careless(self) -> TransitionType:
        branches = list(self.transition.branches)
        guards = branches[self.branch].guards
        branches[self.branch] = replace(branches[self.branch], guards=guards[: self.guard] + guards[self.guard + 1 :])
        return replace(self.transition, branches=tuple(branches))

    def search(self, most: int = MOST) -> Violation | None:
        """Return a violation of a rule with a shortest path, or None."""
        for budgets, timed in SEARCHES:
            found = Explorer(budgets, alter=self.alter, timed=timed).run(first_only=True, most=most)
            if found.violations:
                return found.violations[0]
        return None


def transitions_used() -> dict[TransitionType, None]:
    """Return the transitions that the actors of the explorer send, in the order in which they are met."""
    used: dict[TransitionType, None] = {}

    def note(change: Change) -> Change:
        used.setdefault(change.transition)
        return change

    Explorer(EVERYTHING, attempts=1, alter=note).run(most=4_000)
    return used


def mutants() -> Iterator[Mutant]:
    """Yield one mutant for each guard of these transitions."""
    names: dict[str, int] = {}
    for transition in transitions_used():
        number = names[transition.name] = names.get(transition.name, 0) + 1
        shown = transition.name if number == 1 else f"{transition.name} ({number})"
        for place, branch in enumerate(transition.branches):
            for guard, words in enumerate(branch.guards):
                text = " ".join(str(getattr(word, "text", getattr(word, "name", word))) for word in words)
                yield Mutant(transition, place, guard, f"{shown} ({branch.event or 'no event'}), without {text}")
