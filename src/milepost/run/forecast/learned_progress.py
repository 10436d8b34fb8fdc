"""The fraction of a run whose stages have no weights, from the time that each stage took in earlier runs of its type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from milepost.run.forecast.profile import RunProfile, Timeline
from milepost.run.stages import RUNNING_MOST

RECENT_RUNS = 10
MIN_RUNS = 3
MAX_NAMES = 20
"""Stages with more different names than this in the recent runs are named after items, and nothing is learned from them."""


def learned_progress(timeline: Timeline, profiles: Sequence[RunProfile]) -> float | None:
    """Return how far a run is by the stages of earlier runs; None where too few of them went the same way."""
    parts = timeline.parts
    if not parts or timeline.has_weights:
        return None
    shares = learned_shares([part.name for part in parts], profiles)
    if shares is None:
        return None
    done = sum(shares[: len(parts) - 1]) + shares[len(parts) - 1] * parts[-1].fraction
    return min(RUNNING_MOST, done)


def learned_shares(names: Sequence[str], profiles: Sequence[RunProfile]) -> list[float] | None:
    """Return the mean share of the time of each stage, for the most common way on from the stages so far."""
    recent = profiles[-RECENT_RUNS:]
    if len({part.name for profile in recent for part in profile.parts}) > MAX_NAMES:
        return None
    begun = tuple(names)
    ways = Counter(way for profile in recent if (way := _names(profile))[: len(begun)] == begun)
    if not ways:
        return None
    way, count = ways.most_common(1)[0]
    if count < MIN_RUNS or len(way) < 2:  # a single stage is the whole, which needs no learning
        return None
    same = [profile for profile in recent if _names(profile) == way]
    spans = [sum(profile.parts[at].span for profile in same) for at in range(len(way))]
    whole = sum(spans)
    return [span / whole for span in spans] if whole > 0 else None


def _names(profile: RunProfile) -> tuple[str, ...]:
    return tuple(part.name for part in profile.parts)
