"""Tests that only concern the Redis store."""
