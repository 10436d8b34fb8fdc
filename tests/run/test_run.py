"""Run: progress, messages, log, stops, stages and checkpoints, without a store."""

from __future__ import annotations

from typing import Any

import pytest

from milepost import InvalidInputError, JobCancelled, JobReleased
from milepost.core.serialization import from_json
from milepost.testing import fake_run

# --- progress, messages, log ------------------------------------------------------------------------------------------


def test_progress_is_clamped_and_never_goes_back() -> None:
    run = fake_run()
    for fraction in (0.2, 0.1, 0.5, 1, -3):
        run.progress(fraction)
    assert run.progress_seen == [0.2, 0.2, 0.5, 1.0, 1.0, 1.0]


def test_progress_above_one_is_refused() -> None:
    """Regression: `progress(50)`, meant as a percentage, was shown as 100 %."""
    run = fake_run()
    with pytest.raises(InvalidInputError, match=r"50 must be a fraction from 0 to 1; did you mean 0\.5\?"):
        run.progress(50)
    run.progress(1.0000000001)  # what sums of floats come to
    assert run.fraction == 1.0


def test_single_loop_of_known_total_is_the_whole() -> None:
    run = fake_run()
    seen = []
    with run.stage("Working", total=120) as stage:
        for _ in range(120):
            stage.advance()
            seen.append((float(run._report()["progress"]), run._report()["progress_known"]))
    assert seen[86] == (87 / 120, "1")
    assert seen[-1] == (0.99, "1"), "1 is said of completed jobs only"


def test_second_stage_without_weights_makes_progress_unknown() -> None:
    """Regression: a job showed 100 % after the first of its loops."""
    run = fake_run()
    with run.stage("Load", total=4) as stage:
        stage.advance(2)
        assert (run._report()["progress"], run._report()["progress_known"]) == ("0.5", "1")
        stage.advance(2)
    with run.stage("Embed", total=10) as stage:
        stage.advance(4)
        assert (run._report()["progress"], run._report()["progress_known"]) == ("0.5", "0"), "it stays where it was"


def test_plan_gives_the_weighted_sum() -> None:
    run = fake_run()
    run.plan("Load", ("Embed", 8), "Persist")
    with run.stage("Load", total=1) as stage:
        stage.advance()
    with run.stage("Embed", total=4) as stage:
        stage.advance(2)
        assert (run._report()["progress"], run._report()["progress_known"]) == ("0.5", "1")
    with pytest.raises(InvalidInputError, match="plan"):
        run.plan(("Load", -1))


@pytest.mark.parametrize("fraction", [float("nan"), True, "0.5", object()])
def test_progress_that_is_no_number_is_ignored(fraction: Any, caplog: pytest.LogCaptureFixture) -> None:
    run = fake_run()
    run.progress(fraction, "still said")
    assert run.fraction == 0.0
    assert run._report()["message"] == "still said"
    assert "is not a number from 0 to 1" in caplog.text


def test_message_is_one_line() -> None:
    run = fake_run()
    run.progress(message="two\nlines\ud800")
    assert run._report()["message"] == "two lines\ufffd"


def test_log_lines_are_taken_once_and_newest_are_kept() -> None:
    run = fake_run()
    for number in range(30):
        run.log(f"line {number}")
    run.log("two\nlines", "warning")
    taken = from_json(run._take_lines() or "")["lines"]
    assert len(taken) == 32
    assert taken[-1]["text"] == "lines"
    assert taken[-1]["level"] == "warning"
    assert run._take_lines() is None
    assert len(run.log_lines) == 20


def test_excess_log_lines_are_dropped_and_counted() -> None:
    run = fake_run()
    for number in range(5003):
        run.log(str(number))
    taken = from_json(run._take_lines() or "")["lines"]
    assert len(taken) == 5001
    assert taken[-1]["text"] == "3 log lines dropped"


def test_secrets_are_masked_in_reports() -> None:
    run = fake_run()
    run._secret_values = ("hush-hush",)
    run.log("the word is hush-hush")
    run.progress(0.1, "hush-hush!")
    with run.stage("hush-hush"), run.item("a"):
        raise ValueError("hush-hush")
    assert "hush" not in str(run._report()) + str(run._take_lines()) + str(run.log_lines)


# --- stops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tick",
    [
        lambda run: run.check(),
        lambda run: run.progress(0.5),
        lambda run: run.stage("Next"),
        lambda run: list(run.each([1])),
        lambda run: run.checkpoint(1),
        lambda run: run.map(lambda item: item, [1]),
    ],
    ids=["check", "progress", "stage", "each", "checkpoint", "map"],
)
def test_every_report_is_cancel_point(tick: Any) -> None:
    run = fake_run()
    assert not run.cancelled
    run.cancel("enough")
    assert run.cancelled
    with pytest.raises(JobCancelled, match="enough"):
        tick(run)


def test_advance_is_cancel_point() -> None:
    run = fake_run()
    with pytest.raises(JobCancelled), run.stage("Loading", total=2) as stage:  # noqa: PT012
        stage.advance()
        run.cancel()
        stage.advance()


def test_first_stop_reason_wins_and_is_no_exception() -> None:
    run = fake_run()
    run.stop(JobReleased("first"))
    run.cancel()
    with pytest.raises(JobReleased):  # noqa: PT012
        try:
            run.check()
        except Exception:
            pytest.fail("a Stop is no Exception")


# --- stages -----------------------------------------------------------------------------------------------------------


def test_fraction_is_weighted_sum_of_stages() -> None:
    run = fake_run()
    with run.stage("Loading", weight=1):
        assert run.fraction == 0.0
    assert run.fraction == pytest.approx(0.1)
    with run.stage("Embedding", weight=9, total=4) as stage:
        stage.advance(2)
        assert run.fraction == pytest.approx(0.1 + 0.45)
        assert run._stage_name == "Embedding"
    assert run.fraction == pytest.approx(1.0)
    assert run._stage_name is None


def test_stages_nest() -> None:
    run = fake_run()
    with run.stage("All", weight=10):
        with run.stage("Half", weight=5):
            pass
        assert run.fraction == pytest.approx(0.5)
    shown = from_json(run._report()["stages"])
    assert [(stage["name"], stage.get("parent")) for stage in shown] == [("All", None), ("Half", "All")]


def test_error_leaves_stage_unfinished() -> None:
    run = fake_run()
    with pytest.raises(ValueError), run.stage("Loading", weight=10, total=10) as stage:  # noqa: PT012
        stage.advance(3)
        raise ValueError
    assert run.fraction == pytest.approx(0.3)
    assert run._stage_name is None


# --- checkpoints ------------------------------------------------------------------------------------------------------


async def test_checkpoint_must_be_json() -> None:
    run = fake_run(last_checkpoint={"page": 3})
    assert run.last_checkpoint == {"page": 3}
    run.checkpoint({"page": 4})
    await run.acheckpoint([5])
    assert run.checkpoints == [{"page": 4}, [5]]
    with pytest.raises(InvalidInputError):
        run.checkpoint(object())
    with pytest.raises(InvalidInputError, match="the limit is"):
        run.checkpoint("x" * 300_000)


def test_handler_runs_without_store() -> None:
    from milepost import Jobs, Run

    jobs = Jobs()

    @jobs.job("reindex", max_attempts=3)
    def reindex(run: Run, index: str, batch_size: int = 64) -> dict[str, int]:
        start = run.last_checkpoint or 0
        for page in run.each(range(start, 100)):
            if page % 50 == 0:
                run.checkpoint(page)
        return {"done": 100 - start}

    run = fake_run(last_checkpoint=40)
    assert reindex(run, index="docs") == {"done": 60}
    assert run.progress_seen[-1] == 1.0
