"""The build hook: wheels and source archives carry the built dashboard, whatever is on the machine that builds them.

An editable install does nothing here and needs neither Node nor the network: `make static` builds for it. A source archive
holds the built files already, so a wheel that is made from one needs no Node either.
"""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent


def _builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("milepost_dashboard_build", ROOT / "dashboard" / "build.py")
    if spec is None or spec.loader is None:
        raise RuntimeError("dashboard/build.py is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _is_built() -> bool:
    """Whether the files are there and need no look at their sources: this is an unpacked source archive."""
    return (ROOT / "PKG-INFO").is_file() and (ROOT / "src" / "milepost" / "web" / "static" / "index.html").is_file()


class DashboardHook(BuildHookInterface[Any]):
    """Builds the dashboard before it is packed."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Node from PyPI, where the PATH has none and this build needs it."""
        # The frontend asks for the requirements of an editable install by a function of its own, through the same hook.
        editable = any("editable" in frame.function for frame in inspect.stack(context=0))
        if editable or _is_built():
            return []
        builder = _builder()
        if builder.is_fresh() or builder.node_on_path() is not None:
            return []
        return [builder.NODE_PACKAGE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, unless this is an editable install or the files are there."""
        if version == "editable" or _is_built():
            return
        _builder().build()
