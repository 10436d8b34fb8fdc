"""The conformance suite for stores; see `Conformance`."""
