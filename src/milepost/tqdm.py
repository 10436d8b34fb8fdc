"""``from milepost.tqdm import tqdm`` in place of ``from tqdm import tqdm``: the same bar, which in a run is a stage too.

Bars of libraries are captured unasked; this one also where `MILEPOST_CAPTURE` leaves tqdm out. Needs tqdm itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import tqdm.std as _std
except ImportError as _missing:
    raise ImportError("milepost.tqdm shows the bars of tqdm: pip install tqdm") from _missing

from milepost.tracking.bars import wrap

wrap(_std)

if TYPE_CHECKING:
    from tqdm import tqdm as tqdm
else:

    class tqdm(_std.tqdm):
        """A bar of tqdm; inside a run also a stage of it, and a cancel point."""

        always_captured = True


def trange(*args: Any, **kwargs: Any) -> tqdm[int]:
    """``tqdm(range(*args), **kwargs)``."""
    return tqdm(range(*args), **kwargs)


__all__ = ["tqdm", "trange"]
