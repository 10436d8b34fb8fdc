"""A drop-in ``from milepost.tqdm import tqdm`` for tqdm's bar, which becomes a stage inside a run.

Bars of libraries are captured anyway; this one also if `MILEPOST_CAPTURE` leaves out tqdm. Needs tqdm itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import tqdm.std as _std
except ImportError as _missing:
    raise ImportError("milepost.tqdm needs tqdm: pip install tqdm") from _missing

from milepost.run.capture.tqdm import patch_module

patch_module(_std)

if TYPE_CHECKING:
    from tqdm import tqdm as tqdm
else:

    class tqdm(_std.tqdm):
        """A tqdm bar that is also a stage and a cancellation point inside a run."""

        always_captured = True


def trange(*args: Any, **kwargs: Any) -> tqdm[int]:
    """Return ``tqdm(range(*args), **kwargs)``."""
    return tqdm(range(*args), **kwargs)


__all__ = ["tqdm", "trange"]
