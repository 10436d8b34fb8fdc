"""Request bodies, list parameters, responses as JSON, error responses and middleware."""
