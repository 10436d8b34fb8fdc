"""Who runs jobs: handlers, execution, the claim loop."""
