"""Statistics of finished jobs, failure groups and Prometheus metrics."""
