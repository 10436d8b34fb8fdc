"""Stored results: `results.json`, and the tables and charts made from it for docs/benchmarks.md and docs/scale.md.

Each entry says when, on which machine and with which versions it was measured, so one work can be measured again alone.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.services import find

from benchmarks.install import GUESTS, ROOT, pins
from benchmarks.markdown import put_section, table
from benchmarks.sampler import Sample
from benchmarks.surveys import SURVEYS, Table, figure
from benchmarks.workloads import WORKLOADS, Result

RESULTS = ROOT / "benchmarks" / "results.json"
DOCS = ROOT / "docs"
LOAD = "load average"
NAMES = {
    "milepost_async": "milepost, async API",
    "floor_batched": "floor, ten a script",
    "rq": "RQ",
    "saq": "SAQ",
    "celery": "Celery",
    "taskiq": "Taskiq",
    "dramatiq": "Dramatiq",
    "huey": "Huey",
    "streaq": "streaQ",
    "bullmq": "BullMQ (Python)",
    "bullmq_node": "BullMQ (Node)",
    "original": "the original design",
    "postgres_floor": "floor, one narrow table",
    "procrastinate": "Procrastinate",
    "pgqueuer": "PgQueuer",
    "dbos": "DBOS",
    "pg_boss": "pg-boss (Node)",
    "graphile_worker": "Graphile Worker (Node)",
    "starlette": "Starlette",
    "fastapi": "FastAPI, response model",
    "fastapi_bytes": "FastAPI, `Response(bytes)`",
    "milepost_keys": "milepost, API key",
    "milepost_celery": "milepost, `CeleryTaskQueue`",
    "milepost_tracked": "milepost, `@tracked` on Celery",
}


def keep(result: Result | Table) -> None:
    """Store a result, replacing the one with the same name."""
    kept = _read()
    entry: dict[str, Any] = {"when": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine()}
    if isinstance(result, Table):
        entry |= {"columns": result.columns, "rows": result.rows, "notes": result.notes}
        kept[result.name] = entry
    else:
        entry["versions"] = {peer: found for peer in result.samples if (found := _version(peer))}
        entry["samples"] = {peer: [vars(sample) for sample in samples] for peer, samples in result.samples.items()}
        kept[result.work.name] = entry
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


def write() -> None:
    """Write the pages and the charts from the stored results."""
    from benchmarks.chart import draw

    kept = _read()
    results = {name: _result(name, kept[name]) for name in WORKLOADS if name in kept}
    pictures = DOCS / "pictures"
    drawn = [name for name, result in results.items() if len(result.samples) > 2]
    for name in drawn:
        draw(results[name], NAMES, pictures / f"bench-{name}.svg")
    parts = [
        _conditions({name: kept[name] for name in results}),
        _overview(results),
        *(_section(result, kept[name], name in drawn) for name, result in results.items()),
    ]
    put_section("Side by side", "\n\n".join(parts))
    for name, survey in SURVEYS.items():
        if name in kept:
            put_section(survey.heading, _survey(name, kept[name]), DOCS / survey.page)


def machine() -> dict[str, str]:
    """Return a description of this machine without its name."""
    model = (
        re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if platform.system() == "Linux" else None
    )
    server = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=False).stdout
    redis = re.search(r"v=(\S+)", server)
    program = find("postgresql")
    postgres = (
        subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout if program else ""
    )
    return {
        "CPU": f"{os.cpu_count()} x {model[1] if model else platform.machine()}",
        "system": platform.system(),
        "Python": platform.python_version(),
        "Redis": redis[1] if redis else "?",
        "PostgreSQL": (re.search(r"\d+(\.\d+)*", postgres) or "?")[0],
        "redis-py": version("redis"),
        "hiredis": version("hiredis"),
        "milepost": version("milepost"),
        LOAD: f"{os.getloadavg()[0]:.1f}",
    }


def _version(peer: str) -> str | None:
    pinned = pins(peer)
    if pinned and peer not in GUESTS:
        return re.split(r"==|@", pinned[0])[-1]
    try:
        return version(peer.partition("_")[0])
    except PackageNotFoundError:
        return None


def _read() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def _result(name: str, entry: dict[str, Any]) -> Result:
    return Result(WORKLOADS[name], {peer: [Sample(**one) for one in them] for peer, them in entry["samples"].items()})


# ---- text


def _overview(results: dict[str, Result]) -> str:
    rows = []
    for name, result in results.items():
        verdicts = list(result.verdicts())
        texts = [f"{one.text}{'' if one.reached else ' **not reached**'}".replace("  ", " ") for one in verdicts]
        floor = "floor" if "floor" in result.samples else "postgres_floor"
        seen = [f"{figure(result.median(peer))}" if peer in result.samples else "" for peer in (floor, "milepost")]
        rows.append([f"[{name}](#{name.lower()})", result.work.title, result.work.unit, *seen, "<br>".join(texts)])
    return table(["work", "what", "unit", "floor", "milepost", "ratios, and what is to be reached"], rows)


def _section(result: Result, entry: dict[str, Any], drawn: bool) -> str:
    work, versions = result.work, entry["versions"]
    others = list(next(iter(result.samples.values()))[0].more)
    rows = []
    beside = "milepost" if "milepost" in result.samples else work.peers[0]
    for peer in sorted(result.samples, key=result.median, reverse=work.higher_is_better):
        low, high = result.spread(peer)
        ratio = result.median(peer) / result.median(beside)
        more = result.more(peer)
        name = f"{NAMES.get(peer, peer)} {versions.get(peer, '')}".strip()
        seen = [figure(more[other]) if other in more else "" for other in others]
        name = f"**{name}**" if peer.startswith("milepost") else name
        rows.append([name, figure(result.median(peer)), f"{figure(low)} to {figure(high)}", f"{ratio:.2f}", *seen])
    columns = ["", work.unit, "spread", f"x {NAMES.get(beside, beside)}", *others]
    picture = f"\n\n![{work.name}: {work.title}](pictures/bench-{work.name}.svg)" if drawn else ""
    return f"### {work.name}\n\n{work.title[0].upper()}{work.title[1:]}.\n\n{table(columns, rows)}{picture}"


def _survey(name: str, entry: dict[str, Any]) -> str:
    notes = "".join(f"\n\n{note}" for note in entry["notes"])
    return f"{_conditions({name: entry})}\n\n{table(entry['columns'], entry['rows'])}{notes}"


def _conditions(entries: dict[str, Any]) -> str:
    """Return date, machine and versions of the results: one sentence for each combination."""
    together: dict[str, list[str]] = {}
    loads: dict[str, list[float]] = {}
    for name, entry in entries.items():
        facts = [
            value if what == "CPU" else f"{what} {value}" for what, value in entry["machine"].items() if what != LOAD
        ]
        where = f"{entry['when']}; {', '.join(facts)}"
        together.setdefault(where, []).append(name)
        loads.setdefault(where, []).append(float(entry["machine"][LOAD]))
    return "\n\n".join(
        f"{', '.join(names)}: {where}; load average before {min(loads[where]):.1f} to {max(loads[where]):.1f}."
        for where, names in together.items()
    )
