"""The commands, one module each; `command` is the Click command."""
