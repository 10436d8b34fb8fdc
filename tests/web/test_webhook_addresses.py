"""Webhooks are never sent to an address of the server's own network."""

from __future__ import annotations

import pytest

from milepost.core.errors import InvalidInputError
from milepost.web.webhooks.addresses import is_public, public_address


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.1",
                                     "0.0.0.0", "224.0.0.1", "100.64.0.1", "2002:7f00:1::", "64:ff9b::a00:1",
                                     "fec0::1", "::10.0.0.1"])  # fmt: skip
async def test_private_addresses_are_refused(address: str) -> None:
    assert not is_public(address)
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(InvalidInputError, match="not a public address"):
        await public_address(f"https://{host}/x")
