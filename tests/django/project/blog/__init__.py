"""An app of the test project."""
