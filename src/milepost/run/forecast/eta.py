"""How long a run still needs, as a range, from earlier runs of its type and its own rate. Times are seconds.

The method: let this run be at a fraction of a stage. For each earlier run with this stage, x is when it was at that
fraction, and y how long the stage then took. This run got there after x'. That run predicts y·(x'/x)^b for the rest of
the stage. The exponent b is fitted to the earlier runs: the slope of log y over log x, drawn towards 1. With b = 1 only
the own pace counts, with b = 0 only the history. A run that is slower or faster there than all earlier ones is beyond
what they tell: from the nearest of them on, only its own pace counts. Later stages are predicted in the same way from
the time until then.
The range is the 10th to the 90th percentile of these predictions, widened for the uncertainty of a fit to few runs.
Without earlier runs the run's own rate is used; if the remaining work is unknown, there is no range.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, sqrt
from typing import NamedTuple

from milepost.run.forecast.history import STEPS, Part, PartProfile, RunProfile, Timeline

LOW, HIGH = 0.1, 0.9
MIN_FITTED = 4
"""With fewer runs the range is as wide as with this number: two points do not show how far others are from their line."""
FEW = 10
"""With fewer earlier runs the range is widened."""
PRIOR_VARIANCE = 0.02
"""How strongly the exponent is drawn towards 1: the variance of log x that would weigh as much as the data."""
SMOOTHING_SECONDS = 0.5
"""Seconds that are added to both sides of a comparison, so that the first moments do not decide it."""
OWN_SECONDS, OWN_FRACTION, OWN_POINTS = 2.0, 0.01, 5
"""What a run without history must have done before its own rate is used."""


class Remaining(NamedTuple):
    """The shortest and the longest time that remains, in seconds."""

    low: float
    high: float


def remaining(
    timeline: Timeline, profiles: Sequence[RunProfile], *, resumed: bool = False, planned: bool = False
) -> Remaining | None:
    """Return how long a run still needs from now on, or None if that is unknown.

    `resumed`: it continues where an earlier attempt ended. `planned`: all its stages were named in advance.
    """
    at, part = timeline.at, timeline.part
    predictions = earlier(timeline, profiles, resumed=resumed)
    if not predictions:
        own = own_rate(timeline, resumed=resumed) if planned or timeline.weighted else None
        return _later(own, at - timeline.whole.moved)
    found = spread(predictions)
    if not part.measured:
        return found
    pause = max([part.gap, *(one.gap for profile in profiles for one in profile.parts if one.name == part.name)])
    since = at - part.moved
    over = max(0.0, timeline.silent - 1.5 * pause - 1.0)  # the pause is longer than any before
    return _later(found, since - over, over)


def _later(found: Remaining | None, passed: float, over: float = 0.0) -> Remaining | None:
    """Return a range that was true `passed` seconds ago as of now; None if it is over."""
    if found is None or found.high <= passed:
        return None
    return Remaining(max(0.0, found.low - passed), found.high - passed + over)


def spread(predictions: Sequence[float]) -> Remaining:
    """Return the 10th and the 90th percentile of few numbers.

    They are taken at the ranks p·(n + 1) and moved from the median by the factor √((n+2)/(n-2)): n points are nearer to
    their fitted line, with a variance of (n-2)/n, than the next point is, with (n+2)/n. Fewer than ten numbers widen
    the range.
    """
    ordered = sorted(predictions)
    count = len(ordered)

    def place(share: float) -> float:
        position = min(max(share * (count + 1), 1.0), float(count)) - 1.0
        below = int(position)
        above = min(below + 1, count - 1)
        return ordered[below] + (position - below) * (ordered[above] - ordered[below])

    fitted = max(count, MIN_FITTED)
    wider = sqrt((fitted + 2) / (fitted - 2))
    middle = place(0.5)
    low, high = middle - wider * (middle - place(LOW)), middle + wider * (place(HIGH) - middle)
    doubt = 0.4 / count if count < FEW else 0.0
    return Remaining(max(0.0, low) * (1.0 - doubt), high * (1.0 + doubt))


def earlier(timeline: Timeline, profiles: Sequence[RunProfile], *, resumed: bool = False) -> list[float]:
    """Return the remaining time that each earlier run predicts, as of the last progress.

    Without a count of units it is as of now.
    """
    part, at = timeline.part, timeline.at
    if part.name == "" and not part.counts:  # no stage and no progress yet
        return [
            profile.seconds - min(at, max(profile.head, 0.0))
            for profile in profiles
            if profile.head or not _flat(profile)
        ]
    met = [(profile, index) for profile in profiles if (index := _place(profile, part.name)) is not None]
    known = [(profile, index) for profile, index in met if part.measured and profile.parts[index].curve]
    if known:
        rests, reached = (
            _measured(part, [profile.parts[index] for profile, index in known], resumed=resumed),
            part.moved,
        )
    else:
        spent = at - part.began - part.lost
        known = [(profile, index) for profile, index in met if profile.parts[index].span > spent]
        rests, reached = [profile.parts[index].span - spent for profile, index in known], at
    if not known:
        return []
    middle = sorted(rests)[len(rests) // 2]
    until = [profile.head + sum(one.span for one in profile.parts[: index + 1]) for profile, index in known]
    after = [max(0.0, profile.seconds - end) for (profile, _), end in zip(known, until, strict=True)]
    # A resumed run cannot compare its time so far: an earlier attempt spent part of it.
    more = after if resumed else carry_over(reached - timeline.lost + middle, until, after)
    return [rest + then for rest, then in zip(rests, more, strict=True)]


def _flat(profile: RunProfile) -> bool:
    return len(profile.parts) == 1 and profile.parts[0].name == ""


def _place(profile: RunProfile, name: str) -> int | None:
    return next((index for index, one in enumerate(profile.parts) if one.name == name), None)


def _measured(part: Part, before: Sequence[PartProfile], *, resumed: bool) -> list[float]:
    """Return the rest of a counted part that each earlier run predicts."""
    begin, share = (part.origin or (part.began, 0.0)) if resumed else (part.began, 0.0)
    sizes = [one.total / part.total if one.total and part.total else 1.0 for one in before]
    reached = [position_at(one, part.fraction) for one in before]
    spent = [(now - position_at(one, share)) / size for one, now, size in zip(before, reached, sizes, strict=True)]
    rests = [(one.span - now) / size for one, now, size in zip(before, reached, sizes, strict=True)]
    return carry_over(part.moved - begin - part.lost, spent, rests)


def position_at(one: PartProfile, share: float) -> float:
    """Return when an earlier run had done that fraction of a part, in seconds from its start."""
    place = min(max(share, 0.0), 1.0) * STEPS
    below = min(int(place), STEPS - 1)
    start = one.curve[below - 1] if below else 0.0
    return start + (place - below) * (one.curve[below] - start)


def carry_over(x: float, xs: Sequence[float], ys: Sequence[float]) -> list[float]:
    """Return each y as it would be for this x: y·(x/x_i)^b, where b is the slope of log y over log x.

    Outside of all `xs` the slope is not known. There y grows as x does.
    """
    logs = [log(max(0.0, one) + SMOOTHING_SECONDS) for one in xs]
    rests = [log(max(0.0, one) + SMOOTHING_SECONDS) for one in ys]
    count = len(logs)
    mean, middle = sum(logs) / count, sum(rests) / count
    variance = sum((one - mean) ** 2 for one in logs) / count
    together = sum((a - mean) * (b - middle) for a, b in zip(logs, rests, strict=True)) / count
    slope = min(1.0, max(0.0, (together + PRIOR_VARIANCE) / (variance + PRIOR_VARIANCE)))
    here = log(max(0.0, x) + SMOOTHING_SECONDS)
    near = min(max(here, min(logs)), max(logs))
    return [max(0.0, y) * exp(slope * (near - one) + here - near) for one, y in zip(logs, ys, strict=True)]


def own_rate(timeline: Timeline, *, resumed: bool = False) -> Remaining | None:
    """Return what the run's own rate predicts as of its last progress: between its overall and its recent rate."""
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
    trend = max(newer, SMOOTHING_SECONDS) / max(all_of_it, SMOOTHING_SECONDS)
    low, high = min(all_of_it, newer), max(all_of_it, newer)
    low, high = (low * trend, high) if trend < 1 else (low, high * trend)  # the trend may continue
    doubt = 0.2 + 0.4 * (1.0 - fraction)
    return Remaining(low * (1.0 - doubt), high * (1.0 + doubt))
