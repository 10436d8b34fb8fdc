"""A drop-in ``from milepost.tqdm import tqdm`` for tqdm's bar, which becomes a stage inside a run.

tqdm itself stays as it is; its own bars become stages only with ``capture="tqdm"``. Needs tqdm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import tqdm.std as _std
except ImportError as _missing:
    raise ImportError("milepost.tqdm needs tqdm: pip install tqdm") from _missing

from milepost.run.capture.tqdm import capturing_methods

if TYPE_CHECKING:
    from tqdm import tqdm as tqdm
else:

    class tqdm(_std.tqdm):
        """A tqdm bar that is also a stage and a cancellation point inside a run."""

    for _name, _method in capturing_methods(_std.tqdm, lambda run: True).items():
        setattr(tqdm, _name, _method)


def trange(*args: Any, **kwargs: Any) -> tqdm[int]:
    """Return ``tqdm(range(*args), **kwargs)``."""
    return tqdm(range(*args), **kwargs)


__all__ = ["tqdm", "trange"]
