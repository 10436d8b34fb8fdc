"""When a run without progress counts as stalled, learned from the pauses of earlier runs in the same stage.

A stall is only a flag with a reason: nothing is stopped. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

from milepost.run.forecast.profile import RunProfile, Timeline

OWN_PAUSE_FACTOR = 4.0
"""How many times the longest pause of the run itself a silence must last."""
UNKNOWN_FACTOR = 10.0
"""The threshold in units of the minimum, in a stage without history that counts its units; six times more if it does
not.
"""


def stall_threshold(timeline: Timeline, profiles: Sequence[RunProfile], least: float) -> tuple[float, str]:
    """Return how long a run may make no progress in its stage before it counts as stalled, and the reason in words.

    At least `least`. Three times the longest pause of earlier runs in that stage, and more the fewer they are; longer
    if this run is larger than they were.
    """
    part = timeline.part
    own = OWN_PAUSE_FACTOR * part.gap
    met = [(profile, one) for profile in profiles for one in profile.parts if one.name == part.name]
    if not met:
        return max(own, least * UNKNOWN_FACTOR * (1.0 if part.counts else 6.0)), "no earlier runs"
    longest = max(one.gap for _, one in met)
    larger = (part.total or 0.0) / max([1.0, *(one.total or 0.0 for _, one in met)])
    later = part.began / max([1.0, *(_begin(profile, part.name) for profile, _ in met)])
    known = longest * max(1.0, larger, later) * (3.0 + 6.0 / len(met))
    runs = f"last {len(met)} runs" if len(met) > 1 else "last run"
    return max(least, own, known), f"longest pause in the {runs}: {format_duration(longest)}"


def _begin(profile: RunProfile, name: str) -> float:
    begin = profile.head
    for one in profile.parts:
        if one.name == name:
            break
        begin += one.span
    return begin


def reason(timeline: Timeline, threshold: float, why: str) -> str:
    """Return the reason of a stall as people read it."""
    where = timeline.part.name
    return f"No progress for {format_duration(threshold)}{f' in {where}' if where else ''} ({why})"


def format_duration(seconds: float) -> str:
    """Return a duration, rounded down: ``40 ms``, ``4.5 s``, ``48 s``, ``3 min 5 s``, ``2 h 10 min``."""
    if seconds < 1:
        return f"{int(seconds * 1000)} ms"
    if seconds < 10:
        return f"{int(seconds * 10) / 10:g} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h {whole // 60 % 60} min"
