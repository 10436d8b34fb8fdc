"""The stores of jobs, which apply Changes atomically and decide nothing. `open_store` picks one by its URL."""
