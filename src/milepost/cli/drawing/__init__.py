"""What answers look like on a terminal: everything that needs Rich."""
