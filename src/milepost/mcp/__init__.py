"""MCP: tools whose calls are jobs, as tasks of the Model Context Protocol, and a server over an existing store."""

from milepost.mcp.tasks import Tasks

__all__ = ["Tasks"]
