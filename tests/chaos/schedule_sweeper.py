"""A process that fires schedules until it is killed, with a clock of its own: ``URL NAMESPACE SPEED SKEW BASE``.

Its clock runs SPEED times as fast since BASE (seconds since 1970) and is SKEW seconds ahead. The guard of a tick is the stored
schedule, so what a clock says only decides when a process looks.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from milepost.run.schedules import fire_due
from milepost.stores.factory import open_store
from milepost.stores.ids import new_operation_id
from milepost.stores.sync_bridge import run_sync


class SkewedStore:
    """A store whose clock is the one of this process."""

    def __init__(self, store: Any, speed: float, skew: float, base: float) -> None:
        self._store = store
        self._speed, self._skew, self._base = speed, skew, base

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def now(self) -> int:
        return int((self._base + (time.time() - self._base) * self._speed + self._skew) * 1_000_000)


def main() -> None:
    url, namespace, *numbers = sys.argv[1:]
    store: Any = SkewedStore(open_store(url, namespace=namespace), *map(float, numbers))
    print("ready", flush=True)
    while True:
        run_sync(fire_due(store, new_operation_id))
        time.sleep(0.02)


if __name__ == "__main__":
    main()
