"""Runs the handlers and programs of the corpus undisturbed and interrupted, each in processes of its own, and compares."""

from __future__ import annotations

import importlib
import itertools
import json
import multiprocessing
import random
import re
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.truth.published import published_programs
from tests.truth.worker import MAX_ATTEMPTS, Case, serve

HANDLERS = sorted(path.stem for path in Path(__file__).with_name("handlers").glob("[a-z]*.py"))
KINDS = ("SIGKILL", "SIGTERM", "error", "cancel")
AT_ONCE = 6
PATIENCE = 200.0
_numbers = itertools.count(1)
COMPARED = ("status", "result", "error", "items", "files")


class Runner:
    """Runs handlers on one store. A forked process starts in milliseconds, since its server has imported everything."""

    def __init__(self, url: str, folder: Path, seed: int, lease: float, control: str | None = None) -> None:
        self._url = url
        self._folder = folder
        self._seed = seed
        self._lease = lease
        self._control = control
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.truth.preload"])

    def problems(self, kinds: Iterable[str] | None, handlers: Iterable[str] = HANDLERS) -> list[str]:
        """Return what is wrong with the handlers, by name. `kinds` None: one kind for each handler, by the seed."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = pool.map(lambda name: self.problem(name, kinds), handlers)
        return [problem for problems in found for problem in problems]

    def problem(self, name: str, kinds: Iterable[str] | None) -> list[str]:
        """Return what is wrong with one handler."""
        module = importlib.import_module(f"tests.truth.handlers.{name}") if name in HANDLERS else None
        expected = self._run(name, "undisturbed", 0)
        if (reason := getattr(module, "REFUSED_BECAUSE", None)) is not None:
            is_refused = expected["status"] == "failed" and reason in expected["error"]
            return [] if is_refused else [f"{name}: is not refused: {expected}"]
        if expected["status"] != "completed":
            return [f"{name}: {expected}"]
        chance = random.Random(f"{self._seed}:{name}")
        possible = self._kinds_of(name)
        kinds = [chance.choice(possible)] if kinds is None else [kind for kind in kinds if kind in possible]
        return [
            problem
            for kind in kinds
            if (problem := self._interrupted(name, kind, chance, expected, getattr(module, "MAY_DIFFER", False)))
        ]

    def _kinds_of(self, name: str) -> tuple[str, ...]:
        """Return the interruptions after which something continues.

        What is in memory ends with its process, whatever ends that. A program that was cancelled has ended.
        """
        if name in published_programs():
            return KINDS[:3]
        return KINDS[2:] if self._url.startswith("memory:") else KINDS

    def _interrupted(
        self, name: str, kind: str, chance: random.Random, expected: dict[str, Any], may_differ: bool
    ) -> str | None:
        """Return how a handler that was interrupted differs from an undisturbed one."""
        at = (
            chance.randint(2, max(2, int(expected["version"] * 0.7)))
            if self._control is None
            else expected["version"] - 2
        )
        for _ in range(10):
            found = self._run(name, kind, at)
            if found["starts"] > 1:
                break
            at = max(
                2, at // 2
            )  # it was faster this time, or a busy machine joined its writes: it had ended before that one
        where = f"{name}, {kind} at write {at} (seed {self._seed})"
        if found["starts"] < 2:
            return f"{where}: was not interrupted"
        if may_differ and any("passed over" in line for line in found["log"]):
            return None
        differing = [part for part in COMPARED if found[part] != expected[part]]
        if not differing:
            return None
        parts = [f"{part} is {found[part]!r:.300}, undisturbed {expected[part]!r:.300}" for part in differing]
        return f"{where}: {'; '.join(parts)}; log {found['log']}"

    def _run(self, name: str, kind: str, at: int) -> dict[str, Any]:
        """Run a handler in as many processes as it takes; return how its job has ended."""
        folder = self._folder / f"{re.sub(r'[^.A-Za-z0-9_]', '-', name)}-{kind}-{at}-{next(_numbers)}"
        folder.mkdir()
        namespace = f"truth-{uuid.uuid4().hex[:12]}"
        url = self._url.replace("FOLDER", str(folder))
        case = Case(name, url, namespace, str(folder), kind, at, self._lease, self._control)
        for _ in range(MAX_ATTEMPTS):
            process = self._context.Process(target=serve, args=(case,))
            process.start()
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()
                break
            if case.outcome.exists():
                outcome: dict[str, Any] = json.loads(case.outcome.read_text())
                return outcome
        log = (folder / "worker.log").read_text() if (folder / "worker.log").exists() else ""
        return {"status": "did not end", "error": log[-2000:], "starts": 9, "log": [], "result": None, "items": None,
                "files": {}, "version": 0}  # fmt: skip
