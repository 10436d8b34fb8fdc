"""The fraction of a run whose stages have no weights, learned from earlier runs."""

from __future__ import annotations

from milepost.core.serialization import to_json
from milepost.run.forecast.forecast import learned_progress, learned_shares
from milepost.run.forecast.history import PartProfile, RunProfile, Timeline

BEGIN = 1_800_000_000.0


def run_of(**spans: float) -> RunProfile:
    parts = tuple(PartProfile(name, None, span, (), span) for name, span in spans.items())
    return RunProfile(sum(spans.values()), 0.0, parts)


def at_stage(name: str, done: float, *before: str, weight: float | None = None) -> Timeline:
    timeline = Timeline(BEGIN)
    start = "2027-01-15T08:00:00+00:00"
    stages = [{"name": one, "done": 1, "total": 1, "started_at": start, "ended_at": start} for one in before]
    stages.append({"name": name, "done": done, "total": 10, "started_at": start})
    if weight is not None:
        stages[-1]["weight"] = weight
    timeline.add({"progress": "0.0", "stages": to_json(stages, "stages")}, BEGIN + 5)
    return timeline


def test_share_of_each_stage_is_its_share_of_the_time() -> None:
    runs = [run_of(Load=1, Embed=9)] * 3
    assert learned_progress(at_stage("Load", 5), runs) == 0.05
    found = learned_progress(at_stage("Embed", 5, "Load"), runs)
    assert found is not None
    assert round(found, 6) == 0.55


def test_last_stage_ends_below_one() -> None:
    assert learned_progress(at_stage("Embed", 10, "Load"), [run_of(Load=1, Embed=9)] * 3) == 0.99


def test_too_few_or_other_runs_teach_nothing() -> None:
    assert learned_shares(["Load"], [run_of(Load=1, Embed=9)] * 2) is None
    assert learned_shares(["Check"], [run_of(Load=1, Embed=9)] * 5) is None
    assert learned_shares(["Load"], [run_of(Load=1)] * 5) is None, "one stage is the whole"
    named_by_item = [run_of(**{f"file {run}.{at}": 1.0 for at in range(4)}) for run in range(10)]
    assert learned_shares(["file 1.0"], named_by_item) is None


def test_only_recent_runs_count() -> None:
    runs = [run_of(Load=1, Embed=9)] * 20 + [run_of(Load=1, Store=1)] * 10
    assert learned_shares(["Load", "Embed"], runs) is None
    assert learned_shares(["Load"], runs) == [0.5, 0.5]


def test_weights_of_the_code_win() -> None:
    assert learned_progress(at_stage("Load", 5, weight=2), [run_of(Load=1, Embed=9)] * 3) is None
