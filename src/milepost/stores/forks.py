"""What objects do in a forked child before its code runs: they let go of what belongs to the parent."""

from __future__ import annotations

import os
from typing import Protocol

from milepost.core.instances import Instances


class Inherited(Protocol):
    """An object that a forked child has as well."""

    def after_fork(self) -> None:
        """Replace locks, which other threads may have held during the fork, and what only the parent may use."""


_objects: Instances[Inherited] = Instances()


def reset_after_fork(instance: Inherited) -> None:
    """Call `after_fork` of an object in each forked child, while there is no other thread that could use it."""
    _objects.add(instance)


def _after_fork_in_child() -> None:
    for instance in _objects:
        instance.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
