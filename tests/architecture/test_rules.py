"""Negative controls: each rule reports a violation in a small tree, and accepts a correct one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.architecture import rules
from tests.architecture.test_architecture import loaded_by

Plant = Callable[..., Path]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Write files into an empty tree, given as path and text, and return its root."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_long_files(plant: Plant) -> None:
    tree = plant({"a.py": "x = 1\n" * 4, "b.py": "x = 1\n" * 3, "sub/c.py": "x = 1\n" * 5})
    assert rules.too_long(tree, 3, {"sub/c.py": "one table"}) == ["a.py: 4 lines"]
    assert rules.too_long(tree, 9, {"b.py": "", "gone.py": "a reason"}) == [
        "b.py: the exception is not needed",
        "b.py: the exception has no reason",
        "gone.py: the exception is not needed",
    ]


def test_vague_names(plant: Plant) -> None:
    tree = plant({"core/utils.py": "", "common/x.py": "", "core/database.py": "", "core/helper.py": ""})
    assert rules.vague_names(tree) == ["common/x.py", "core/helper.py", "core/utils.py"]


def test_missing_docstrings(plant: Plant) -> None:
    tree = plant({"a.py": "# a comment\nx = 1\n", "b.py": '"""What it is."""\n', "c.py": '""" """\n', "d.py": ""})
    assert rules.without_docstring(tree) == ["a.py", "c.py", "d.py"]
    assert rules.without_docstring(tree, blank=True) == ["a.py", "c.py"]


def test_status_words(plant: Plant) -> None:
    tree = plant(
        {
            "redis/apply.lua": "local s = 'x'\nif s == 'Running' then end\n",
            "sqlite/list.sql": "SELECT 1 -- not the failed_count\n",
            "sqlite/sweep.sql": "SELECT 1 WHERE status = 'failed'\n",
            "redis/notes.md": "failed",
        }
    )
    assert rules.status_words(tree) == ["redis/apply.lua:2: Running", "sqlite/sweep.sql:1: failed"]


def test_third_party_imports(plant: Plant) -> None:
    tree = plant(
        {
            "web/a.py": "import json, fastapi.routing\nfrom numpy import array\n",
            "b.py": "try:\n    import numpy.linalg\nexcept ImportError:\n    import redis\n",
            "c.py": "class C:\n    import rich\n",
            "d.py": (
                "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nimport milepost.core\n"
                "from . import b\nif TYPE_CHECKING:\n    import numpy\ndef f():\n    import redis\n"
            ),
        }
    )
    allowed = {"web/": {"fastapi", "starlette"}, "gone": {"redis"}}
    assert rules.third_party_imports(tree, "milepost", allowed) == [
        "b.py:2: numpy",
        "b.py:4: redis",
        "c.py:2: rich",
        "web/a.py:2: numpy",
        "gone: redis is not imported",
        "web/: starlette is not imported",
    ]


def test_strings_that_name_outer_modules(plant: Plant) -> None:
    tree = plant(
        {
            "web/server.py": "import_module('p.docs.routes')\nx = f'p.docs.{name}'\ny = 'p.web.app:a'\n",
            "settings.py": "'p.web'\n'p.web is a package'\nlogging.getLogger('p.web')\n'p.stores'\n",
            "docs/a.py": "import_module('p.web')\n",
            "free.py": "import_module('p.docs')\n",
        }
    )
    assert rules.inward_strings(tree, "p", [["docs"], ["web"], ["stores", "settings"]]) == [
        "settings.py:1: p.web",
        "web/server.py:1: p.docs.routes",
        "web/server.py:2: p.docs.",
    ]


def test_private_names_of_other_packages(plant: Plant) -> None:
    tree = plant(
        {
            "a.py": "import os\nfrom redis._parsers import x\nfrom ours.b import _y\nos._exit(1)\nx._own + x._theirs\n",
            "b.py": "class A:\n    def f(self):\n        self._own = self.__dict__\n_y = getattr(A, '_hidden', 1)\n",
        }
    )
    assert rules.private_names(tree, "ours", {}) == ["a.py:2: _parsers", "a.py:5: _theirs", "b.py:4: _hidden"]
    allowed = {"a.py": {"_parsers", "_theirs", "_gone"}, "b.py": {"_hidden"}}
    assert rules.private_names(tree, "ours", allowed) == ["a.py: _gone is not used"]


def test_impure_core(plant: Plant) -> None:
    tree = plant(
        {
            "a.py": "def f():\n    import redis\n    import time\n    return open('x')\n",
            "b.py": "from datetime import UTC, datetime\nx = datetime.now(UTC)\n",
            "c.py": "import milepost.stores\nfrom milepost.core import a\nimport milepost.core_of_others\n",
            "d.py": "if TYPE_CHECKING:\n    import redis\n    from typing_extensions import TypeVar\n",
            "e.py": "from typing_extensions import TypeVar\n",
            "f.py": "import json, re\nfrom datetime import datetime\nx = datetime(2026, 1, 1)\n",
        }
    )
    assert rules.impure_core(tree, "milepost.core") == [
        "a.py:2: imports redis",
        "a.py:3: imports time",
        "a.py:4: calls open()",
        "b.py:2: reads a clock with .now()",
        "c.py:1: imports milepost.stores",
        "c.py:3: imports milepost.core_of_others",
        "d.py:2: imports redis",
        "e.py:1: imports typing_extensions",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "store = '/home/ana/jobs.db'",
        "cd /root/project",
        "see /work/tree for it",
        "pip install --index-url https://host.example/x milepost",
        "--find-links /some/wheels",
        "https://files." + "pythonhosted.org/packages/x.whl",
        "index = 'https://host.example/api/pypi/main'",
        '"resolved": "https://registry.' + 'npmjs.org/x/-/x-1.0.0.tgz"',
    ],
)
def test_addresses(plant: Plant, line: str) -> None:
    tree = plant({"bad.txt": f"fine\n{line}\n"})
    (breach,) = rules.addresses([tree / "bad.txt"], tree)
    assert breach.startswith("bad.txt:2: ")


def test_harmless_numbers_are_not_addresses(plant: Plant) -> None:
    fine = "#!/usr/bin/env bash\nGET /api/jobs/{id}/events\n~/work/x ./root/x a/home/b --no-emit-index-url\nhttps://example.org/work/1\n"
    tree = plant({"fine.md": fine, "requirements/dev.txt": "x==1 \\\n    --hash=sha256:00\n# https://example.org\n"})
    assert rules.addresses([tree / "fine.md"], tree) == []
    assert rules.addresses([tree / "requirements/dev.txt"], tree) == ["requirements/dev.txt:3: ://"]


def test_unknown_commands() -> None:
    makefile = ".PHONY: demo\nV := x\ndemo test: x  ## help\n\t@make nothing\ntest-slow:\n"
    text = "`make demo`, `make tests`; we make sure.\n```console\n$ make test-slow ARGS=x\n$ make magic\n```\n"
    assert rules.unknown_commands(text, makefile) == ["magic", "tests"]
    assert rules.unknown_commands("step test make tset\n", makefile) == ["tset"]


def test_loaded_by_reports_third_party_modules() -> None:
    assert "packaging" in loaded_by("import packaging.version")
    assert loaded_by("import json, sqlite3, asyncio") == set()
