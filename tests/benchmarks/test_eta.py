"""Replayed runs reach the goals of docs/eta.md, and no healthy run is flagged as stalled."""

from __future__ import annotations

import gc

import pytest

pytest.importorskip("tqdm")

from benchmarks.eta.__main__ import BEGINS, ENDS, PAGE, report
from benchmarks.eta.recording import families, read
from benchmarks.eta.replay import evaluate, first_runs


@pytest.mark.parametrize(
    ("family", "of_linear"),
    [("steady", 1.1), ("slowing", 0.5), ("multistage", 0.5), ("bursty", None), ("ingestion", None)],
)
def test_eta_ranges_reach_goals(family: str, of_linear: float | None) -> None:
    score, reel = evaluate(family, list(read(family)))
    assert score.runs == 22
    assert score.known > 0.9
    assert 0.75 <= score.coverage <= 0.9
    if of_linear is not None:
        assert score.error("milepost") <= of_linear * score.error("linear")
    assert reel.flagged == 0
    assert 0 < reel.bytes() < 16 * 1024


def test_stall_detection_flags_only_frozen_runs() -> None:
    runs = list(read("slow"))
    assert max(run.seconds for run in runs) > 600
    _, reel = evaluate("slow", runs)
    _, at_first = first_runs("slow", runs)
    assert (reel.flagged, at_first) == (0, 0)
    assert reel.freeze(runs[-1], 0.5) is not None


def test_replay_closes_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar left to the garbage collector leaves tqdm's set of bars while tqdm's own thread may be reading it."""
    from tqdm import tqdm

    closed: list[object] = []
    monkeypatch.setattr(tqdm, "close", lambda bar: closed.append(bar))
    gc.disable()
    try:
        evaluate("steady", list(read("steady"))[:3])
        assert len(closed) == 3
    finally:
        gc.enable()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_eta_page_matches_replay() -> None:
    assert set(families()) == {"bursty", "ingestion", "multistage", "slow", "slowing", "steady"}
    shown = PAGE.read_text("utf-8").partition(BEGINS)[2].partition(ENDS)[0]
    assert shown.strip() == report().strip(), "docs/eta.md is out of date: python -m benchmarks.eta --write"
