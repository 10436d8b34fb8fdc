"""Remove one guard, for a negative control: imported before the application, it accepts writes with any token.

The store then accepts the writes of a zombie, which the checker must detect.
"""

from __future__ import annotations

from dataclasses import replace

from milepost.core.transitions import run
from milepost.core.transitions.change import TransitionType


def without(transition: TransitionType, word: str) -> None:
    """Take a guard out of every branch of a transition."""
    branches = tuple(
        replace(branch, guards=tuple(guard for guard in branch.guards if guard[0] != word))
        for branch in transition.branches
    )
    object.__setattr__(transition, "branches", branches)


for form in (
    *run._REPORTS.values(),
    run._CHECKPOINT,
    run._COMPLETE,
    run._COMPLETE_WITHOUT_REPORT,
    run._COMPLETE_WITHOUT_RESULT,
):
    without(form.transition, "token")
