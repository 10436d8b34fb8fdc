"""The job managers, blocking and async: one implementation of what callers do with jobs."""
