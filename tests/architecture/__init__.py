"""Tests that hold the house: what may lie where, and what may import what."""
