"""Plugins are found by entry point, imported when they are used, and refused one at a time."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from milepost import plugins
from milepost.core.errors import InvalidInputError, PluginError
from milepost.documents.embed import get_embedder
from milepost.documents.loaders import load
from milepost.integrations import task_queue
from milepost.stores.factory import open_store

ROOT = Path(__file__).resolve().parents[1]

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that installs a package with entry points of one group and one module."""

    def add(package: str, group: str, entries: dict[str, str], code: str = "") -> None:
        folder = tmp_path / package
        info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {target}" for name, target in entries.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
        (folder / f"{package.replace('-', '_')}_module.py").write_text(code)
        monkeypatch.syspath_prepend(folder)
        plugins._installed.cache_clear()

    plugins._installed.cache_clear()
    yield add
    monkeypatch.undo()
    plugins._installed.cache_clear()
    for name in [name for name in sys.modules if name.startswith(("some_store_", "store_a_", "store_b_"))]:
        del sys.modules[name]


def test_built_in_plugins_are_those_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"] == plugins.BUILT_IN
    assert set(plugins.KINDS) == set(plugins.BUILT_IN)


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group in plugins.KINDS for name in plugins.BUILT_IN[group]]
)
def test_built_in_plugin_can_be_imported(group: str, name: str) -> None:
    plugin = plugins.find(group, name)
    assert plugin is not None
    assert plugin.load() is not None


def test_built_in_name_needs_no_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_installed", lambda: pytest.fail("metadata was read"))
    assert open_store("memory://").url.startswith("memory:")


def test_installed_plugin_is_found_by_name(install: Install) -> None:
    code = "def open(url, *, namespace, blocking):\n    return (url, namespace, blocking)\n"
    install("some-store", "milepost.stores", {"some": "some_store_module:open"}, code)
    assert plugins.names("milepost.stores") == [*plugins.BUILT_IN["milepost.stores"], "some"]
    assert open_store("some://x", namespace="n") == ("some://x", "n", True)  # type: ignore[comparison-overlap]


def test_plugin_is_imported_only_when_used(install: Install) -> None:
    install("some-store", "milepost.stores", {"some": "some_store_module:open"}, "raise SystemExit('imported')")
    assert "some" in plugins.names("milepost.stores")
    assert open_store("memory://") is not None


def test_broken_plugin_is_one_line_that_names_its_package(install: Install) -> None:
    install("some-store", "milepost.stores", {"some": "some_store_module:open"}, "import no_such_package")
    with pytest.raises(PluginError) as caught:
        open_store("some://x")
    assert str(caught.value) == (
        "the store 'some' of some-store 1.0 cannot be loaded: ModuleNotFoundError: No module named 'no_such_package'; "
        "run: pip install --upgrade some-store, or uninstall it"
    )
    assert open_store("memory://") is not None


def test_missing_attribute_is_reported_as_broken(install: Install) -> None:
    install("some-store", "milepost.stores", {"some": "some_store_module:none"})
    with pytest.raises(PluginError, match="AttributeError"):
        open_store("some://x")


def test_name_of_two_packages_is_refused(install: Install) -> None:
    for package in ("store-a", "store-b"):
        install(package, "milepost.stores", {"some": "store_a_module:open"}, "open = None")
    with pytest.raises(PluginError) as caught:
        open_store("some://x")
    assert str(caught.value) == (
        "the store 'some' is provided by store-b 1.0 and store-a 1.0; uninstall all but one of them"
    )


def test_built_in_name_cannot_be_replaced(install: Install) -> None:
    install("some-store", "milepost.stores", {"memory": "some_store_module:open"}, "raise SystemExit('imported')")
    assert open_store("memory://").url.startswith("memory:")
    assert plugins.names("milepost.stores").count("memory") == 1


def test_broken_plugin_does_not_stop_the_others(
    install: Install, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plugins.BUILT_IN, "milepost.stores", {})
    install("store-a", "milepost.stores", {"a": "store_a_module:open"}, "1 / 0")
    install("store-b", "milepost.stores", {"b": "store_b_module:open"}, "open = 7")
    assert plugins.use_all("milepost.stores", lambda plugin, found: (plugin.name, found)) == [("b", 7)]
    assert "'a' of store-a 1.0 cannot be loaded: ZeroDivisionError" in caplog.text


def test_unknown_scheme_names_the_schemes() -> None:
    with pytest.raises(InvalidInputError, match="sqlite:///path"):
        open_store("mysql://x")


def test_loader_of_plugin_reads_its_extension(install: Install, tmp_path: Path) -> None:
    code = (
        "from milepost.documents.loaders import LoadReport, Piece\n"
        "def load(path, *, encoding):\n"
        "    text = path.read_bytes()[::-1].decode()\n"
        "    yield Piece(text, len(text), len(text))\n"
        "    return LoadReport(format='rev', size=len(text))\n"
    )
    install("some-store", "milepost.loaders", {"rev": "some_store_module:load"}, code)
    file = tmp_path / "a.REV"
    file.write_bytes(b"\x00olleh")
    pieces = load(file)
    assert next(pieces).text == "hello\x00"
    with pytest.raises(StopIteration) as ended:
        next(pieces)
    assert ended.value.value.format == "rev"


def test_embedder_of_plugin_is_opened_with_its_argument(install: Install) -> None:
    install(
        "some-store", "milepost.embedders", {"some": "some_store_module:open"}, "def open(*given):\n    return given\n"
    )
    argument, options = get_embedder("some:large:1", endpoint="http://x")  # type: ignore[misc]
    assert (argument, options.endpoint, options.dimension) == ("large:1", "http://x", 0)


def test_unknown_embedder_and_task_queue_name_the_known_ones(install: Install) -> None:
    with pytest.raises(ValueError, match=r"unknown model 'gpt'; choose from minilm, wordllama, hashing, http"):
        get_embedder("gpt")
    with pytest.raises(InvalidInputError, match="available: celery, rq, dramatiq, taskiq, dask, ray"):
        task_queue("arq")


def test_task_queue_of_plugin_is_found_by_name(install: Install) -> None:
    install("some-store", "milepost.integrations", {"arq": "some_store_module:Queue"}, "class Queue: ...\n")
    assert task_queue("arq").__name__ == "Queue"
