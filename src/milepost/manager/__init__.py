"""What callers do with jobs: one implementation, two faces."""
