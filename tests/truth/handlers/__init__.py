"""Small handlers as new users write them, one per file. Each has the result that its author intended."""
