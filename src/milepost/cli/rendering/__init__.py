"""Terminal output with Rich."""
