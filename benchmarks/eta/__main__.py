"""``python -m benchmarks.eta``: replay the recorded runs and print the report; ``--write`` puts it into docs/eta.md."""

from __future__ import annotations

import itertools
import statistics
import sys
from pathlib import Path

from benchmarks.eta.recording import Recording, families, read
from benchmarks.eta.replay import EARLIER_RUNS, Replay, Score, evaluate, first_runs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "eta.md"
BEGINS, ENDS = "<!-- what follows is written by `python -m benchmarks.eta --write` -->", "<!-- end of it -->"
COVERED = (0.75, 0.90)
HALF, STEADY = 0.5, 1.1
AIMS = {"slowing": HALF, "multistage": HALF, "steady": STEADY}
NOT_TIMED = "slow"
"""A family that was recorded for stall detection only."""
SLOWER, MUCH_SLOWER = 5.0, 10.0


Runs = dict[str, list[Recording]]
Played = dict[str, tuple[Score, Replay]]


def main(arguments: list[str]) -> None:
    """Print or write the report."""
    text = report()
    if "--write" in arguments:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGINS)
        PAGE.write_text(f"{before}{BEGINS}\n\n{text}\n{ENDS}{rest.partition(ENDS)[2]}", encoding="utf-8")
    else:
        print(text)


def report() -> str:
    """Return all tables as Markdown."""
    runs = {family: list(read(family)) for family in families()}
    timed = {family: recorded for family, recorded in runs.items() if family != NOT_TIMED}
    played = {family: evaluate(family, recorded) for family, recorded in runs.items()}
    known = {family: played[family] for family in timed}
    return "\n\n".join((ranges(timed, known), errors(known), first(timed), slower(timed), stalls(runs, played))) + "\n"


def ranges(runs: Runs, played: Played) -> str:
    """Return the table of ranges that contain the true end."""
    rows = []
    for family, recorded in runs.items():
        score, reel = played[family]
        seconds = statistics.median(run.seconds for run in recorded)
        rows.append([
            family, f"{score.runs} of {seconds:.0f} s", f"{score.known:.0%}", f"{score.coverage:.0%}", f"{score.width:.0%}",
            _verdict(COVERED[0] <= score.coverage <= COVERED[1]), f"{reel.bytes() / 1024:.1f} KiB",
        ])  # fmt: skip
    heads = ["family", "runs", "known", "truth inside", "width of the range", "aim: 75 to 90 %", "digest"]
    return f"With at least {EARLIER_RUNS} earlier runs, after each twentieth of a run:\n\n{_table(heads, rows)}"


def errors(played: Played) -> str:
    """Return the table of errors of the range's middle, compared with other estimates."""
    rows = []
    for family, (score, _) in played.items():
        ratio = score.error("milepost") / score.error("linear")
        aim = f"at most {AIMS[family]} x: {_verdict(ratio <= AIMS[family])}" if family in AIMS else "none"
        rows.append([family, *_errors(score), f"{ratio:.2f} x", aim])
    heads = ["family", "milepost", "linear", "tqdm", "of linear", "aim"]
    return (
        "The median error of the middle of the range, relative to the remaining time, at the same points:\n\n"
        + _table(heads, rows)
    )


def first(runs: Runs) -> str:
    """Return the tables without history and with little history."""
    rows = []
    for family, recorded in runs.items():
        none, _ = first_runs(family, recorded)
        one, three = Score(), Score()
        for number in range(0, len(recorded) - 3, 4):
            group = recorded[number : number + 4]
            _merge(one, evaluate(family, group[:2], 1)[0])
            _merge(three, evaluate(family, group, 3)[0])
        shown = [f"{score.coverage:.0%}, {score.error('milepost'):.0%}" for score in (none, one, three)]
        rows.append([family, f"{none.known:.0%}", *shown])
    heads = ["family", "known at first", "first run", "after one", "after three"]
    return "With fewer earlier runs there is no goal. Truth inside the range, and median error:\n\n" + _table(
        heads, rows
    )


def slower(runs: Runs) -> str:
    """Return the table of runs that are slower than all before them."""
    rows = []
    for family, recorded in runs.items():
        score = Score()
        for number in range(EARLIER_RUNS, len(recorded)):
            reel = Replay(family)
            for run in recorded[number - EARLIER_RUNS : number]:
                reel.play(run)
            reel.play(recorded[number].slower(SLOWER), score)
        rows.append([family, f"{score.known:.0%}", f"{score.coverage:.0%}", f"{score.width:.0%}", *_errors(score)])
    heads = ["family", "known", "truth inside", "width of the range", "median error", "linear", "tqdm"]
    return (
        f"Runs that are {SLOWER:.0f} times slower than the {EARLIER_RUNS} before them, as on a machine with much other work:\n\n"
        + _table(heads, rows)
    )


def stalls(runs: Runs, played: Played) -> str:
    """Return the table of false stall flags, and of the time until frozen runs are flagged."""
    rows = []
    for family, recorded in runs.items():
        _, learned = played[family]
        _, at_first = first_runs(family, recorded)
        slower = [run.slower(MUCH_SLOWER) for run in recorded]
        _, reel = evaluate(family, slower)
        _, slow_first = first_runs(family, slower)
        waits = [wait for run in recorded[-8:] if (wait := learned.freeze(run, 0.5)) is not None]
        pause = max(_pause(run) for run in recorded)
        rows.append([
            family, f"{pause:.0f} s", f"{at_first} of {len(recorded)}", f"{learned.flagged} of {len(recorded)}",
            f"{slow_first} of {len(recorded)}", f"{reel.flagged} of {len(recorded)}",
            f"{statistics.median(waits):.0f} s" if waits else "never",
        ])  # fmt: skip
    heads = ["family", "longest pause", "flagged, each as the first", "flagged, one after the other",
             f"each as the first, {MUCH_SLOWER:.0f} x slower", f"one after the other, {MUCH_SLOWER:.0f} x slower",
             "a frozen run is flagged after"]  # fmt: skip
    return "Healthy runs that were flagged as stalled, and the median time until a frozen run is flagged:\n\n" + _table(
        heads, rows
    )


def _pause(run: Recording) -> float:
    """Return the longest time without a change in a recorded run."""
    times = sorted({at for at, *_ in run.samples} | {part.began for part in run.parts} | {run.seconds})
    return max((later - sooner for sooner, later in itertools.pairwise(times)), default=0.0)


def _merge(into: Score, score: Score) -> None:
    into.asked += score.asked
    into.inside += score.inside
    for name, errors in score.errors.items():
        into.errors[name] += errors


def _errors(score: Score) -> list[str]:
    return [f"{score.error(name):.1%}" for name in ("milepost", "linear", "tqdm")]


def _verdict(reached: bool) -> str:
    return "reached" if reached else "**not reached**"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main(sys.argv[1:])
