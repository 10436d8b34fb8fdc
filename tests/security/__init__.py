"""Attacks on live servers, derived from the rules in docs/security.md."""
