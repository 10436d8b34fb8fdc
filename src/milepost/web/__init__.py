"""The HTTP interface: a FastAPI router, live streams, access, the dashboard."""
