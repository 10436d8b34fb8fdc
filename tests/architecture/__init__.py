"""Tests of the architecture: which code belongs where, and what it may import."""
