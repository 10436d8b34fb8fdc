"""The managers' methods over HTTP."""
