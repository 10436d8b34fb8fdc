"""Bar charts of results with their spread."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.surveys import figure as tidy
from benchmarks.workloads import Result

OUR_COLOR, PEER_COLOR, FLOOR_COLOR, SPREAD = "#0b7a75", "#9aa5b1", "#d9dee4", "#3e4c59"


def draw(result: Result, names: Mapping[str, str], path: Path) -> None:
    """Write one chart; the same results give the same bytes."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "milepost", "font.family": "sans-serif"})
    from matplotlib import pyplot

    peers = sorted(result.samples, key=result.median, reverse=not result.work.higher_is_better)
    medians = [result.median(peer) for peer in peers]
    ends = [result.spread(peer) for peer in peers]
    reach = (
        [m - low for m, (low, _) in zip(medians, ends, strict=True)],
        [high - m for m, (_, high) in zip(medians, ends, strict=True)],
    )
    colours = [
        OUR_COLOR if peer.startswith("milepost") else FLOOR_COLOR if peer.startswith("floor") else PEER_COLOR
        for peer in peers
    ]
    figure, axes = pyplot.subplots(figsize=(8, 0.9 + 0.34 * len(peers)))
    labels = [names.get(peer, peer).replace("`", "") for peer in peers]
    axes.barh(labels, medians, color=colours, xerr=reach, error_kw={"ecolor": SPREAD, "lw": 1, "capsize": 2})
    for place, (median, (_, high)) in enumerate(zip(medians, ends, strict=True)):
        axes.annotate(
            tidy(median),
            (high, place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    if max(medians) > 50 * min(medians):
        axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(f"{result.work.name}  {result.work.title}", fontsize=9, loc="left", wrap=True)
    better = "more" if result.work.higher_is_better else "less"
    scale = ", logarithmic scale" if axes.get_xscale() == "log" else ""
    axes.set_xlabel(f"{result.work.unit}, {better} is better{scale}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
