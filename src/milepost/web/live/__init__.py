"""Server-sent event streams and long polls over one feed subscription per process."""
