"""When a run that says nothing new is called stalled: learned from the pauses that healthy runs made in the same stage.

A flag with its reason and no more: nothing is stopped. Pure; reads no clock. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

from milepost.tracking.timeline import Lesson, Timeline

OWN_PAUSES = 4.0
"""Times the longest pause of the run itself that a silence must last."""
UNKNOWN = 10.0
"""Times the least silence, in a stage of which nothing is known but that it counts; six times more where it does not."""


def patience(timeline: Timeline, lessons: Sequence[Lesson], least: float) -> tuple[float, str]:
    """How long a run may stand still where it is before it is called stalled, and why so long, in words.

    At least `least`; three times the longest pause of earlier runs in that stage, and more the fewer there were; longer
    where this run is longer than they were.
    """
    part = timeline.part
    own = OWN_PAUSES * part.gap
    met = [(lesson, one) for lesson in lessons for one in lesson.parts if one.name == part.name]
    if not met:
        return max(own, least * UNKNOWN * (1.0 if part.counts else 6.0)), "nothing is known of earlier runs"
    longest = max(one.gap for _, one in met)
    larger = (part.total or 0.0) / max([1.0, *(one.total or 0.0 for _, one in met)])
    later = part.began / max([1.0, *(_begin(lesson, part.name) for lesson, _ in met)])
    known = longest * max(1.0, larger, later) * (3.0 + 6.0 / len(met))
    runs = f"{len(met)} earlier runs" if len(met) > 1 else "the run before"
    return max(least, own, known), f"the longest pause there in {runs} was {words(longest)}"


def _begin(lesson: Lesson, name: str) -> float:
    begin = lesson.head
    for one in lesson.parts:
        if one.name == name:
            break
        begin += one.span
    return begin


def reason(timeline: Timeline, patient: float, why: str) -> str:
    """What people are told."""
    where = timeline.part.name
    return f"No progress for more than {words(patient)}{f' in {where}' if where else ''}; {why}"


def words(seconds: float) -> str:
    """A duration, floored: ``40 ms``, ``4.5 s``, ``48 s``, ``3 m 05 s``, ``2 h 10 m``."""
    if seconds < 1:
        return f"{int(seconds * 1000)} ms"
    if seconds < 10:
        return f"{int(seconds * 10) / 10:g} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    return f"{whole // 3600} h {whole // 60 % 60:02} m"
