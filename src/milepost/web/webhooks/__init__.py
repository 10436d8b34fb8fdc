"""Registered webhooks and their signed, retried delivery."""
