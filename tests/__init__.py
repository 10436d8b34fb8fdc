"""The tests. A package, so that every test module says `from tests.services import ...`."""
