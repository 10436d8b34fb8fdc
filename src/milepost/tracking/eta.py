"""How long a run still needs, as a range: what remained of each earlier run of its type at the same place, corrected for
how fast this one is. Pure arithmetic on a `Timeline` and the lessons of earlier runs; reads no clock. Times are seconds.

The method, in full: let this run have come to a share of a stage. Each earlier run that had the stage tells when it was at
that share, x, and how much longer its stage took from there, y. This run was there after x'. Then y·(x'/x)^b is what
that run says about the rest of the stage. The exponent b says how much the speed until there told about the rest in the
earlier runs themselves: the slope of log y over log x, drawn towards 1. With b = 1 only the own pace counts, with b = 0
only what was before. The stages after it are foretold in the same way from the time that all until then took. The range
is the 10th to the 90th percentile of what the earlier runs say, wider by what the fit of b to so few of them hides.
Without any the run's own rate is all there is; and where it cannot know what is to come, nothing is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, sqrt
from typing import NamedTuple

from milepost.tracking.timeline import STEPS, Lesson, Part, PartLesson, Timeline

LOW, HIGH = 0.1, 0.9
LEAST = 4
"""With fewer the width of the range is that of so many: two points say nothing about how far a line is from them."""
FEW = 10
"""With fewer earlier runs than this the range is widened."""
DRAWN = 0.02
"""How strongly the exponent is drawn towards 1: a variance of log x that would weigh as much as what was seen."""
DUST = 0.5
"""Seconds that are added to both sides of a comparison, so that the first moments do not decide it."""
OWN_SECONDS, OWN_FRACTION, OWN_POINTS = 2.0, 0.01, 5
"""What a run without any before it must have done until its own rate says something."""


class Left(NamedTuple):
    """The seconds that are left, least and most."""

    low: float
    high: float


def left(timeline: Timeline, lessons: Sequence[Lesson], *, resumed: bool = False, planned: bool = False) -> Left | None:
    """What is left of a run, from now on; None when it is not known.

    `resumed`: it goes on where an earlier attempt ended. `planned`: all its stages were named beforehand.
    """
    at, part = timeline.at, timeline.part
    said = earlier(timeline, lessons, resumed=resumed)
    if not said:
        own = own_rate(timeline, resumed=resumed) if planned or timeline.weighted else None
        return _later(own, at - timeline.whole.moved)
    found = spread(said)
    if not part.measured:
        return found
    pause = max([part.gap, *(one.gap for lesson in lessons for one in lesson.parts if one.name == part.name)])
    since = at - part.moved
    over = max(0.0, timeline.silent - 1.5 * pause - 1.0)  # longer than any pause before: who knows
    return _later(found, since - over, over)


def _later(found: Left | None, passed: float, over: float = 0.0) -> Left | None:
    """A range that was true some time ago; None when it has passed by."""
    if found is None or found.high <= passed:
        return None
    return Left(max(0.0, found.low - passed), found.high - passed + over)


def spread(said: Sequence[float]) -> Left:
    """The 10th and the 90th percentile of few numbers, at the places p·(n + 1), and further from the middle by √((n+2)/(n-2)).

    A line through n points is nearer to them than to the truth: their variance about it is (n-2)/n of the true one,
    that of the next point (n+2)/n. Fewer than ten numbers make the range wider still.
    """
    ordered = sorted(said)
    count = len(ordered)

    def place(share: float) -> float:
        position = min(max(share * (count + 1), 1.0), float(count)) - 1.0
        below = int(position)
        above = min(below + 1, count - 1)
        return ordered[below] + (position - below) * (ordered[above] - ordered[below])

    fitted = max(count, LEAST)
    wider = sqrt((fitted + 2) / (fitted - 2))
    middle = place(0.5)
    low, high = middle - wider * (middle - place(LOW)), middle + wider * (place(HIGH) - middle)
    doubt = 0.4 / count if count < FEW else 0.0
    return Left(max(0.0, low) * (1.0 - doubt), high * (1.0 + doubt))


def earlier(timeline: Timeline, lessons: Sequence[Lesson], *, resumed: bool = False) -> list[float]:
    """What each earlier run says is left, seen from when the run moved last (for what is not counted: from now)."""
    part, at = timeline.part, timeline.at
    if part.name == "" and not part.counts:  # no stage has begun, and nothing was said
        return [
            lesson.seconds - min(at, max(lesson.head, 0.0)) for lesson in lessons if lesson.head or not _flat(lesson)
        ]
    met = [(lesson, index) for lesson in lessons if (index := _place(lesson, part.name)) is not None]
    known = [(lesson, index) for lesson, index in met if part.measured and lesson.parts[index].curve]
    if known:
        rests, reached = _measured(part, [lesson.parts[index] for lesson, index in known], resumed=resumed), part.moved
    else:
        spent = at - part.began - part.lost
        known = [(lesson, index) for lesson, index in met if lesson.parts[index].span > spent]
        rests, reached = [lesson.parts[index].span - spent for lesson, index in known], at
    if not known:
        return []
    middle = sorted(rests)[len(rests) // 2]
    until = [lesson.head + sum(one.span for one in lesson.parts[: index + 1]) for lesson, index in known]
    after = [max(0.0, lesson.seconds - end) for (lesson, _), end in zip(known, until, strict=True)]
    # A run that was taken up again cannot compare the time until now: part of it was spent by another attempt.
    more = after if resumed else carried(reached - timeline.lost + middle, until, after)
    return [rest + then for rest, then in zip(rests, more, strict=True)]


def _flat(lesson: Lesson) -> bool:
    return len(lesson.parts) == 1 and lesson.parts[0].name == ""


def _place(lesson: Lesson, name: str) -> int | None:
    return next((index for index, one in enumerate(lesson.parts) if one.name == name), None)


def _measured(part: Part, before: Sequence[PartLesson], *, resumed: bool) -> list[float]:
    """The rest of a part whose share is known, as each earlier run has it."""
    begin, share = (part.origin or (part.began, 0.0)) if resumed else (part.began, 0.0)
    sizes = [one.total / part.total if one.total and part.total else 1.0 for one in before]
    reached = [reach(one, part.fraction) for one in before]
    spent = [(now - reach(one, share)) / size for one, now, size in zip(before, reached, sizes, strict=True)]
    rests = [(one.span - now) / size for one, now, size in zip(before, reached, sizes, strict=True)]
    return carried(part.moved - begin - part.lost, spent, rests)


def reach(one: PartLesson, share: float) -> float:
    """When an earlier run had done that share of a part, in seconds from its begin."""
    place = min(max(share, 0.0), 1.0) * STEPS
    below = min(int(place), STEPS - 1)
    start = one.curve[below - 1] if below else 0.0
    return start + (place - below) * (one.curve[below] - start)


def carried(x: float, xs: Sequence[float], ys: Sequence[float]) -> list[float]:
    """Each y as it would be had its x been this one: y·(x/x_i)^b, b being the slope of log y over log x among them."""
    logs = [log(max(0.0, one) + DUST) for one in xs]
    rests = [log(max(0.0, one) + DUST) for one in ys]
    count = len(logs)
    mean, middle = sum(logs) / count, sum(rests) / count
    variance = sum((one - mean) ** 2 for one in logs) / count
    together = sum((a - mean) * (b - middle) for a, b in zip(logs, rests, strict=True)) / count
    slope = min(1.0, max(0.0, (together + DRAWN) / (variance + DRAWN)))
    here = log(max(0.0, x) + DUST)
    return [max(0.0, y) * exp(slope * (here - one)) for one, y in zip(logs, ys, strict=True)]


def own_rate(timeline: Timeline, *, resumed: bool = False) -> Left | None:
    """What the run's own rate says, seen from when it moved last: between the rate of all and that of the newer half."""
    points = timeline.points
    if len(points) < OWN_POINTS:
        return None
    begin, start = (timeline.whole.origin or (0.0, 0.0)) if resumed else (0.0, 0.0)
    at, fraction = timeline.whole.moved, timeline.whole.fraction
    spent, done = at - begin - timeline.lost, fraction - start
    if spent < OWN_SECONDS or done < OWN_FRACTION:
        return None
    half = next(((when, f) for when, f in reversed(points) if f <= start + done / 2), (begin, start))
    all_of_it = (1.0 - fraction) * spent / done
    newer = (1.0 - fraction) * (at - half[0]) / (fraction - half[1])
    trend = max(newer, DUST) / max(all_of_it, DUST)
    low, high = min(all_of_it, newer), max(all_of_it, newer)
    low, high = (low * trend, high) if trend < 1 else (low, high * trend)  # it may go on slowing, or speeding, up
    doubt = 0.2 + 0.4 * (1.0 - fraction)
    return Left(low * (1.0 - doubt), high * (1.0 + doubt))
