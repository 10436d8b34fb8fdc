"""Request bodies, error responses, idempotency keys and JSON encoding."""
