"""Where jobs live: stores apply Changes atomically and decide nothing. `open_store` picks one by its URL."""
