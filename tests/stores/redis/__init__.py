"""What is special to the store in Redis."""
