"""Check whether concurrent calls on one job are linearizable: a Wing-Gong-Lowe search with memoisation.

Pure. A call has when it was made and when it was answered; one whose outcome is unknown has no answer, and may have taken
effect at any time after it was made, or never.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

State = str | None
"""A status, or None when there is no such job."""
ACTIVE = ("pending", "running")


@dataclass(frozen=True)
class Call:
    """A call on the job: `answer` is "ok", "refused", for "get" the status ("none" without a job), or None when unknown."""

    do: str
    answer: str | None
    made: float
    answered: float = math.inf


def apply_branch(do: str, state: State) -> tuple[str, State]:
    """Return the answer to a call on a manual job, and the state after it: the lifecycle in short."""
    match do:
        case "create":
            return ("ok", "pending") if state is None else ("refused", state)
        case "run":
            return ("ok", "running") if state in ACTIVE else ("refused", state)
        case "complete" | "cancel":
            end = "completed" if do == "complete" else "cancelled"
            return ("ok", end) if state in ACTIVE else ("refused", state)
        case "delete":
            return "ok", None
        case "get":
            return state or "none", state
    raise AssertionError(do)


def is_linearizable(calls: Sequence[Call]) -> bool:
    """Return whether some order explains each answer, with each call between its request and its answer."""
    known = frozenset(n for n, call in enumerate(calls) if call.answer is not None)
    seen: set[tuple[frozenset[int], State]] = set()
    waiting: list[tuple[frozenset[int], State]] = [(frozenset(), None)]
    while waiting:
        done, state = waiting.pop()
        if known <= done:
            return True
        if (done, state) in seen:
            continue
        seen.add((done, state))
        left = [n for n in range(len(calls)) if n not in done]
        first_answer = min(calls[n].answered for n in left)
        for n in left:
            if calls[n].made > first_answer:
                continue  # another one was over before this one began
            answer, after = apply_branch(calls[n].do, state)
            if calls[n].answer in (None, answer):
                waiting.append((done | {n}, after))
    return False
